"""Snapshots that are open: one warm in-memory DuckDB instance for each ("generation").

A request costs a readlink and a cursor. When the pointer has moved, one request opens the new snapshot while the
others go on with the old one, which is closed when the last request on it has ended.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import structlog

from backend.config import Settings
from backend.datasets import Dataset, describe
from backend.duckdb.engine import connect, lock_down
from backend.errors import BundleError, SnapshotCorrupt, SnapshotGone
from backend.manifest import Mart
from backend.quoting import literal, quoted
from backend.snapshots import Snapshot, SnapshotStore

_RETRY_SECONDS = 1.0
_UNREADABLE = (BundleError, OSError)

log = structlog.get_logger(__name__)


class Generation:
    """One open snapshot. ``users`` and ``retired`` belong to the lock of Generations."""

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self.id = snapshot.id
        self.immutable = snapshot.immutable
        self.created_at: datetime = snapshot.manifest.created_at
        self.users = 0
        self.retired = False
        self.last_used = time.monotonic()
        self._snapshot = snapshot
        self._connection = connect(settings)
        try:
            lock_down(self._connection, snapshot.path)
            marts = snapshot.manifest.marts
            self.datasets = {name: self._dataset(marts[name]) for name in sorted(marts)}
        except BaseException:
            self._connection.close()
            raise

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session of one's own on the instance."""
        return self._connection.cursor()

    def close(self) -> None:
        """End the instance and let go of the snapshot."""
        self._connection.close()
        self._snapshot.close()

    def _dataset(self, mart: Mart) -> Dataset:
        """A view on the mart, and its footer read once, which also warms DuckDB's cache of the file."""
        path = self._snapshot.file(mart.name)
        relation = f"read_parquet({literal(str(path))})"
        self._connection.execute(f"CREATE VIEW {quoted(mart.name)} AS SELECT * FROM {relation}")  # noqa: S608 - our path
        columns = describe(self._connection, relation, {c.name: c.description.strip() for c in mart.columns})
        rows = self._connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]  # noqa: S608 - our path
        found = ([(column.name, str(column.sqltype)) for column in columns], rows, path.stat().st_size)
        declared = ([(column.name, column.type) for column in mart.columns], mart.rows, mart.bytes)
        if found != declared:
            raise SnapshotCorrupt(
                f"{path} has (columns, rows, bytes) {found}, its manifest says {declared}",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
            )
        return Dataset(
            id=mart.name,
            name=mart.label,
            description=mart.description.strip(),
            columns=columns,
            relation=relation,
            position="file_row_number",
            rows=rows,
        )


class Generations:
    """The current snapshot and the few that requests have pinned."""

    def __init__(self, store: SnapshotStore, settings: Settings) -> None:
        self.store = store
        self._settings = settings
        self._lock = threading.Lock()  # guards all below, held for moments
        self._opening = threading.Lock()  # held while a snapshot is opened
        self._current: Generation | None = None
        self._pinned: OrderedDict[str, Generation] = OrderedDict()
        self._open: set[Generation] = set()
        self._failure: Exception | None = None
        self._retry_at = 0.0

    @contextmanager
    def lease(self, snapshot_id: str | None = None) -> Iterator[Generation | None]:
        """The generation of that snapshot, else of the current one (None: there is no snapshot), kept open.

        When the current snapshot can't be read, this is the last one that could; the attempt is repeated at most
        once a second. Raises SnapshotGone for an id that is gone, and SnapshotCorrupt or OSError when there is no
        last good one.
        """
        generation = self._take_pinned(snapshot_id) if snapshot_id else self._take_current()
        try:
            yield generation
        finally:
            if generation is not None:
                self._release(generation)

    @property
    def current(self) -> Generation | None:
        """The generation that was served last; for reports only, it may be closed at any moment."""
        return self._current

    @property
    def open_count(self) -> int:
        """How many DuckDB instances are open."""
        return len(self._open)

    def discard(self, broken: Generation) -> None:
        """Never use this generation again: the next request opens its snapshot anew."""
        with self._lock:
            was_current = self._current is broken
            if was_current:
                self._current = None
            was_pinned = self._pinned.get(broken.id) is broken and self._pinned.pop(broken.id) is broken
        if was_current or was_pinned:
            self._retire([broken])

    def close(self) -> None:
        """Close everything that no request uses any more, and the rest when its request ends."""
        with self._lock:
            retired = [*self._pinned.values(), *([self._current] if self._current else [])]
            self._pinned.clear()
            self._current = None
        self._retire(retired)

    # --- the current one -----------------------------------------------------------------------------------------

    def _take_current(self) -> Generation | None:
        self._close_idle()
        try:
            wanted = self.store.current_id()
        except _UNREADABLE as error:
            return self._take_last_good(error)
        if wanted is None:
            return self._take_any()  # None before the first snapshot; later a lost pointer changes nothing
        if generation := self._take_if_current(wanted):
            return generation
        # Whoever has something to serve does not wait for the new snapshot to be opened.
        if not self._opening.acquire(blocking=self._current is None):
            return self._take_any() or self._take_current()
        try:
            return self._open_current()
        finally:
            self._opening.release()

    def _open_current(self) -> Generation:
        if time.monotonic() < self._retry_at and self._failure is not None:
            return self._take_last_good(self._failure)
        try:
            # Whoever held the lock before us may have opened it already.
            wanted = self.store.current_id()
            if wanted is not None and (generation := self._take_if_current(wanted)):
                return generation
            generation = self._opened(None)
        except SnapshotGone as error:  # the caller named no snapshot: the pointer leads nowhere
            return self._take_after_failure(SnapshotCorrupt(error.message, hint=error.hint))
        except _UNREADABLE as error:
            return self._take_after_failure(error)
        self._failure = None
        self._serve(generation)
        log.info("snapshot_opened", snapshot=generation.id)
        return generation

    def _take_after_failure(self, error: Exception) -> Generation:
        log.warning("snapshot_unreadable", error=str(error), serving=self._current.id if self._current else None)
        self._failure, self._retry_at = error, time.monotonic() + _RETRY_SECONDS
        return self._take_last_good(error)

    def _take_if_current(self, snapshot_id: str) -> Generation | None:
        with self._lock:
            found = self._current is not None and self._current.id == snapshot_id
            return self._used(self._current) if found else None

    def _take_any(self) -> Generation | None:
        with self._lock:
            return self._used(self._current)

    def _take_last_good(self, error: Exception) -> Generation:
        if generation := self._take_any():
            return generation
        raise error

    def _used(self, generation: Generation | None) -> Generation | None:
        if generation is not None:
            generation.users += 1
            generation.last_used = time.monotonic()
        return generation

    def _serve(self, generation: Generation) -> None:
        with self._lock:
            old, self._current = self._current, generation
        if old is not None and old is not generation:
            self._retire([old])

    # --- pinned ones ---------------------------------------------------------------------------------------------

    def _take_if_open(self, snapshot_id: str) -> Generation | None:
        if generation := self._take_if_current(snapshot_id):
            return generation
        with self._lock:
            if snapshot_id in self._pinned:
                self._pinned.move_to_end(snapshot_id)
            return self._used(self._pinned.get(snapshot_id))

    def _take_pinned(self, snapshot_id: str) -> Generation:
        self._close_idle()
        if generation := self._take_if_open(snapshot_id):
            return generation
        with self._opening:
            if generation := self._take_if_open(snapshot_id):
                return generation
            generation = self._opened(snapshot_id)
            if not generation.immutable:
                self._release(generation, retire=True)
                raise SnapshotGone(
                    f"{snapshot_id} is a plain directory, which can't be pinned", hint="ask without a snapshot"
                )
            with self._lock:
                self._pinned[snapshot_id] = generation
                surplus = max(0, len(self._pinned) - self._settings.pinned_snapshots)
                retired = [self._pinned.popitem(last=False)[1] for _ in range(surplus)]
        self._retire(retired)
        return generation

    def _close_idle(self) -> None:
        if not self._pinned:
            return
        horizon = time.monotonic() - self._settings.pinned_idle_seconds
        with self._lock:
            idle = [key for key, generation in self._pinned.items() if generation.last_used < horizon]
            retired = [self._pinned.pop(key) for key in idle]
        self._retire(retired)

    # --- open and close ------------------------------------------------------------------------------------------

    def _opened(self, snapshot_id: str | None) -> Generation:
        """A new generation, already counted as used by the caller."""
        snapshot = self.store.open(snapshot_id)
        try:
            generation = Generation(snapshot, self._settings)
        except (BundleError, duckdb.Error, OSError) as error:
            snapshot.close()
            if isinstance(error, BundleError):
                raise
            raise SnapshotCorrupt(
                f"opening snapshot {snapshot.id} in {snapshot.path} failed: {error}",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
            ) from error
        with self._lock:
            generation.users = 1
            self._open.add(generation)
        return generation

    def _retire(self, generations: list[Generation]) -> None:
        for generation in generations:
            with self._lock:
                generation.retired = True
                unused = generation.users == 0
                if unused:
                    self._open.discard(generation)
            if unused:
                generation.close()

    def _release(self, generation: Generation, *, retire: bool = False) -> None:
        with self._lock:
            generation.users -= 1
            generation.retired = generation.retired or retire
            last = generation.retired and generation.users == 0
            if last:
                self._open.discard(generation)
        if last:
            generation.close()
