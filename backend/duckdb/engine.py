"""A DuckDB instance that can read what it was opened for, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from backend.config import Settings
from backend.datasets import Column, describe
from backend.errors import SnapshotCorrupt
from backend.manifest import Mart
from backend.quoting import literal, only

FATAL = (duckdb.FatalException, duckdb.InternalException)
"""After these DuckDB refuses every further query on the instance."""


def connect(
    settings: Settings, database: str = ":memory:", *, read_only: bool = False, memory: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with our limits, extensions and Python variables off. Raises duckdb.Error.

    ``memory`` in bytes: an equal part of what all instances may take, if not given.
    """
    config: dict[str, Any] = {
        "threads": settings.duckdb_threads,
        "memory_limit": f"{memory or settings.instance_memory}B",
        # The container's file system is read-only: a query that doesn't fit into memory has to fail, not spill.
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,
    }
    return duckdb.connect(database, read_only=read_only, config=config)


def lock_down(
    connection: duckdb.DuckDBPyConnection, *, paths: Sequence[str] = (), directories: Sequence[str] = ()
) -> None:
    """Let the whole instance read these files at most, in UTC, and let no statement change that."""
    # GLOBAL: a cursor is a session of its own and does not inherit what SET changed in this one.
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    for setting, values in (("allowed_paths", paths), ("allowed_directories", directories)):
        # DuckDB asks for the pattern that finds a file, too (``parquet_file``).
        allowed = dict.fromkeys([*values, *map(only, values)])
        connection.execute(f"SET {setting} = [{', '.join(map(literal, allowed))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str, mart: Mart, source: Path) -> tuple[Column, ...]:
    """Columns of the relation, made of the file ``source``. Raises SnapshotCorrupt where it is not that mart."""
    columns = describe(connection, relation, {column.name: column.description.strip() for column in mart.columns})
    rows = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]  # noqa: S608 - our path
    found = ([(column.name, str(column.sqltype)) for column in columns], rows)
    declared = ([(column.name, column.type) for column in mart.columns], mart.rows)
    if found != declared:
        raise SnapshotCorrupt(
            f"{source} has (columns, rows) {found}, its manifest says {declared}",
            hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
        )
    return columns
