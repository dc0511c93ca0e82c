"""Lock files: held with ``flock`` for as long as their holder lives, and naming it to whoever has to wait."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from backend.errors import LockHeld

_POLL_SECONDS = 0.05


@contextmanager
def held(path: Path, holder: str, *, wait: float) -> Iterator[int]:
    """The lock ``path``, exclusively, until the block ends; its descriptor, for a child process that keeps it, too.

    Raises LockHeld, naming the holder, when somebody else still has it after ``wait`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(lock, path, wait)
        since = datetime.now(UTC)
        text = json.dumps({"holder": holder, "pid": os.getpid(), "host": socket.gethostname(), "since": f"{since}"})
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)
        yield lock
    finally:
        os.close(lock)


def holder(path: Path) -> str | None:
    """What the lock file says of its holder; None when nobody holds it."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return path.read_text(encoding="utf-8")
    finally:
        os.close(lock)
    return None


def _acquire(lock: int, path: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockHeld(
                    f"taking {path} failed after {wait:g} s: it is held by {path.read_text(encoding='utf-8')}",
                    hint="wait for the holder to end, or end it; its lock ends with it",
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return
