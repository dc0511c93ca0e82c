"""Snapshots that are open: one warm in-memory DuckDB instance for each ("generation").

A request costs a readlink and a cursor. When the pointer has moved, the new snapshot is opened once: by who asks alone,
and aside where others are being answered. All go on with the old one until then, and nobody of many waits for it; it is
closed when the last request on it has ended. What can't be opened as it was published is never served: the last good
one is, and ``problem`` says so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import duckdb
import structlog

from backend.config import Settings
from backend.duckdb.generation import Generation
from backend.duckdb.holds import Holds
from backend.duckdb.scrub import Scrubber
from backend.duckdb.tables import Tables
from backend.duckdb.verified import VerifiedFiles
from backend.errors import BundleError, SnapshotCorrupt, SnapshotGone
from backend.snapshots import SnapshotStore

_RETRY_SECONDS = 1.0
_RETRY_PAUSE = 20  # times the work: trying again takes a twentieth of a processor at most
_UNREADABLE = (BundleError, OSError)

log = structlog.get_logger(__name__)


class Generations:
    """The current snapshot and the few that requests have pinned."""

    def __init__(self, store: SnapshotStore, settings: Settings) -> None:
        self.store = store
        self.holds = Holds(store, settings.cursor_seconds)
        self.damage_found = 0
        self.switches = 0
        self._settings = settings
        self._files = VerifiedFiles(settings.resident_memory)
        self.tables = Tables(self._files, settings)
        self._lock = threading.Lock()  # guards all below, held for moments
        self._opening = threading.Lock()  # held while a snapshot is opened
        self._current: Generation | None = None
        self._pinned: OrderedDict[str, Generation] = OrderedDict()
        self._open: set[Generation] = set()
        self._failure: Exception | None = None  # why the pointer, or what it names, can't be followed
        self._damage: Exception | None = None  # what is wrong with the files of the current one
        self._failed_id: str | None = None
        self._served_id: str | None = None
        self._retry_at = 0.0
        self._scrubber = Scrubber(self.scrub, settings.scrub_seconds)
        self._scrubber.start()

    @contextmanager
    def lease(self, snapshot_id: str | None = None) -> Iterator[Generation | None]:
        """The generation of that snapshot, else of the current one (None: there is no snapshot), kept open.

        When the current snapshot can't be read, this is the last one that could, else the newest intact one before
        it; the attempt is repeated at most once a second. Raises SnapshotGone for an id that is gone, and
        SnapshotCorrupt or OSError when there is no such one.
        """
        generation = self._take_pinned(snapshot_id) if snapshot_id else self._take_current()
        try:
            yield generation
        finally:
            if generation is not None:
                if generation is not self._current:
                    generation.forget_tables()
                self._release(generation)

    def followed(self, snapshot_id: str | None = None) -> Generation | None:
        """The generation that ``lease`` would give, where it is open and all is well; it may close at any moment."""
        try:
            wanted = snapshot_id or self.store.current_id()
        except _UNREADABLE:
            return None
        with self._lock:
            found = self._current
            if found is None or found.id != wanted or self._failure is not None:
                # One that is pinned may be what the pointer names: not yet what others are answered from.
                found = self._pinned.get(snapshot_id) if snapshot_id else None
        # What is read from the disk is looked at, so that damage is noticed as soon as by a query.
        return found if found is not None and found.immutable and found.unchanged() else None

    @property
    def current(self) -> Generation | None:
        """The generation that was served last; for reports only, it may be closed at any moment."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why what is served is not what the pointer names, or its files are damaged; None when all is well."""
        found = self._failure or self._damage
        return str(found) if found else None

    @property
    def open_count(self) -> int:
        """How many DuckDB instances are open."""
        return len(self._open)

    @property
    def resident_bytes(self) -> int:
        """Size of the verified copies in memory."""
        return self._files.resident_bytes

    def scrub(self) -> None:
        """Compare the files of what is served with its manifest, and remember what is wrong with them.

        Where they are what is read, for want of memory, they are read no more.
        """
        current = self._current
        if current is None or not current.immutable:
            return
        found: Exception | None = None
        try:
            with self.store.open(current.id) as snapshot:
                snapshot.verify()
        except _UNREADABLE as error:
            found = error
        if found and not current.resident:
            self.discard(current)  # the next request opens it anew, finds the same, and takes the one before
            return
        with self._lock:
            if self._current is not current:
                return
            known, self._damage = self._damage, found
        if found and not known:
            self.damage_found += 1
            log.error("snapshot_damaged", snapshot=current.id, error=str(found))

    def unchanged(self, generation: Generation) -> bool:
        """Whether all that was read so far is the state it was opened on; if not, it is never used again."""
        if not generation.immutable:
            return self.store.current_id() == generation.id
        if generation.unchanged():
            return True
        self.discard(generation)
        return False

    def hold(self, generation: Generation) -> None:
        """Keep its snapshot from retention for ``cursor_seconds``."""
        if generation.immutable:
            self.holds.renew(generation.id)

    def discard(self, broken: Generation) -> None:
        """Never use this generation again: the next request opens its snapshot anew, and verifies all of it."""
        broken.doubt()
        with self._lock:
            was_current = self._current is broken
            if was_current:
                self._current = None
            was_pinned = self._pinned.get(broken.id) is broken and self._pinned.pop(broken.id) is broken
        if was_current or was_pinned:
            self._retire([broken])

    def close(self) -> None:
        """Close everything that no request uses any more, and the rest when its request ends."""
        self._scrubber.close()
        self.holds.close()
        with self._opening, self._lock:  # what is being opened is waited for
            retired = [*self._pinned.values(), *([self._current] if self._current else [])]
            self._pinned.clear()
            self._current = None
        self._retire(retired)
        self.tables.close()

    # --- the current one -----------------------------------------------------------------------------------------

    def _take_current(self) -> Generation | None:
        self._close_idle()
        try:
            wanted = self.store.current_id()
        except _UNREADABLE as error:
            return self._take_last_good(self._failed(error))
        if wanted is None:
            return self._take_without_pointer()
        if generation := self._take_if_current(wanted):
            if self._failure is not None:
                self._failure = None
                log.info("snapshot_readable_again", snapshot=wanted)
            return generation
        # Whoever has something to serve does not wait for the new snapshot to be opened.
        if not self._opening.acquire(blocking=self._current is None):
            return self._take_any() or self._take_current()
        with ExitStack() as undone:
            undone.callback(self._opening.release)
            if generation := self._take_if_busy(wanted):
                undone.callback(self._release, generation)
                threading.Thread(target=self._open_aside, name="opening").start()
                undone.pop_all()
                return generation
            return self._open_current()

    def _take_without_pointer(self) -> Generation | None:
        """None before the first snapshot; a pointer that is lost later changes nothing."""
        if generation := self._take_any():
            lost = f"{self.store.root}/mart is gone, snapshot {generation.id} is served on"
            self._failed(SnapshotCorrupt(lost, hint="re-point with `make rollback-data SNAPSHOT=<id>`"))
            return generation
        return None

    def _open_aside(self) -> None:
        """Open it for those to come; the lock is held for that."""
        try:
            self._release(self._open_current())
        finally:
            self._opening.release()

    def _open_current(self) -> Generation:
        spent, wanted = time.thread_time(), None
        try:
            wanted = self.store.current_id()
            if error := self._not_yet(wanted):
                return self._take_last_good(error)
            # Whoever held the lock before us may have opened it already.
            if wanted is not None and (generation := self._take_if_current(wanted)):
                return generation
            generation = self._opened(None)
        except _UNREADABLE as error:
            if isinstance(error, SnapshotGone):  # the caller named no snapshot: the pointer leads nowhere
                error = SnapshotCorrupt(error.message, hint=error.hint)
            self._failed(error)
            self._failed_id = wanted
            if wanted is not None and self._current is None:
                self._open_before(wanted)
            spent = time.thread_time() - spent
            self._retry_at = time.monotonic() + max(_RETRY_SECONDS, _RETRY_PAUSE * spent)
            return self._take_last_good(error)
        self._failure = None
        self._serve(generation)
        log.info("snapshot_opened", snapshot=generation.id)
        return generation

    def _not_yet(self, snapshot_id: str | None) -> Exception | None:
        """Why it failed, if it is not to be tried again yet."""
        return self._failure if snapshot_id == self._failed_id and time.monotonic() < self._retry_at else None

    def _open_before(self, snapshot_id: str) -> None:
        """Serve the newest intact snapshot before that one. Never a later one: it may have been rolled back."""
        for earlier in reversed([found for found in self.store.ids() if found < snapshot_id]):
            try:
                generation = self._opened(earlier)
            except _UNREADABLE as error:
                log.warning("snapshot_unreadable", snapshot=earlier, error=str(error))
            else:
                self._serve(generation)
                self._release(generation)
                log.warning("last_good_snapshot_opened", snapshot=earlier, instead_of=snapshot_id)
                return

    def _failed(self, error: Exception) -> Exception:
        if str(self._failure) != str(error):
            log.error("snapshot_unreadable", error=str(error), serving=self._current.id if self._current else None)
        self._failure = error
        return error

    def _take_if_current(self, snapshot_id: str) -> Generation | None:
        with self._lock:
            found = self._current is not None and self._current.id == snapshot_id
            return self._used(self._current) if found else None

    def _take_any(self) -> Generation | None:
        with self._lock:
            return self._used(self._current)

    def _take_if_busy(self, wanted: str) -> Generation | None:
        """What is served, if others are at this moment, and it is time to open another."""
        with self._lock:
            found = self._current
            if found is None or found.id == wanted or not found.users or self._not_yet(wanted):
                return None
            return self._used(found)

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
            self.switches += self._served_id not in {None, generation.id}
            self._served_id = generation.id
            self._damage = None
        self.tables.serve(list(generation.marts.values()))
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
        self.holds.expire()
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
        try:
            snapshot = self.store.open(snapshot_id)
            try:
                generation = Generation(snapshot, self._files, self._settings)
            except duckdb.Error as error:
                raise SnapshotCorrupt(
                    f"opening snapshot {snapshot.id} in {snapshot.path} failed: {error}",
                    hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
                ) from error
        except SnapshotCorrupt:
            self.damage_found += 1
            raise
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
                self._end(generation)

    def _release(self, generation: Generation, *, retire: bool = False) -> None:
        with self._lock:
            generation.users -= 1
            generation.retired = generation.retired or retire
            last = generation.retired and generation.users == 0
            if last:
                self._open.discard(generation)
        if last:
            self._end(generation)

    def _end(self, generation: Generation) -> None:
        generation.close()
        self.tables.look()
