"""The DuckDB file of phases 0 and 1: opened read-only for as long as requests need it, and no longer.

DuckDB lets one process write or several read, so a build keeps us out and we keep a build out.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from backend.catalog import Entry, current_database, read_catalog, tables
from backend.config import Settings
from backend.datasets import Dataset, describe, numbered
from backend.duckdb.engine import connect, lock_down
from backend.errors import LockHeld, NoSnapshot, SnapshotCorrupt
from backend.manifest import USER_COLUMN, label_for
from backend.names import folded
from backend.parquet_types import EXPORTED_AS
from backend.quoting import quoted
from backend.scripts.bootstrap_duckdb import recorded_scopes

_TABLES = """
    SELECT table_name, comment FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal ORDER BY table_name
"""
_COLUMNS = """
    SELECT table_name, column_name, comment FROM duckdb_columns()
    WHERE database_name = current_database() AND schema_name = 'main' AND comment IS NOT NULL
"""


@dataclass
class OpenFile:
    """The file while it is open: what is in it, and since when. ``users`` counts the requests on it."""

    connection: duckdb.DuckDBPyConnection
    datasets: dict[str, Dataset]
    modified_at: datetime
    users: int = 0


class DuckDBFile:
    """One DuckDB file that others write. Requests at the same time share one instance.

    Its datasets are the tables in its schema ``main``, or what the file ``catalog`` names.
    """

    def __init__(self, path: Path, settings: Settings, *, catalog: Path | None = None) -> None:
        self.path = path
        self.lock_retries = 0
        self._catalog = catalog
        self._settings = settings
        self._lock = threading.Lock()
        self._open: OpenFile | None = None

    @contextmanager
    def lease(self) -> Iterator[OpenFile]:
        """The open file.

        Raises NoSnapshot when it does not exist or has no table, LockHeld when a build still holds it after
        ``lock_wait_seconds``, SnapshotCorrupt when it is no DuckDB file that we can read.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(LockHeld),
            stop=stop_before_delay(self._settings.lock_wait_seconds),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            before_sleep=self._count,
            reraise=True,
        )
        opened = retrying(self._acquire)
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                if opened.users == 0:
                    self._open = None
                    opened.connection.close()

    def _count(self, _: RetryCallState) -> None:
        self.lock_retries += 1

    def _acquire(self) -> OpenFile:
        with self._lock:
            opened = self._open = self._open or self._connect()
            opened.users += 1
            return opened

    def _connect(self) -> OpenFile:
        try:
            modified_at = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except OSError as error:
            raise self._nothing(f"there is no readable DuckDB file {self.path}: {error.strerror}") from error
        catalog = read_catalog(self._catalog) if self._catalog else None
        if self._catalog and catalog is None:
            raise self._nothing(f"{self._catalog}, which the Dagster daemon writes, is not there")
        try:
            connection = connect(self._settings, str(self.path), read_only=True)
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
                raise LockHeld(
                    f"the DuckDB file {self.path} is being written: {error}",
                    hint="a build is running; try again in a moment",
                ) from error
            raise self._unreadable(error) from error
        try:
            lock_down(connection)
            datasets = _tables(connection) if catalog is None else _named(connection, catalog)
        except duckdb.Error as error:
            connection.close()
            raise self._unreadable(error) from error
        if not datasets:
            connection.close()
            raise self._nothing(f"the DuckDB file {self.path} has no table yet")
        return OpenFile(connection, datasets, modified_at)

    def _nothing(self, found: str) -> NoSnapshot:
        return NoSnapshot(f"there is no snapshot, and {found}", hint="wait for the first build, or run it")

    def _unreadable(self, error: duckdb.Error) -> SnapshotCorrupt:
        return SnapshotCorrupt(f"opening the DuckDB file {self.path} failed: {error}", hint="build it anew")


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, Dataset]:
    descriptions: dict[str, dict[str, str]] = {}
    for table, column, comment in connection.execute(_COLUMNS).fetchall():
        descriptions.setdefault(table, {})[column] = comment.strip()
    scopes = recorded_scopes(connection)
    datasets = {}
    for table, comment in connection.execute(_TABLES).fetchall():
        source = f"main.{quoted(table)}"
        columns = describe(connection, source, descriptions.get(table, {}))
        relation, position = numbered(source, columns, "rowid")
        datasets[table] = Dataset(
            id=table,
            name=label_for(table),
            description=(comment or "").strip(),
            columns=columns,
            relation=relation,
            position=position,
            scope=scopes.get(table, USER_COLUMN),
        )
    return datasets


def _named(connection: duckdb.DuckDBPyConnection, catalog: list[Entry]) -> dict[str, Dataset]:
    datasets, found = {}, tables(connection, current_database(connection))
    for entry in catalog:
        # Not built yet, or a view on what only dbt's own session can reach: the rollout's preflight says which.
        with suppress(duckdb.CatalogException, duckdb.BinderException, duckdb.PermissionException, SnapshotCorrupt):
            datasets[entry.mart] = named(connection, entry, found)
    return datasets


def named(connection: duckdb.DuckDBPyConnection, entry: Entry, found: Container[tuple[str, str]]) -> Dataset:
    """The dataset that the catalog's entry names, in a file with the tables ``found`` (``backend.catalog.tables``).

    Raises duckdb.Error where the file has no such, or can't read it, SnapshotCorrupt where nothing says whose its rows
    are.
    """
    words = {folded(name): text for name, text in entry.columns.items()}
    source = entry.sql(current_database(connection))
    columns = describe(connection, source, {})
    rowid = "rowid" if entry.place in found else None
    exported = {quoted(column.name): EXPORTED_AS.get(str(column.sqltype)) for column in columns}
    if casts := ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in exported.items() if kind):
        source, rowid = f"(SELECT * REPLACE ({casts}) FROM {source})", None  # noqa: S608 - quoted
        columns = describe(connection, source, {})
    relation, position = numbered(source, columns, rowid)
    dataset = Dataset(
        id=entry.mart,
        name=label_for(entry.mart),
        description=entry.description,
        columns=tuple(replace(column, description=words.get(folded(column.name), "")) for column in columns),
        relation=relation,
        position=position,
        scope=entry.scope,
    )
    if entry.scope != USER_COLUMN and dataset.user_column is None:
        raise SnapshotCorrupt(
            f"the column {entry.scope!r} is to say whose row it is, and {entry.mart} has no such", hint="build it anew"
        )
    return dataset
