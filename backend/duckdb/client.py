"""Reads the marts: Parquet snapshots where there are any, else the DuckDB file of phases 0 and 1.

Which of the two is configuration (``PARQUET_DIR``, ``DUCKDB_PATH``) and what lies on disk; callers can't tell, but
for ``snapshot`` being None on the file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import duckdb

from backend import filepaths, tally
from backend.config import Settings
from backend.datasets import Dataset, numbered
from backend.duckdb.engine import FATAL
from backend.duckdb.file import DuckDBFile
from backend.duckdb.generation import Generation
from backend.duckdb.generations import Generations
from backend.duckdb.lazy import LazySession
from backend.duckdb.table import Form
from backend.duckdb.tables import Session
from backend.errors import NoSnapshot, SnapshotCorrupt, SnapshotGone
from backend.quoting import parquet_file
from backend.snapshots import SnapshotStore

T = TypeVar("T")
_ATTEMPTS = 5


class NeedsStatement(Exception):
    """What is asked is not at hand: it takes a statement, and a thread to wait for it."""


@dataclass(frozen=True, kw_only=True)
class State:
    """One state of all marts.

    ``snapshot`` is its id (None: the DuckDB file), ``last_refresh`` when that state was made (aware, UTC).
    """

    snapshot: str | None
    last_refresh: datetime
    datasets: Mapping[str, Dataset]
    _hold: Callable[[], None] = lambda: None
    _at_hand: Callable[[], Connection | None] = lambda: None

    def at_hand(self) -> Connection | None:
        """A connection to what of it is answered without DuckDB, if anything; a statement raises NeedsStatement.

        It waits for nothing, and need not be closed.
        """
        return self._at_hand()

    def hold(self) -> None:
        """Keep the snapshot from being deleted for ``cursor_seconds``, for whoever was given a cursor on it."""
        self._hold()


@dataclass(frozen=True, kw_only=True)
class Connection(State):
    """A DuckDB session on one state of all marts, and one on those of them that are tables in memory.

    ``immutable``: nothing on the disk can change what is read; else ask ``unchanged`` before believing it.
    """

    immutable: bool
    _session: LazySession
    _tables: Session | None = None
    _unchanged: Callable[[], bool] = lambda: True
    _asked: Callable[[str, str | None], None] = lambda *_: None
    _name_marts: Callable[[], None] = lambda: None
    _rows_of: Callable[[Dataset, int | None], Dataset] = lambda dataset, _: dataset

    def rows_of(self, dataset: Dataset, user_id: int | None) -> Dataset:
        """The dataset, maybe without rows of others, which has all rows of that user in their order; None: all rows.

        Raises OSError.
        """
        return self._rows_of(dataset, user_id)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The session, which has every mart by its name; it ends with the connection."""
        self._name_marts()
        return self._session.cursor

    def execute(
        self, sql: str, params: Sequence[Any] | None = None, *, on: Dataset | None = None, form: str | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run a statement with bound parameters (``?``). Raises duckdb.Error.

        ``on`` is the dataset it reads, ``form`` that in which its rows are asked for, if whole ones are. Without ``on``
        it may read every mart by its name.
        """
        if self._tables is not None:
            self._tables.used = on is not None and on.table
        cursor = self._tables.cursor if self._tables is not None and self._tables.used else self._session.cursor
        if on is None:
            self._name_marts()
        else:
            self._asked(on.id, form)
        return cursor.execute(sql, params)

    def asked(self, on: Dataset, form: str | None) -> None:
        """Count a question of that dataset, in that form, which no statement was needed for."""
        self._asked(on.id, form)

    def interrupt(self) -> None:
        """End the statement that runs in this session, and in no other, from any thread: duckdb.InterruptException."""
        if self._tables is not None:
            self._tables.interrupt()
        self._session.interrupt()

    def left_tables(self, error: Exception) -> bool:
        """Whether what failed so failed on a table, so that the Parquet file is still to be asked."""
        return self._tables is not None and self._tables.left(error)

    def unchanged(self) -> bool:
        """Whether all that was read so far is of that one state; asked after reading."""
        return self._unchanged()


@dataclass(frozen=True)
class Status:
    """What was served last: for reports, without touching the disk."""

    snapshot: str | None
    last_refresh: datetime | None
    problem: str | None
    damage_found: int
    switches: int
    generations_open: int
    snapshots_held: int
    resident_bytes: int
    tables: int
    table_bytes: int
    fallback_in_use: bool
    lock_retries: int


class Database:
    """The marts of one configuration; safe to use from many threads."""

    def __init__(
        self, settings: Settings, *, parquet_dir: Path | None, duckdb_path: Path | None, catalog: Path | None = None
    ) -> None:
        self._generations = Generations(SnapshotStore(parquet_dir), settings) if parquet_dir else None
        self._file = DuckDBFile(duckdb_path, settings, catalog=catalog) if duckdb_path else None
        self._file_refresh: datetime | None = None  # set while the file is what was served last

    @contextmanager
    def connection(self, snapshot: str | None = None, *, tables: bool = True) -> Iterator[Connection]:
        """A connection to that snapshot, else to the current one, else to the DuckDB file.

        Raises SnapshotGone for a snapshot that is not there, NoSnapshot when there is neither snapshot nor file,
        LockHeld while a build holds the file, SnapshotCorrupt or OSError when what is there can't be read.
        Without ``tables`` all datasets are read from the files.
        """
        if self._generations is None:
            with self._on_file(snapshot) as connection:
                yield connection
            return
        with self._generations.lease(snapshot) as generation:
            if generation is not None:
                self._file_refresh = None
                with _session(self._generations, generation, tables=tables) as connection:
                    try:
                        yield connection
                    except FATAL as error:
                        if not connection.left_tables(error):
                            self._generations.discard(generation)
                        raise
                return
        with self._on_file(snapshot) as connection:
            yield connection

    def state(self, snapshot: str | None = None) -> State | None:
        """The state that a connection would be on, where that is certain without opening anything or waiting."""
        generation = self._generations.followed(snapshot) if self._generations else None
        if self._generations is None or generation is None:
            return None
        return State(
            snapshot=generation.id,
            last_refresh=generation.created_at,
            datasets=generation.datasets,
            _hold=functools.partial(self._generations.hold, generation),
            _at_hand=functools.partial(_at_hand, self._generations, generation),
        )

    def read(self, work: Callable[[Connection], T], snapshot: str | None = None, *, tables: bool = True) -> T:
        """What ``work`` makes of a connection, read whole. Raises as ``reading``."""
        with self.reading(work, snapshot, tables=tables) as (_, result):
            return result

    @contextmanager
    def reading(
        self, work: Callable[[Connection], T], snapshot: str | None = None, *, tables: bool = True
    ) -> Iterator[tuple[Connection, T]]:
        """A connection, and what ``work`` makes of it.

        What fails on a table is asked again of the files: an answer, or an error, is that of the files in any case.
        Files that are not held in memory can change under the reader (a plain directory of somebody else's is
        replaced, a large mart is damaged): then ``work`` is done again, on what is there now. Whoever goes on reading
        afterwards asks ``unchanged`` again. Raises what ``connection`` and ``work`` raise.
        """
        for _ in range(_ATTEMPTS):
            with self.connection(snapshot, tables=tables) as connection:
                try:
                    result = work(connection)
                except duckdb.InterruptException:
                    raise
                except (duckdb.Error, OSError) as error:
                    if connection.left_tables(error):
                        tables = False
                    elif connection.unchanged():
                        raise
                    continue
                if connection.unchanged():
                    yield connection, result
                    return
        raise SnapshotCorrupt(
            f"the Parquet files were changed during each of {_ATTEMPTS} attempts to read them",
            hint="replace them less often, or publish snapshots",
        )

    def check(self) -> Connection:
        """Run a query on what is served now. Raises like ``connection``, or duckdb.Error when the query fails."""

        def work(connection: Connection) -> Connection:
            if first := next(iter(connection.datasets.values()), None):
                connection.execute(f"SELECT * FROM {first.relation} LIMIT 1", on=first).fetchall()  # noqa: S608 - quoted by us
            else:
                connection.execute("SELECT 1").fetchall()
            return connection

        return self.read(work, tables=False)

    def keep_rows(self, forms: Mapping[str, Form]) -> None:
        """Have the rows of tables kept in these forms, too: those asked for most, where there is room."""
        if self._generations:
            self._generations.tables.keep_rows(forms)

    def status(self) -> Status:
        """What was served last, without opening anything."""
        generations = self._generations
        current = generations.current if generations else None
        return Status(
            snapshot=current.id if current else None,
            last_refresh=current.created_at if current else self._file_refresh,
            problem=generations.problem if generations else None,
            damage_found=generations.damage_found if generations else 0,
            switches=generations.switches if generations else 0,
            generations_open=generations.open_count if generations else 0,
            snapshots_held=len(generations.holds) if generations else 0,
            resident_bytes=generations.resident_bytes if generations else 0,
            tables=generations.tables.count if generations else 0,
            table_bytes=generations.tables.size if generations else 0,
            fallback_in_use=self._file_refresh is not None,
            lock_retries=self._file.lock_retries if self._file else 0,
        )

    def builds(self) -> Mapping[str, int]:
        """What became of builds, as ``backend.tally`` counts it; empty where there is no snapshot store."""
        return tally.read(self._generations.store.root) if self._generations else {}

    def close(self) -> None:
        """Close what no request uses; the rest closes with its request."""
        if self._generations:
            self._generations.close()

    @contextmanager
    def _on_file(self, snapshot: str | None) -> Iterator[Connection]:
        if snapshot is not None:
            raise SnapshotGone(f"there is no snapshot {snapshot}", hint="ask without naming a snapshot")
        if self._file is None:
            raise NoSnapshot(
                "there is no snapshot and no fallback file", hint="wait for the first build to be published, or run it"
            )
        with self._file.lease() as opened:
            self._file_refresh = opened.modified_at
            with closing(LazySession(opened.connection.cursor)) as session:
                yield Connection(
                    snapshot=None,
                    last_refresh=opened.modified_at,
                    datasets=opened.datasets,
                    immutable=True,
                    _session=session,
                )


@contextmanager
def _session(generations: Generations, generation: Generation, *, tables: bool) -> Iterator[Connection]:
    session = generations.tables.session() if tables else None
    with ExitStack() as closings:
        of_files = closings.enter_context(closing(LazySession(generation.cursor)))
        if session:
            closings.enter_context(closing(session))
        parts = _Parts(generation, session, closings) if session else None
        yield Connection(
            snapshot=generation.id,
            last_refresh=generation.created_at,
            datasets=generation.datasets_on(session.tables) if session else generation.datasets,
            immutable=generation.resident,
            _session=of_files,
            _tables=session,
            _unchanged=functools.partial(generations.unchanged, generation),
            _asked=generations.tables.asked if tables else lambda *_: None,
            _name_marts=generation.name_marts,
            _rows_of=parts.rows_of if parts else lambda dataset, _: dataset,
            _hold=functools.partial(generations.hold, generation),
        )


def _at_hand(generations: Generations, generation: Generation) -> Connection | None:
    def refused(*_: object) -> NoReturn:
        raise NeedsStatement

    session = generations.tables.session(refused)
    if session is None:
        return None

    def rows_of(dataset: Dataset, user_id: int | None) -> Dataset:
        if user_id is not None and generation.has_parts(dataset):
            table = session.users.get((generation.marts[dataset.id].sha256, user_id))
            dataset = table.of(dataset) if table else dataset
        return dataset if dataset.kept else refused()

    return Connection(
        snapshot=generation.id,
        last_refresh=generation.created_at,
        datasets=generation.datasets_on(session.tables),
        immutable=generation.resident,
        _session=LazySession(refused),
        _tables=session,
        _asked=generations.tables.asked,
        _rows_of=rows_of,
        _hold=functools.partial(generations.hold, generation),
    )


class _Parts:
    """What single users have of large marts, for as long as there is a connection: tables, else parts of files."""

    def __init__(self, generation: Generation, session: Session, closings: ExitStack) -> None:
        self._generation = generation
        self._session = session
        self._closings = closings
        self._found: dict[tuple[str, int], Dataset] = {}

    def rows_of(self, dataset: Dataset, user_id: int | None) -> Dataset:
        if user_id is None or not self._generation.has_parts(dataset):
            return dataset
        key = dataset.id, user_id
        if key not in self._found:
            self._found[key] = self._rows(dataset, user_id)
        return self._found[key]

    def _rows(self, dataset: Dataset, user_id: int) -> Dataset:
        key = self._generation.marts[dataset.id].sha256, user_id
        if table := self._session.users.get(key):
            return table.of(dataset)
        wanted = self._session.users.wanted(key)
        if dataset.table and not wanted:
            return dataset
        file = self._generation.of_user(dataset, user_id)
        if file is None:
            return dataset
        self._closings.callback(file.close)
        if wanted and (table := self._session.make(key, dataset, file.path, self._generation.unchanged)):
            return table.of(dataset)
        if dataset.table:
            return dataset
        relation, position = numbered(parquet_file(file.path), dataset.columns, "file_row_number")
        return replace(dataset, relation=relation, position=position, table=True)


@functools.cache
def database() -> Database:
    """The database that the environment configures; one for the process."""
    return configured(Settings())


def configured(settings: Settings) -> Database:
    """A database of what the environment names, within these limits."""
    return Database(
        settings,
        parquet_dir=filepaths.parquet_dir(),
        duckdb_path=filepaths.duckdb_path(),
        catalog=filepaths.duckdb_catalog(),
    )


@contextmanager
def get_connection(snapshot: str | None = None) -> Iterator[Connection]:
    """A connection to what the environment configures; raises as ``Database.connection`` does."""
    with database().connection(snapshot) as connection:
        yield connection


def execute_query(sql: str, params: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """Rows of a query on the current marts, as dictionaries of Python values. Raises as ``Database.read``."""

    def work(connection: Connection) -> list[dict[str, Any]]:
        cursor = connection.execute(sql, params)
        names = [field[0] for field in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return database().read(work)


def check_connection() -> bool:
    """Run a query on the current marts; True when it ran. Raises as ``Database.check`` when it did not."""
    database().check()
    return True


def _get_last_refresh_time() -> datetime:
    """When what is served was made: the snapshot's time, else the DuckDB file's (aware, UTC)."""
    with get_connection() as connection:
        return connection.last_refresh
