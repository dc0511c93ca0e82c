"""What a server uses: the processor time and the memory of its processes and all that they started."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAMPLE_SECONDS = 0.5


@dataclass
class Usage:
    """What was used while a block ran: seconds of processor time, and the most bytes of memory at any sample."""

    cpu_seconds: float = 0
    peak_bytes: int = 0


@contextmanager
def measured(pids: Sequence[int]) -> Iterator[Usage]:
    """What the trees of processes below ``pids`` use until the block ends; known after it."""
    usage, done = Usage(), threading.Event()

    def sample() -> None:
        while True:
            usage.peak_bytes = max(usage.peak_bytes, _bytes(pids))
            if done.wait(_SAMPLE_SECONDS):
                return

    sampling = threading.Thread(target=sample)
    begun = _cpu_seconds(pids)
    try:
        sampling.start()  # which Ctrl-C can end when it has begun
        yield usage
        usage.cpu_seconds = _cpu_seconds(pids) - begun
    finally:
        done.set()
        if sampling.is_alive():
            sampling.join()


def tree(pids: Sequence[int]) -> list[psutil.Process]:
    """These processes, and all below them."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found += [root, *root.children(recursive=True)]
    return found


def _cpu_seconds(pids: Sequence[int]) -> float:
    total = 0.0
    for process in tree(pids):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _bytes(pids: Sequence[int]) -> int:
    """What is theirs alone, and what they share once: all of PostgreSQL's processes have its buffers."""
    own, shared = 0, 0
    for process in tree(pids):
        with suppress(OSError):
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if ":" in line
            )
            own += _kilobytes(status.get("RssAnon", "0"))
            shared = max(shared, _kilobytes(status.get("RssShmem", "0")), _memory_files(process.pid))
    return own + shared


def _memory_files(pid: int) -> int:
    """Bytes of the files that it has in memory alone; RssShmem has of these what is mapped."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if os.readlink(descriptor).startswith("/memfd:"):
                status = descriptor.stat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024
