"""Marts as tables: as a reader of the build's own file sees them. Nothing of the export is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from backend.errors import BuildFailed
from backend.quoting import literal, quoted
from deploy.pipeline.adopted.export import Relation

_DATABASE = quoted("copies of the marts")  # a name that no profile attaches something under


def copy_marts(connection: duckdb.DuckDBPyConnection, file: Path, relations: Sequence[Relation]) -> None:
    """Copy what each mart's relation shows into the DuckDB file, as a table in ``main`` by the mart's name.

    In the transaction that is open, so that it is what the export reads; ``close_copies`` is for afterwards. Raises
    BuildFailed.
    """
    connection.execute(f"ATTACH {literal(str(file))} AS {_DATABASE}")
    # DuckDB 1.5.5 compresses 0.0 beside -0.0 into two of the first one.
    connection.execute("SET force_compression = 'uncompressed'")
    for relation in relations:
        table = f"{_DATABASE}.main.{quoted(relation.mart)}"
        try:
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM {relation.sql}")  # noqa: S608 - quoted
        except duckdb.Error as error:
            raise BuildFailed(
                f"copying the mart {relation.mart} from {relation.sql} failed: {error}",
                hint="see what dbt printed; leave the mart out by MART_SELECTOR if nobody can read it",
            ) from error


def close_copies(connection: duckdb.DuckDBPyConnection) -> None:
    """Write what was committed of the copies to their file, and let go of it. Raises duckdb.Error."""
    connection.execute(f"DETACH {_DATABASE}")
    connection.execute("RESET force_compression")
