"""Writes a snapshot's marts as tables into a DuckDB file, as phase 0 has them.

Phase 1 does so after every publish, so that a rollback to phase 0 finds the same rows. Of a project of one's own all
that it built is written, with the marts where it has them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from backend.catalog import Entry, current_database, tables, withhold, write_catalog
from backend.checksum import file_sha256
from backend.errors import SnapshotCorrupt
from backend.manifest import Manifest
from backend.quoting import literal, parquet_file, quoted
from backend.snapshots import Snapshot, SnapshotStore

# A schema of its own: what is in `main` is a dataset. The dbt macro `forget_snapshot` drops it when phase 0 builds.
_RECORD = "_snapshot"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def refresh_duckdb_file(store: SnapshotStore, path: Path, catalog: Sequence[Entry] | None = None) -> None:
    """``write_duckdb_file`` with what ``store`` serves, and its ``catalog``, if it has one; one writer at a time.

    A build and a rollback may end together: whoever comes last writes what is served by then.
    """
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with store.open() as snapshot:
            if catalog is None:
                write_duckdb_file(snapshot, path)
                return
            # Whose a row is, the snapshot says: the project may have changed since.
            marts = snapshot.manifest.marts
            catalog = [replace(entry, scope=marts[entry.mart].scope) for entry in catalog if entry.mart in marts]
            withhold(path, catalog)
            write_duckdb_file(snapshot, path, catalog)
            write_catalog(path, catalog)


def write_duckdb_file(snapshot: Snapshot, path: Path, catalog: Sequence[Entry] | None = None) -> None:
    """Replace the DuckDB file ``path`` by one with the snapshot's marts: same rows, order, types and comments.

    With a ``catalog``, which names no other marts: by what the snapshot's build left, in which a mart that was a view
    becomes a table. So the owner's dbt can go on from it, and it needs nothing outside of it to be read.

    It says of which snapshot it is (``legacy_snapshot_id``), and is as old as that, so that the API's ``last_refresh``
    is the same in both phases. It is written beside its target and renamed over it, so that a reader meets the old file
    or the new one, never a lock. Raises duckdb.Error, OSError, or SnapshotCorrupt where what the build left is not what
    was published; then ``path`` is as it was.
    """
    microseconds = (snapshot.manifest.created_at - _EPOCH) // timedelta(microseconds=1)
    temporary = path.with_name(path.name + ".next")
    _remove_with_log(temporary)
    if catalog is not None and snapshot.database is not None:
        shutil.copyfile(snapshot.database, temporary)
        if file_sha256(temporary) != snapshot.manifest.state[snapshot.database.name]:
            raise SnapshotCorrupt(
                f"{snapshot.database} is not what was published, and {path} was left as it is",
                hint="`make rollback-data SNAPSHOT=<id>` to one that is whole",
            )
    with duckdb.connect(str(temporary)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if catalog is None:
            _copy(connection, snapshot)
        else:
            _make_tables(connection, snapshot, catalog)
        connection.execute(f"DROP SCHEMA IF EXISTS {_RECORD} CASCADE")  # of the file that the first build went on from
        connection.execute(f"CREATE SCHEMA {_RECORD}")
        connection.execute(
            f"CREATE TABLE {_RECORD}.written_from AS SELECT ? AS snapshot_id, ?::BIGINT AS modified_us",
            [snapshot.id, microseconds],
        )
        connection.execute(f"CREATE TABLE {_RECORD}.scopes (dataset VARCHAR, scope VARCHAR)")
        for mart in snapshot.manifest.marts.values():
            connection.execute(f"INSERT INTO {_RECORD}.scopes VALUES (?, ?)", [mart.name, mart.scope])  # noqa: S608 - our own name
    os.utime(temporary, ns=(microseconds * 1000, microseconds * 1000))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    # A log that a killed phase-0 build left behind belongs to the old file; the new one must not replay it.
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    temporary.replace(path)


def legacy_snapshot_id(path: Path) -> str | None:
    """Which snapshot the DuckDB file ``path`` was written from; None when a build has written to it since.

    Raises duckdb.Error when it can't be opened.
    """
    with duckdb.connect(str(path), read_only=True) as connection:
        snapshot_id, modified = _record(connection)
    log = path.with_name(path.name + ".wal")
    untouched = modified in (None, path.stat().st_mtime_ns // 1000) and not (log.exists() and log.stat().st_size)
    return snapshot_id if untouched else None


def recorded_snapshot(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Which snapshot the current database says it was written from; the example's own builds make it forget."""
    return _record(connection)[0]


def _record(connection: duckdb.DuckDBPyConnection) -> tuple[str | None, int | None]:
    """The snapshot, and the time that the file then had in microseconds, which files from before 0025 don't say."""
    try:
        ((snapshot_id, *modified),) = connection.execute(f"FROM {_RECORD}.written_from").fetchall()
    except duckdb.CatalogException:
        return None, None
    return str(snapshot_id), modified[0] if modified else None


def recorded_scopes(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Which column says whose row it is, by dataset, in a file that ``write_duckdb_file`` wrote; of another nothing."""
    try:
        return dict(connection.execute(f"SELECT dataset, scope FROM {_RECORD}.scopes").fetchall())  # noqa: S608 - our own name
    except duckdb.CatalogException:
        return {}


def _copy(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> None:
    manifest: Manifest = snapshot.manifest
    for mart in manifest.marts.values():
        table = quoted(mart.name)
        connection.execute(f"CREATE TABLE {table} AS FROM {parquet_file(snapshot.file(mart.name))}")
        connection.execute(f"COMMENT ON TABLE {table} IS {literal(mart.description)}")
        # Each takes longer the more columns there are: 10 ms where there are 2,000.
        for column in filter(lambda column: column.description, mart.columns):
            connection.execute(f"COMMENT ON COLUMN {table}.{quoted(column.name)} IS {literal(column.description)}")


def _make_tables(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, catalog: Sequence[Entry]) -> None:
    """Make a table of each mart that is none in the copy: a view may need files, or what dbt attaches."""
    database = current_database(connection)
    found = tables(connection, database)
    for entry in catalog:
        if entry.place not in found:
            relation = entry.sql(database)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(database)}.{quoted(entry.schema)}")
            connection.execute(f"DROP VIEW IF EXISTS {relation}")
            connection.execute(f"CREATE TABLE {relation} AS FROM {parquet_file(snapshot.file(entry.mart))}")


def _remove_with_log(path: Path) -> None:
    for leftover in (path, path.with_name(path.name + ".wal")):
        leftover.unlink(missing_ok=True)
