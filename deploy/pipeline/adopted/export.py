"""Marts as Parquet files, from whatever relations an adopted project made of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from backend.audit import FINGERPRINT, Written, parquet_columns, parquet_rows
from backend.checksum import file_sha256
from backend.errors import BuildFailed
from backend.manifest import Column
from backend.names import folded
from backend.parquet_types import EXPORTED_AS, losses
from backend.quoting import parquet_file, quoted

# As in dbt/dbt_project.yml, for the reason given there.
_ROW_GROUP_SIZE = 10_240
_ROW_GROUPS = 100
_ROW_GROUPS_OF_USERS = 2_500  # of which a user's query reads few
_VECTOR = 2_048  # rows that DuckDB does at once
# dbt-duckdb's materialization `external` leaves a view on what it wrote.
_VIEW_ON_FILE = re.compile(r"read_parquet\('((?:[^']|'')+)'")


@dataclass(frozen=True)
class Relation:
    """Where a mart lies in the build's database; ``external`` as its model says, ``scope`` as it was asked for."""

    mart: str
    database: str
    schema: str
    identifier: str
    external: bool
    scope: str

    @property
    def sql(self) -> str:
        """Its name as SQL."""
        return f"{quoted(self.database)}.{quoted(self.schema)}.{quoted(self.identifier)}"


@dataclass(frozen=True)
class Export:
    """Writes marts into ``directory``. ``own`` is where ``external`` models write that name no place themselves."""

    connection: duckdb.DuckDBPyConnection
    directory: Path
    own: Path

    def run(self, relations: Sequence[Relation]) -> dict[str, Written]:
        """Write these marts; what was written, by mart. Raises BuildFailed.

        All as they are at one moment, where a transaction is open.
        """
        return {relation.mart: self._one(relation) for relation in relations}

    def _one(self, relation: Relation) -> Written:
        target = self.directory / f"{relation.mart}.parquet"
        try:
            written = self._file_of(relation) if relation.external else None
            if written is not None:
                self._take(written, target)
                source = f"FROM {parquet_file(target)}"
            else:
                source = self._export(relation, target)
            ((fingerprint,),) = self.connection.execute(f"SELECT {FINGERPRINT} FROM ({source}) AS t").fetchall()  # noqa: S608
        except (duckdb.Error, OSError) as error:
            raise BuildFailed(
                f"exporting the mart {relation.mart} from {relation.sql} failed: {error}",
                hint="nothing was published; cast what Parquet can't hold, or leave the mart out by MART_SELECTOR",
            ) from error
        return Written(fingerprint, file_sha256(target))

    def _take(self, file: Path, target: Path) -> None:
        if file.is_relative_to(self.own):
            with suppress(OSError):  # a file system without hard links
                os.link(file, target)
                return
        shutil.copyfile(file, target)  # what lies elsewhere, its model will write to again

    def _export(self, relation: Relation, target: Path) -> str:
        """Write the file; SQL for the rows that it has to hold, in the types that it has."""
        source = relation.sql
        if self._view(relation) is not None:
            # Read twice, a view need not give the same rows.
            source = quoted(f"rows of {relation.mart}")
            self.connection.execute(f"CREATE TEMP TABLE {source} AS SELECT * FROM {relation.sql}")  # noqa: S608 - quoted
        columns = [row[:2] for row in self.connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]  # noqa: S608
        wanted = [Column(name, EXPORTED_AS.get(kind, kind)) for name, kind in columns]
        if lost := losses(wanted):
            raise BuildFailed(
                f"the mart {relation.mart} can't be exported as it is: {'; '.join(lost)}",
                hint="nothing was published; change the model, or leave the mart out by MART_SELECTOR",
            )
        types = dict(columns)
        values = ", ".join(_as(c.name, c.type, types[c.name]) for c in wanted)
        names = [name for name, _ in columns]
        scope = scope_column(names, relation.scope)
        rows = _sorted(values, source, names, scope)
        options = layout(self.connection, source, of_users=scope in names)
        self.connection.execute(f"COPY ({rows}) TO ? ({options})", [str(target)])
        held = ", ".join(_as(c.name, c.type, types[c.name]) for c in parquet_columns(self.connection, target))
        return f"SELECT {held} FROM {source}"  # noqa: S608 - quoted

    def _file_of(self, relation: Relation) -> Path | None:
        """The one Parquet file that the model wrote, if that is what it did.

        Of an empty model dbt-duckdb writes a row of NULLs, and hides it in the view: then the file is not the mart.
        """
        found = _VIEW_ON_FILE.search(self._view(relation) or "")
        file = Path(found[1].replace("''", "'")) if found else None
        if file is None or not file.is_file():
            return None
        ((rows,),) = self.connection.execute(f"SELECT count(*) FROM {relation.sql}").fetchall()  # noqa: S608 - quoted
        return file if rows == parquet_rows(self.connection, file) else None

    def _view(self, relation: Relation) -> str | None:
        """The SQL of the view that the relation is, if it is one."""
        rows = self.connection.execute(
            "SELECT sql FROM duckdb_views() WHERE lower(database_name) = lower(?) AND lower(schema_name) = lower(?)"
            " AND lower(view_name) = lower(?)",
            [relation.database, relation.schema, relation.identifier],
        ).fetchall()
        return str(rows[0][0]) if rows else None


def scope_column(names: Sequence[str], wanted: str) -> str:
    """The column that ``wanted`` means among these, as it is written there; DuckDB's names have no case."""
    return next((name for name in names if folded(name) == folded(wanted)), wanted)


def _as(name: str, wanted: str, kind: str) -> str:
    return quoted(name) if wanted == kind else f"CAST({quoted(name)} AS {wanted}) AS {quoted(name)}"


def layout(connection: duckdb.DuckDBPyConnection, source: str, *, of_users: bool) -> str:
    """Options to write these rows with, like those of ``dbt/macros/materializations``.

    ``source`` is SQL for a FROM clause. Of each row group a query reads what the footer says, so that there are about a
    hundred at most; of those sorted by user, ``of_users``, a user's query reads few, and there may be more.
    """
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()  # noqa: S608 - quoted
    at_least = -(-rows // ((_ROW_GROUPS_OF_USERS if of_users else _ROW_GROUPS) * _VECTOR)) * _VECTOR
    return f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {max(_ROW_GROUP_SIZE, at_least)}"


def _sorted(values: str, source: str, names: Sequence[str], scope: str) -> str:
    """SQL for the rows: a user's beside each other, so that row groups can be skipped; else in the model's order."""
    if scope not in names:
        return f"SELECT {values} FROM {source}"  # noqa: S608 - quoted
    position = quoted("position of " + "".join(names))  # a name that no column has
    return (
        f"SELECT {values} FROM (SELECT *, row_number() OVER () AS {position} FROM {source})"  # noqa: S608 - quoted
        f" ORDER BY {quoted(scope)}, {position}"
    )
