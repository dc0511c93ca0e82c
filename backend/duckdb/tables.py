"""Marts as tables in memory, in one DuckDB instance for all open snapshots: those asked for most, within a budget.

A table is made of a verified copy, once, whichever snapshots have that file. Nothing depends on it: what has no table,
or fails on it, is asked of the Parquet file. Where whole rows of it are asked for, they are kept as they are answered
as well, before tables that are asked for less. Why: ``deploy/decisions/0022-marts-in-memory.md``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import structlog

from backend.config import Settings
from backend.datasets import Column, Dataset
from backend.duckdb.engine import FATAL, columns_of, connect, lock_down
from backend.duckdb.lazy import LazySession, Opened
from backend.duckdb.table import BLOCK_BYTES, Form, Table, keep, made
from backend.duckdb.user_tables import Key, UserTables
from backend.duckdb.verified import InMemory, VerifiedFiles
from backend.errors import SnapshotCorrupt
from backend.kept_rows import KeptRows, TooLarge
from backend.manifest import Mart
from backend.quoting import parquet_file

_NICE = 10
_REST_SECONDS = 60.0  # between an instance that failed for good and the next: what it fails on may be asked again
_OF_USERS = 2  # half of the room at most is that of users' rows
_Made = tuple[str, str | None]  # SHA-256 of the file that a table is made of, or its rows in a form

log = structlog.get_logger(__name__)


class Session(LazySession):
    """A request's session on the tables there were when it began, by the SHA-256 of the files they were made of."""

    def __init__(self, owner: Tables, users: UserTables, tables: Mapping[str, Table], opened: Opened) -> None:
        super().__init__(opened)
        self.tables = tables
        self.users = users
        self.used = False  # whether the last statement of the request was one on a table
        self._owner = owner

    def make(self, key: Key, dataset: Dataset, path: str, certain: Callable[[], bool]) -> Table | None:
        """A table of a user's rows, see ``UserTables.make``."""
        self.used = True
        table = self.users.make(key, dataset, path, certain, forms=self._owner.forms_of_users)
        self._owner.give_way()
        return table

    def left(self, error: Exception) -> bool:
        """Whether what failed so failed on a table, so that the Parquet file is still to be asked."""
        if self.used and isinstance(error, FATAL):
            self._owner.discard(self.users.instance, error)
        return self.used


class Tables:
    """The tables of the process; safe to use from many threads. One of its own makes and drops them."""

    def __init__(self, files: VerifiedFiles, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._lock = threading.Lock()  # guards the next seven, held for moments
        self._users: UserTables | None = None  # with the instance, which is never closed: that would end all sessions
        self._tables: Mapping[str, Table] = {}  # replaced, never changed
        self._wanted: Sequence[Mart] = ()
        self._asked: Counter[str] = Counter()
        self._asked_whole: Counter[tuple[str, str]] = Counter()  # by mart and form
        self._forms: Mapping[str, Form] = {}
        self._rest_until = 0.0
        self._failed: set[str] = set()
        # By mart, and form: bytes of the file, and of what was made of it, the last time.
        self._made: dict[str, tuple[int, int]] = {}
        self._kept: dict[tuple[str, str], tuple[int, int]] = {}
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tables", daemon=True)
        if settings.table_memory:
            self._thread.start()
            atexit.register(self.close)  # an interpreter that ends while DuckDB works on a thread is aborted

    @property
    def count(self) -> int:
        """How many marts are tables."""
        return len(self._tables)

    @property
    def size(self) -> int:
        """Bytes of all tables, those of users among them, and of the rows that are kept beside them."""
        of_marts = sum(table.size_with_kept for table in self._tables.values())
        users = self._users
        return of_marts + (users.size if users else 0)

    @property
    def forms_of_users(self) -> Mapping[str, Form]:
        """Those that rows of single users are kept in."""
        return {name: form for name, form in self._forms.items() if form.of_users}

    def session(self, opened: Opened | None = None) -> Session | None:
        """A session for one request, to be closed, opened as given; None where there is no instance."""
        with self._lock:
            users, tables = self._users, self._tables
        return Session(self, users, tables, opened or users.instance.cursor) if users else None

    def serve(self, marts: Sequence[Mart]) -> None:
        """Make tables of these, which are those of the snapshot that is served now; does not wait for it."""
        with self._lock:
            self._wanted = marts
        self.look()

    def look(self) -> None:
        """Look again at what is open and what is asked for; does not wait for it."""
        self._wake.set()

    def give_way(self) -> None:
        """Look again if there is too much; does not wait for it."""
        if self.size > self._settings.table_memory:
            self.look()

    def keep_rows(self, forms: Mapping[str, Form]) -> None:
        """Keep rows in these forms, too, where they are asked for."""
        with self._lock:
            self._forms = forms
        self.look()

    def asked(self, mart: str, form: str | None) -> None:
        """Count a query of the mart, which rows kept in that form would have answered, if in any."""
        with self._lock:
            self._asked[mart] += 1
            counts = [self._asked[mart]]
            if form is not None:
                self._asked_whole[mart, form] += 1
                counts.append(self._asked_whole[mart, form])
        if any(count & (count - 1) == 0 for count in counts):  # only then its place in the order changes
            self.look()

    def discard(self, broken: duckdb.DuckDBPyConnection, error: Exception) -> None:
        """Never use this instance again; another is made in a while."""
        with self._lock:
            if self._users is None or self._users.instance is not broken:
                return
            self._users, self._tables = None, {}
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
            self._users, self._tables = None, {}

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
            try:
                while not self._closed and self._step():
                    pass
            except Exception as error:
                log.exception("tables_failed", exc_info=error)
                self._rest_until = time.monotonic() + _REST_SECONDS

    def _step(self) -> bool:
        """Come one step nearer to what there should be; False: there it is."""
        if time.monotonic() < self._rest_until:
            return False
        self._connected().drop_others(self._files.known())
        with self._lock:
            wanted = {mart.sha256: mart for mart in self._wanted}
            tables = self._tables
            chosen = self._chosen(wanted, tables)
        for sha256, table in tables.items():
            if (sha256, None) not in chosen:
                self._drop(sha256)
            else:
                self._put(sha256, {form: rows for form, rows in table.kept.items() if (sha256, form) in chosen})
        absent = next((key for key in chosen if not _is_there(key, tables)), None)
        if absent is None:
            return False
        sha256, form = absent
        if form is None:
            self._make(wanted[sha256])
        else:
            self._keep(wanted[sha256], form, self._settings.table_memory - self.size)
        return True

    def _chosen(self, wanted: Mapping[str, Mart], tables: Mapping[str, Table]) -> dict[_Made, int]:
        """Sizes of what fits into the budget: what is asked for most first, what is served no more last.

        Rows are kept beside a table that there is, which is asked for as often as they are at least.
        """
        held = self._files.in_memory()
        self._failed &= held
        heat: dict[_Made, int] = {
            (sha256, None): self._heat(wanted.get(sha256))
            for sha256 in (held & (wanted.keys() | tables.keys())) - self._failed
        }
        for sha256 in [sha256 for sha256, _ in heat if sha256 in tables and sha256 in wanted]:
            for form in self._forms if tables[sha256].counts_positions else ():
                if asked := self._asked_whole[wanted[sha256].name, form]:
                    heat[sha256, form] = asked.bit_length()

        def place(key: _Made) -> tuple[int, bool, bool, str, str]:
            # By powers of two, and those that there are first: marts that are asked for alike don't take turns.
            sha256, form = key
            return -heat[key], form is not None, not _is_there(key, tables), sha256, form or ""

        sizes = {key: self._size(key, wanted, tables) for key in sorted(heat, key=place)}
        fitting = _fitting(self._settings.table_memory - (self._users.size if self._users else 0), sizes)
        return {(sha256, form): size for (sha256, form), size in fitting.items() if (sha256, None) in fitting}

    def _size(self, key: _Made, wanted: Mapping[str, Mart], tables: Mapping[str, Table]) -> int:
        """Bytes of a table or of rows, at least those that they will take where they are still to be made."""
        sha256, form = key
        table = tables.get(sha256)
        if form is None:
            return table.size if table else _expected(wanted[sha256], self._made.get(wanted[sha256].name), BLOCK_BYTES)
        kept, mart = tables[sha256].kept.get(form), wanted[sha256]
        return kept.size if kept else _expected(mart, self._kept.get((mart.name, form)))

    def _heat(self, mart: Mart | None) -> int:
        return -1 if mart is None else self._asked[mart.name].bit_length()

    def _make(self, mart: Mart) -> None:
        """Make a table of the mart; one that is too large is dropped again, and not tried again."""
        file = self._files.borrow(mart.sha256)
        if file is None:  # nobody has it any more
            return
        users = None
        try:
            users = self._connected()
            with users.changing:
                table = _table(users.instance, mart, file)
            self._made[mart.name] = mart.bytes, table.size
            with self._lock:
                room = self._settings.table_memory - self.size
                fits = self._users is users and table.size <= room
                if fits:
                    self._tables = {**self._tables, mart.sha256: table}
            if not fits:
                users.drop(mart.sha256)
        except (duckdb.Error, SnapshotCorrupt) as error:
            self._failed.add(mart.sha256)
            if isinstance(error, duckdb.OutOfMemoryException):
                self._made[mart.name] = mart.bytes, self._settings.tables_memory
            if users is not None and isinstance(error, FATAL):
                self.discard(users.instance, error)
            elif users is not None:
                users.drop(mart.sha256)
            log.warning("mart_not_in_memory", mart=mart.name, error=str(error))  # by now nothing is left of it
        finally:
            self._files.release([file])

    def _keep(self, mart: Mart, form: str, room: int) -> None:
        """Keep the rows of the mart's table in that form, if there is so much room."""
        users, table = self._users, self._tables.get(mart.sha256)
        if users is None or table is None:
            return
        try:
            kept = _kept(users.instance, mart, table, self._forms[form], room)
        except TooLarge as error:
            self._kept[mart.name, form] = mart.bytes, error.size * mart.rows // error.rows
        except (duckdb.Error, pa.ArrowException, OSError, SnapshotCorrupt) as error:
            # What DuckDB fails on after the first rows, Arrow has as OSError.
            self._kept[mart.name, form] = mart.bytes, self._settings.table_memory + 1
            log.warning("rows_not_in_memory", mart=mart.name, form=form, error=str(error))
            if isinstance(error, FATAL):
                self.discard(users.instance, error)
        else:
            self._kept[mart.name, form] = mart.bytes, kept.size
            self._put(mart.sha256, {**table.kept, form: kept})

    def _put(self, sha256: str, kept: Mapping[str, KeptRows]) -> None:
        """Have these rows beside the table, if it is still there, and no others."""
        with self._lock:
            table = self._tables.get(sha256)
            if table is not None and table.kept.keys() != kept.keys():
                self._tables = {**self._tables, sha256: replace(table, kept=kept)}

    def _drop(self, sha256: str) -> None:
        with self._lock:
            users = self._users
            self._tables = {known: table for known, table in self._tables.items() if known != sha256}
        if users is not None:
            users.drop(sha256)

    def _connected(self) -> UserTables:
        if self._users is None:
            instance = connect(self._settings, memory=self._settings.tables_memory)
            # The path of a copy is another's, once it is closed.
            instance.execute("SET enable_external_file_cache = false")
            lock_down(instance, directories=[InMemory.DIRECTORY])
            with self._lock:
                self._users = UserTables(instance, self._settings.table_memory // _OF_USERS)
        return self._users


def _table(instance: duckdb.DuckDBPyConnection, mart: Mart, file: InMemory) -> Table:
    def columns_of_mart(cursor: duckdb.DuckDBPyConnection, relation: str) -> tuple[Column, ...]:
        return columns_of(cursor, relation, mart, Path(file.path))

    return made(instance, mart.sha256, f"SELECT * FROM {parquet_file(file.path)}", (), columns_of_mart)  # noqa: S608 - our path


def _kept(instance: duckdb.DuckDBPyConnection, mart: Mart, table: Table, form: Form, room: int) -> KeptRows:
    kept = keep(instance, table, form, room)
    if kept.count != mart.rows:  # positions would be those of other rows
        raise SnapshotCorrupt(f"{mart.name} has {mart.rows} rows, {kept.count} are to keep", hint="the table is asked")
    return kept


def _is_there(key: _Made, tables: Mapping[str, Table]) -> bool:
    sha256, form = key
    return sha256 in tables and (form is None or form in tables[sha256].kept)


def _expected(mart: Mart, made: tuple[int, int] | None, least: int = 0) -> int:
    """Bytes of what is made of the mart, at least: a larger file than the last time makes no less."""
    before, size = made or (mart.bytes, max(mart.bytes, least))
    return size if mart.bytes >= before else max(mart.bytes, least)


def _fitting(room: int, sizes: Mapping[_Made, int]) -> dict[_Made, int]:
    """Those that fit, the first ones first, with their sizes."""
    chosen = {}
    for key, size in sizes.items():
        if size <= room:
            chosen[key] = size
            room -= size
    return chosen
