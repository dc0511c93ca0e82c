"""Marts as tables in memory, in one DuckDB instance for all open snapshots: those asked for most, within a budget.

A table is made of a verified copy, once, whichever snapshots have that file. Nothing depends on it: what has no table,
or fails on it, is asked of the Parquet file. Why: ``deploy/decisions/0022-marts-in-memory.md``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import structlog

from backend.config import Settings
from backend.datasets import numbered
from backend.duckdb.engine import FATAL, columns_of, connect, lock_down
from backend.duckdb.verified import InMemory, VerifiedFiles
from backend.errors import SnapshotCorrupt
from backend.manifest import Mart
from backend.quoting import parquet_file, quoted

_NICE = 10
_REST_SECONDS = 60.0  # between an instance that failed for good and the next: what it fails on may be asked again
_HELD = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Table:
    """``relation`` and ``position`` as in ``backend.datasets.Dataset``; ``size`` in bytes."""

    relation: str
    position: str
    size: int


class Session:
    """A request's session on the tables there were when it began, by the SHA-256 of the files they were made of."""

    def __init__(self, owner: Tables, instance: duckdb.DuckDBPyConnection, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self.cursor = instance.cursor()
        self.used = False  # whether the last statement of the request was one on a table
        self._owner = owner
        self._instance = instance

    def left(self, error: Exception) -> bool:
        """Whether what failed so failed on a table, so that the Parquet file is still to be asked."""
        if self.used and isinstance(error, FATAL):
            self._owner.discard(self._instance, error)
        return self.used


class Tables:
    """The tables of the process; safe to use from many threads. One of its own makes and drops them."""

    def __init__(self, files: VerifiedFiles, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._lock = threading.Lock()  # guards the next five, held for moments
        self._instance: duckdb.DuckDBPyConnection | None = None  # never closed, which would end all sessions on it
        self._tables: Mapping[str, Table] = {}  # replaced, never changed
        self._wanted: Sequence[Mart] = ()
        self._asked: Counter[str] = Counter()
        self._rest_until = 0.0
        self._failed: set[str] = set()
        self._made: dict[str, tuple[int, int]] = {}  # by mart: bytes of the file and of the table, the last time
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tables", daemon=True)
        if settings.table_memory:
            self._thread.start()
            atexit.register(self.close)  # an interpreter that ends while DuckDB works on a thread is aborted

    @property
    def count(self) -> int:
        """How many tables there are."""
        return len(self._tables)

    @property
    def size(self) -> int:
        """Bytes of all tables."""
        return sum(table.size for table in self._tables.values())

    def session(self) -> Session | None:
        """A session for one request, to be closed; None where there is no table."""
        with self._lock:
            if self._instance is None or not self._tables:
                return None
            try:
                return Session(self, self._instance, self._tables)
            except duckdb.Error:  # it failed for good: who asked it then discards it
                return None

    def serve(self, marts: Sequence[Mart]) -> None:
        """Make tables of these, which are those of the snapshot that is served now; does not wait for it."""
        with self._lock:
            self._wanted = marts
        self.look()

    def look(self) -> None:
        """Look again at what is open and what is asked for; does not wait for it."""
        self._wake.set()

    def asked(self, mart: str) -> None:
        """Count a query of the mart."""
        with self._lock:
            self._asked[mart] += 1
            count = self._asked[mart]
        if count & (count - 1) == 0:  # only then its place in the order changes
            self.look()

    def discard(self, broken: duckdb.DuckDBPyConnection, error: Exception) -> None:
        """Never use this instance again; another is made in a while."""
        with self._lock:
            if self._instance is not broken:
                return
            self._instance, self._tables = None, {}
            self._rest_until = time.monotonic() + _REST_SECONDS
        log.error("tables_discarded", error=str(error))
        self.look()

    def close(self) -> None:
        """Drop all; a table that is being made is waited for."""
        atexit.unregister(self.close)
        self._closed = True
        self.look()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._instance, self._tables = None, {}

    # --- on the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        os.nice(_NICE)  # of this thread only
        while not self._closed:
            rest = self._rest_until - time.monotonic()
            if rest > 0:
                self._wake.wait(rest)
            else:
                self._wake.wait()
            self._wake.clear()
            while not self._closed and self._step():
                pass

    def _step(self) -> bool:
        """Come one step nearer to what there should be; False: there it is."""
        if time.monotonic() < self._rest_until:
            return False
        with self._lock:
            wanted = {mart.sha256: mart for mart in self._wanted}
            tables = self._tables
            chosen = self._chosen(wanted, tables)
        for sha256 in tables.keys() - set(chosen):
            self._drop(sha256)
        missing = [wanted[sha256] for sha256 in chosen if sha256 not in tables]
        if missing:
            self._make(missing[0])
        return bool(missing)

    def _chosen(self, wanted: Mapping[str, Mart], tables: Mapping[str, Table]) -> list[str]:
        """What fits into the budget, by SHA-256: what is asked for most first, what is served no more last."""
        held = self._files.in_memory()
        self._failed &= held
        # By powers of two, and those that there are first: marts that are asked for alike don't take turns.
        order = sorted(
            (held & (wanted.keys() | tables.keys())) - self._failed,
            key=lambda sha256: (-self._heat(wanted.get(sha256)), sha256 not in tables, sha256),
        )
        chosen, room = [], int(self._settings.table_memory)
        for sha256 in order:
            size = tables[sha256].size if sha256 in tables else self._expected(wanted[sha256])
            if size <= room:
                chosen.append(sha256)
                room -= size
        return chosen

    def _heat(self, mart: Mart | None) -> int:
        return -1 if mart is None else self._asked[mart.name].bit_length()

    def _expected(self, mart: Mart) -> int:
        """Bytes of the table, at least: a larger file than the last time makes no smaller one."""
        before, size = self._made.get(mart.name, (mart.bytes, mart.bytes))
        return size if mart.bytes >= before else mart.bytes

    def _make(self, mart: Mart) -> None:
        """Make a table of the mart; one that is too large is dropped again, and not tried again."""
        file = self._files.borrow(mart.sha256)
        if file is None:  # nobody has it any more
            return
        instance = None
        try:
            instance = self._connected()
            table = _table(instance, mart, file)
            self._made[mart.name] = mart.bytes, table.size
            with self._lock:
                fits = self._instance is instance and self.size + table.size <= self._settings.table_memory
                if fits:
                    self._tables = {**self._tables, mart.sha256: table}
            if not fits:
                _detach(instance, mart.sha256)
        except (duckdb.Error, SnapshotCorrupt) as error:
            self._failed.add(mart.sha256)
            log.warning("mart_not_in_memory", mart=mart.name, error=str(error))
            if isinstance(error, duckdb.OutOfMemoryException):
                self._made[mart.name] = mart.bytes, self._settings.tables_memory
            if instance is not None and isinstance(error, FATAL):
                self.discard(instance, error)
            elif instance is not None:
                _detach(instance, mart.sha256)
        finally:
            self._files.release(file)

    def _drop(self, sha256: str) -> None:
        with self._lock:
            instance = self._instance
            self._tables = {known: table for known, table in self._tables.items() if known != sha256}
        if instance is not None:
            _detach(instance, sha256)

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._instance is None:
            instance = connect(self._settings, memory=self._settings.tables_memory)
            # The path of a copy is another's, once it is closed.
            instance.execute("SET enable_external_file_cache = false")
            lock_down(instance, directories=[InMemory.DIRECTORY])
            with self._lock:
                self._instance = instance
        return self._instance


def _table(instance: duckdb.DuckDBPyConnection, mart: Mart, file: InMemory) -> Table:
    """A table in a database of its own: compressed whoever reads others, and gone as soon as it is detached."""
    relation = f"{quoted(mart.sha256)}.main.mart"
    with closing(instance.cursor()) as cursor:
        before = _held(cursor)
        cursor.execute(f"ATTACH ':memory:' AS {quoted(mart.sha256)} (COMPRESS)")
        cursor.execute(f"CREATE TABLE {relation} AS SELECT * FROM {parquet_file(file.path)}")  # noqa: S608 - our path
        cursor.execute(f"CHECKPOINT {quoted(mart.sha256)}")  # which is what compresses it
        columns = columns_of(cursor, relation, mart, Path(file.path))
        relation, position = numbered(relation, columns, "rowid")
        return Table(relation, position, max(0, _held(cursor) - before))


def _held(cursor: duckdb.DuckDBPyConnection) -> int:
    held: int = cursor.execute(_HELD).fetchall()[0][0]
    return held


def _detach(instance: duckdb.DuckDBPyConnection, sha256: str) -> None:
    """Who reads the table reads on; who begins to is refused, and asks the Parquet file."""
    with suppress(duckdb.Error), closing(instance.cursor()) as cursor:
        cursor.execute(f"DETACH DATABASE IF EXISTS {quoted(sha256)}")
