"""Snapshots that somebody pages through: kept from retention between one page and the next."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from backend.errors import NoSnapshot, SnapshotCorrupt, SnapshotGone
from backend.snapshots import Snapshot, SnapshotStore


class Holds:
    """A shared lock on each snapshot that a page cursor was given out for in the last ``seconds``.

    Independent of the DuckDB instances: those are few and may be closed meanwhile, a lock is one descriptor.
    """

    def __init__(self, store: SnapshotStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._lock = threading.Lock()
        self._held: dict[str, Snapshot] = {}
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def renew(self, snapshot_id: str) -> None:
        """Hold the snapshot for ``seconds`` from now; the caller reads it, so it is there."""
        with self._lock:
            self._until[snapshot_id] = time.monotonic() + self._seconds
            if snapshot_id not in self._held:
                with suppress(SnapshotGone, SnapshotCorrupt, NoSnapshot):  # lost from the disk: nothing to keep
                    self._held[snapshot_id] = self._store.open(snapshot_id)

    def expire(self) -> None:
        """Let go of those that nobody asked a page of for too long."""
        if not self._until:
            return
        now = time.monotonic()
        with self._lock:
            self._drop([key for key, until in self._until.items() if until < now])

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            self._drop(list(self._until))

    def _drop(self, ids: list[str]) -> None:
        for snapshot_id in ids:
            del self._until[snapshot_id]
            if snapshot := self._held.pop(snapshot_id, None):
                snapshot.close()
