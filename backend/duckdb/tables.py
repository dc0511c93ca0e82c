"""Marts as tables in memory, in one DuckDB instance for all open snapshots: those asked for most, within a budget.

A table is made of a verified copy, once, whichever snapshots have that file. Nothing depends on it: what has no table,
or fails on it, is asked of the Parquet file. Where whole rows of it are asked for, and there is room left, they are
kept as JSON as well. Why: ``deploy/decisions/0022-marts-in-memory.md``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import structlog

from backend.config import Settings
from backend.datasets import Column, numbered
from backend.documents import Documents, TooLarge, written
from backend.duckdb.engine import FATAL, columns_of, connect, lock_down
from backend.duckdb.verified import InMemory, VerifiedFiles
from backend.errors import SnapshotCorrupt
from backend.manifest import Mart
from backend.quoting import parquet_file, quoted

_NICE = 10
_REST_SECONDS = 60.0  # between an instance that failed for good and the next: what it fails on may be asked again
_POSITION = "rowid"
_BATCH_ROWS = 20_480
Written = Callable[[tuple[Column, ...], str], str]
"""SQL for all rows as JSON, in the order they are stored in, from a table's columns and its name in SQL."""
_HELD = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Table:
    """``size`` in bytes, without the documents; all else as in ``backend.datasets.Dataset``."""

    relation: str
    position: str
    size: int
    columns: tuple[Column, ...]
    documents: Documents | None = None


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
        self._lock = threading.Lock()  # guards the next seven, held for moments
        self._instance: duckdb.DuckDBPyConnection | None = None  # never closed, which would end all sessions on it
        self._tables: Mapping[str, Table] = {}  # replaced, never changed
        self._wanted: Sequence[Mart] = ()
        self._asked: Counter[str] = Counter()
        self._asked_whole: Counter[str] = Counter()
        self._written: Written | None = None
        self._rest_until = 0.0
        self._failed: set[str] = set()
        # By mart: bytes of the file, and of what was made of it, the last time.
        self._made: dict[str, tuple[int, int]] = {}
        self._documented: dict[str, tuple[int, int]] = {}
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
        """Bytes of all tables, and of their rows as JSON."""
        return sum(table.size + (table.documents.size if table.documents else 0) for table in self._tables.values())

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

    def keep_documents(self, written: Written) -> None:
        """Keep rows as JSON, too, as this has them."""
        with self._lock:
            self._written = written
        self.look()

    def asked(self, mart: str, whole_rows: bool) -> None:
        """Count a query of the mart; documents of it would have answered one of ``whole_rows``."""
        with self._lock:
            counters = [self._asked, self._asked_whole] if whole_rows else [self._asked]
            for counter in counters:
                counter[mart] += 1
            counts = [counter[mart] for counter in counters]
        if any(count & (count - 1) == 0 for count in counts):  # only then its place in the order changes
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
            documented = self._documented_of(wanted, tables, chosen)
        for sha256, table in tables.items():
            if sha256 not in chosen:
                self._drop(sha256)
            elif table.documents and sha256 not in documented:
                self._put(sha256, replace(table, documents=None))
        missing = [wanted[sha256] for sha256 in chosen if sha256 not in tables]
        unwritten = [sha256 for sha256 in documented if tables[sha256].documents is None]
        if missing:
            self._make(missing[0])
        elif unwritten:
            first = unwritten[0]
            others = sum(table.documents.size for sha256 in documented if (table := tables[sha256]).documents)
            self._write(wanted[first], tables[first], self._settings.table_memory - sum(chosen.values()) - others)
        return bool(missing or unwritten)

    def _chosen(self, wanted: Mapping[str, Mart], tables: Mapping[str, Table]) -> dict[str, int]:
        """Sizes of what fits into the budget, by SHA-256: what is asked for most first, what is served no more last."""
        held = self._files.in_memory()
        self._failed &= held
        # By powers of two, and those that there are first: marts that are asked for alike don't take turns.
        order = sorted(
            (held & (wanted.keys() | tables.keys())) - self._failed,
            key=lambda sha256: (-self._heat(wanted.get(sha256)), sha256 not in tables, sha256),
        )
        return _fitting(
            self._settings.table_memory,
            {
                sha256: tables[sha256].size if sha256 in tables else _expected(wanted[sha256], self._made)
                for sha256 in order
            },
        )

    def _documented_of(
        self, wanted: Mapping[str, Mart], tables: Mapping[str, Table], chosen: Mapping[str, int]
    ) -> dict[str, int]:
        """Those of which documents fit into what the tables leave, by SHA-256, and the documents' size."""
        if self._written is None:
            return {}
        known = {sha256: table.documents for sha256, table in tables.items()}
        order = sorted(
            (
                sha256
                for sha256 in chosen.keys() & tables.keys() & wanted.keys()
                if self._asked_whole[wanted[sha256].name] and tables[sha256].position == _POSITION
            ),
            key=lambda sha256: (
                -self._asked_whole[wanted[sha256].name].bit_length(),
                known[sha256] is None,
                sha256,
            ),
        )
        return _fitting(
            self._settings.table_memory - sum(chosen.values()),
            {
                sha256: documents.size if (documents := known[sha256]) else _expected(wanted[sha256], self._documented)
                for sha256 in order
            },
        )

    def _heat(self, mart: Mart | None) -> int:
        return -1 if mart is None else self._asked[mart.name].bit_length()

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
                room = self._settings.table_memory - sum(known.size for known in self._tables.values())
                fits = self._instance is instance and table.size <= room
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

    def _write(self, mart: Mart, table: Table, room: int) -> None:
        """Write the rows of the table as JSON, if there is so much room."""
        instance, sql = self._instance, self._written
        if instance is None or sql is None:
            return
        try:
            with closing(instance.cursor()) as cursor:
                reader = cursor.execute(sql(table.columns, table.relation)).to_arrow_reader(_BATCH_ROWS)
                documents = written(reader, room)
        except TooLarge as error:
            self._documented[mart.name] = mart.bytes, error.size
        except (duckdb.Error, pa.ArrowException) as error:
            self._documented[mart.name] = mart.bytes, self._settings.table_memory + 1
            log.warning("rows_not_in_memory", mart=mart.name, error=str(error))
            if isinstance(error, FATAL):
                self.discard(instance, error)
        else:
            self._documented[mart.name] = mart.bytes, documents.size
            self._put(mart.sha256, replace(table, documents=documents))

    def _put(self, sha256: str, table: Table) -> None:
        """Another in the place of one that there is."""
        with self._lock:
            if sha256 in self._tables:
                self._tables = {**self._tables, sha256: table}

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
        relation, position = numbered(relation, columns, _POSITION)
        return Table(relation, position, max(0, _held(cursor) - before), columns)


def _expected(mart: Mart, made: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of what is made of the mart, at least: a larger file than the last time makes no less."""
    before, size = made.get(mart.name, (mart.bytes, mart.bytes))
    return size if mart.bytes >= before else mart.bytes


def _fitting(room: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those that fit, the first ones first, with their sizes."""
    chosen = {}
    for name, size in sizes.items():
        if size <= room:
            chosen[name] = size
            room -= size
    return chosen


def _held(cursor: duckdb.DuckDBPyConnection) -> int:
    held: int = cursor.execute(_HELD).fetchall()[0][0]
    return held


def _detach(instance: duckdb.DuckDBPyConnection, sha256: str) -> None:
    """Who reads the table reads on; who begins to is refused, and asks the Parquet file."""
    with suppress(duckdb.Error), closing(instance.cursor()) as cursor:
        cursor.execute(f"DETACH DATABASE IF EXISTS {quoted(sha256)}")
