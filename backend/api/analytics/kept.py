"""Answers that are kept: an answer is a pure function of snapshot, caller and question, so it is made once.

Which of them are kept, and why nothing stale is ever among them: ``deploy/decisions/0020-kept-answers.md``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cachetools import LRUCache

from backend.api.pieces import Buffer

_OVERHEAD_BYTES = 2_000  # of headers, key and book-keeping, about
_LARGEST_SHARE = 8  # of all: one answer must not drive out all others
_ONCE = 1_000


@dataclass(frozen=True)
class Kept:
    """An answer as it is sent: ``headers`` as ASGI has them, ``body`` in its content coding, in consecutive parts.

    ``pages``: it has a cursor, whose snapshot is to be held.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: tuple[Buffer, ...]
    pages: bool = False

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.body))


Promise = Future[Kept | None]
"""What becomes of an answer that is being made: None where nothing came of it that others could have."""


class KeptAnswers:
    """The answers asked for last, in ``limit`` bytes, and those being made now; for any thread and event loop."""

    def __init__(self, limit: int) -> None:
        self.found = 0
        self.made = 0
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, Kept] = LRUCache(limit, getsizeof=_size)
        self._promised: dict[bytes, Promise] = {}
        self._once: LRUCache[bytes, None] = LRUCache(_ONCE)

    @property
    def size(self) -> int:
        """Bytes of memory that they take, about."""
        return int(self._kept.currsize)

    def get(self, key: bytes) -> Kept | Promise | None:
        """The answer, or the promise of whoever makes it, if there is either."""
        with self._lock:
            found = self._kept.get(key) or self._promised.get(key)
            self.found += found is not None
            return found

    @contextmanager
    def making(self, key: bytes | None) -> Iterator[Promise]:
        """A promise to keep within the block; None, for lack of a key, promises nothing to anybody."""
        promise: Promise = Future()
        promise.set_running_or_notify_cancel()  # whoever stops waiting for it cancels nothing
        with self._lock:
            self.made += 1
            first = key is not None and self._promised.setdefault(key, promise) is promise
        try:
            yield promise
        finally:
            if not promise.done():
                promise.set_result(None)
            if key is not None and first:
                with self._lock:
                    del self._promised[key]

    def keep(self, key: bytes, kept: Kept) -> None:
        """Have it at hand, unless it is too large.

        A body in several parts is put together, which takes longer than all else that is done with a large one: when it
        was asked for before, lately. Most are never asked for again.
        """
        if _size(kept) * _LARGEST_SHARE > self._limit:
            return
        if len(kept.body) > 1:
            with self._lock:
                before = key in self._once
                self._once[key] = None
            if not before:
                return
            kept = replace(kept, body=(b"".join(kept.body),))
        with self._lock:
            self._kept[key] = kept


def _size(kept: Kept) -> int:
    return kept.size + _OVERHEAD_BYTES
