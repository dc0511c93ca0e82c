"""One build of an adopted project, its marts as dbt left them and as they would be published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import duckdb

from backend import filepaths
from backend.catalog import Entry, tables
from backend.errors import NoSnapshot
from backend.quoting import quoted
from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted.build import restore
from deploy.pipeline.adopted.dbt import AdoptedDbt
from deploy.pipeline.adopted.profile import external_root
from deploy.pipeline.adopted.project import parsed_project
from deploy.pipeline.adopted.variables import provide_variables
from deploy.pipeline.dbt import check
from deploy.pipeline.parity.compare import Side
from deploy.pipeline.parity.twins import STDERR, Sides, attach_tables

# What ``sum`` gives of whole numbers is published as another type, as it has to be (0019). Said here once more: what is
# to be found is whether the export does anything else.
_PUBLISHED_AS = {"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)"}


@dataclass
class AdoptedTwins(Sides):
    """Both sides of the project in ``root``; ``marts`` are the names of those that were built."""

    names: ClassVar = ("as dbt left it", "as it is published")

    root: Path
    marts: list[str] = field(default_factory=list, init=False)

    def build(self) -> None:
        """Build all of it on a copy of what the next build goes on from, which is only read.

        Raises BuildFailed, ConfigError or SnapshotCorrupt.
        """
        provide_variables()
        with parsed_project(self.root, stdout=STDERR, workspace=self._workspace) as project:
            if store := filepaths.parquet_dir():
                project.check_locations(store)
            self.marts = project.mart_names
            self.parquet.mkdir()
            external_root(self._workspace).mkdir(parents=True)
            restore(project.profile, self._workspace / project.profile.file_name, self._state)
            dbt = AdoptedDbt(
                project.parsed,
                {},
                stdout=STDERR,
                root=project.root,
                profile=project.profile,
                workspace=self._workspace,
                marts=self.parquet,
                relations=list(project.relations.values()),
                tables=self.tables,
            )
            check(dbt.build(None), project.manifest["nodes"])
            dbt.written()

    def attach(self, connection: duckdb.DuckDBPyConnection) -> tuple[Side, Side]:
        """The marts of both, old and new. Raises duckdb.Error."""
        old, new = super().attach(connection)
        return {name: _as_published(connection, table) for name, table in old.items()}, new

    def _state(self) -> bool:
        store = filepaths.parquet_dir()
        try:
            snapshot = SnapshotStore(store).open() if store else None
        except NoSnapshot:
            snapshot = None
        if snapshot is None:
            return False
        with snapshot:
            return snapshot.restore_state(self._workspace)

    @property
    def _workspace(self) -> Path:
        return self.work / "workspace"


def attach_marts(connection: duckdb.DuckDBPyConnection, file: Path, alias: str, catalog: Sequence[Entry]) -> Side:
    """Attach a DuckDB file for reading; the marts that its catalog names, as they are published.

    Raises duckdb.Error.
    """
    attach_tables(connection, file, alias)
    found = tables(connection, alias)
    return {entry.mart: _as_published(connection, entry.sql(alias)) for entry in catalog if entry.place in found}


def _as_published(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """SQL for the rows of the table, in the types that they are published in."""
    columns = connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()  # noqa: S608 - quoted
    casts = [
        f"CAST({quoted(name)} AS {_PUBLISHED_AS[kind]}) AS {quoted(name)}"
        for name, kind, *_ in columns
        if kind in _PUBLISHED_AS
    ]
    return f"(SELECT * REPLACE ({', '.join(casts)}) FROM {table})" if casts else table  # noqa: S608 - quoted
