"""Marts' files as they were verified: what DuckDB reads are the bytes whose SHA-256 the manifest has.

A file is copied into memory while it is hashed, so nothing that happens to it later (bit rot, ``rm``, a careless
write) changes an answer. Beyond the budget the file itself is read, and looked at again after every read. Either is
hashed once, however many open snapshots have it.
Why: ``deploy/decisions/0007-verified-in-memory.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from backend.checksum import file_sha256
from backend.datasets import Dataset
from backend.errors import SnapshotCorrupt
from backend.manifest import Mart
from backend.snapshots import Snapshot

if TYPE_CHECKING:
    from backend.duckdb.row_groups import RowGroups

Described = tuple[Mart, Dataset, "RowGroups | None"]
"""A mart as somebody has opened it."""

_CHUNK_BYTES = 1 << 20
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class VerifiedFile(Protocol):
    """``path`` is for DuckDB, within this process, until the file is released.

    ``described`` is for whoever opens it: a snapshot after this one that has the same file need not ask it again.
    """

    path: str
    described: Described | None

    def unchanged(self) -> bool:
        """Whether all that was read at ``path`` so far are the verified bytes."""


class InMemory:
    """A copy that nobody changes, shared by all generations that have it, of a whole file if it has a ``sha256``.

    ``users`` is the lock's of VerifiedFiles.
    """

    DIRECTORY = "/proc/self/fd/"

    def __init__(self, descriptor: int, size: int, sha256: str = "") -> None:
        self.path = f"{self.DIRECTORY}{descriptor}"
        self.size = size
        self.sha256 = sha256
        self.users = 0
        self.described: Described | None = None
        self._descriptor = descriptor

    def unchanged(self) -> bool:
        """Nothing can write to it."""
        return True

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._descriptor)


class OnDisk:
    """The published file itself, good for as long as nobody wrote to it or put another in its place."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.path = str(path)
        self.sha256 = sha256
        self.described: Described | None = None
        self._known = self._identity()

    def is_same(self, other: OnDisk) -> bool:
        """Whether both are links to one file, to which nobody has written in between."""
        return self._known is not None and self._known == other._known

    def unchanged(self) -> bool:
        """Whether it is the same file with the same time of its last write."""
        return self._identity() == self._known

    def _identity(self) -> tuple[int, int, int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        # Not the time of change: that also moves when another snapshot links the file.
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class VerifiedFiles:
    """The files of all open generations. Marts that a partial build took over are in memory once."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._in_memory: dict[str, InMemory] = {}
        self._on_disk: WeakValueDictionary[str, OnDisk] = WeakValueDictionary()  # the one opened last
        self._resident_bytes = 0

    @property
    def resident_bytes(self) -> int:
        """How much is in memory."""
        return self._resident_bytes

    def take(self, snapshot: Snapshot, mart: Mart) -> VerifiedFile:
        """The verified bytes of its file, to be given back with ``release``. Called by one thread at a time.

        Raises SnapshotCorrupt when they are not those that were published, or can't be read.
        """
        sha256, size = mart.sha256, mart.bytes
        with self._lock:
            if known := self._in_memory.get(sha256):
                known.users += 1
                return known
            resident = self._resident_bytes + size <= self._budget
        path = snapshot.file(mart.name)
        try:
            if not resident:
                return self._checked(path, sha256)
            copy = _copied(path, sha256, size)
        except OSError as error:
            raise _damaged(path, f"reading it failed: {error.strerror}") from error
        with self._lock:
            copy.users = 1
            self._in_memory[sha256] = copy
            self._resident_bytes += size
        return copy

    def doubt(self, files: Iterable[VerifiedFile]) -> None:
        """Have those that are on the disk hashed again by whoever takes them next."""
        with self._lock:
            for file in files:
                if isinstance(file, OnDisk):
                    self._on_disk.pop(file.sha256, None)

    def in_memory(self) -> AbstractSet[str]:
        """SHA-256 of each that is in memory."""
        with self._lock:
            return set(self._in_memory)

    def known(self) -> AbstractSet[str]:
        """SHA-256 of each that somebody has, wherever it is."""
        with self._lock:
            return self._in_memory.keys() | set(self._on_disk)

    def borrow(self, sha256: str) -> InMemory | None:
        """One that is in memory, to be given back with ``release``; None where nobody has it any more."""
        with self._lock:
            if known := self._in_memory.get(sha256):
                known.users += 1
            return known

    def release(self, files: Iterable[VerifiedFile]) -> None:
        """Give files back; the last one to do so frees their memory."""
        for file in files:
            if not isinstance(file, InMemory):
                continue
            with self._lock:
                file.users -= 1
                if file.users:
                    continue
                del self._in_memory[file.sha256]
                self._resident_bytes -= file.size
            file.close()

    def _checked(self, path: Path, sha256: str) -> OnDisk:
        file, known = OnDisk(path, sha256), self._on_disk.get(sha256)
        if known is not None and known.is_same(file):
            file.described = known.described
        elif file_sha256(path) != sha256 or not file.unchanged():
            raise _not_as_published(path, sha256)
        with self._lock:
            self._on_disk[sha256] = file
        return file


def _copied(path: Path, sha256: str, size: int) -> InMemory:
    digest = hashlib.sha256()
    with ExitStack() as closing:
        memory = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        closing.callback(os.close, memory)
        with path.open("rb", buffering=0) as source, open(memory, "wb", closefd=False) as copy:
            # One that grew is refused before it fills the memory.
            if os.fstat(source.fileno()).st_size == size:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    copy.write(chunk)
        if digest.hexdigest() != sha256:
            raise _not_as_published(path, sha256)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        closing.pop_all()
    return InMemory(memory, size, sha256)


def _not_as_published(path: Path, sha256: str) -> SnapshotCorrupt:
    return _damaged(path, f"it is not the file that was published, which has SHA-256 {sha256}")


def _damaged(path: Path, found: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(
        f"{path} is damaged: {found}",
        hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build everything anew",
    )
