"""Which relations of somebody's own DuckDB file are datasets: a JSON file beside it, its catalog.

The pipeline writes it, which knows the dbt project that builds in the file. Of a file that has to have one, the API
shows nothing before it is there: nobody else knows whose rows are whose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from duckdb import DuckDBPyConnection

from backend.errors import SnapshotCorrupt
from backend.manifest import USER_COLUMN
from backend.names import folded
from backend.quoting import quoted


@dataclass(frozen=True)
class Entry:
    """The dataset ``mart`` is the relation ``identifier`` in ``schema``; ``columns`` has the words on some of them.

    ``scope`` is as in ``backend.manifest.MartSpec``.
    """

    mart: str
    schema: str
    identifier: str
    scope: str = USER_COLUMN
    description: str = ""
    columns: dict[str, str] = field(default_factory=dict)

    def sql(self, database: str) -> str:
        """The relation as SQL; ``database`` is what DuckDB calls the file, as which a schema may be called, too."""
        return f"{quoted(database)}.{quoted(self.schema)}.{quoted(self.identifier)}"

    @property
    def place(self) -> tuple[str, str]:
        """Where the relation is, as ``tables`` says it."""
        return folded(self.schema), folded(self.identifier)

    @property
    def meaning(self) -> tuple[str, ...]:
        """Which rows are shown as which dataset, and to whom."""
        return self.mart, *self.place, folded(self.scope)


def path_of(file: Path) -> Path:
    """Where the catalog of a DuckDB file lies."""
    return file.with_name(file.name + ".marts.json")


def write_catalog(file: Path, entries: Iterable[Entry]) -> None:
    """Replace the catalog of the DuckDB file, at one moment. Raises OSError."""
    path = path_of(file)
    new = path.with_name(path.name + ".next")
    new.write_text(json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False), encoding="utf-8")
    new.replace(path)


def withhold(file: Path, entries: Sequence[Entry]) -> None:
    """Show of the file, until it is what ``entries`` were written for, only what means the same before and after.

    A column that says whose a row is may be there under its other name only. A file without a catalog gets all entries.
    Raises OSError.
    """
    try:
        known = read_catalog(path_of(file))
    except SnapshotCorrupt:
        known = []
    same = {entry.meaning for entry in (entries if known is None else known)}
    write_catalog(file, [entry for entry in entries if entry.meaning in same])


def read_catalog(path: Path) -> list[Entry] | None:
    """What ``write_catalog`` wrote; None where there is nothing. Raises SnapshotCorrupt where it is something else."""
    try:
        return [Entry(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotCorrupt(
            f"reading {path} failed: {type(error).__name__}: {error}",
            hint="start the Dagster daemon anew: it writes it",
        ) from error


def current_database(connection: DuckDBPyConnection) -> str:
    """What DuckDB calls the file that the connection is on."""
    ((name,),) = connection.execute("SELECT current_database()").fetchall()
    return str(name)


def tables(connection: DuckDBPyConnection, database: str) -> set[tuple[str, str]]:
    """Schema and name of every table, views left out, in the case that names of DuckDB don't have."""
    rows = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?", [database]
    ).fetchall()
    return {(folded(schema), folded(name)) for schema, name in rows}
