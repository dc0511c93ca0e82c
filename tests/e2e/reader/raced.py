"""A file system on which something happens just before the n-th open of a file: a race, won on purpose.

DuckDB opens a Parquet file to read its footer (1), then once for each thread that scans it (2, 3).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem

FOOTER, FIRST_SCAN, SECOND_SCAN = 1, 2, 3
_SECONDS = 10


class Raced(AbstractFileSystem):
    """Local files as ``raced://<path>``. Nothing happens until ``arm``."""

    protocol = "raced"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._path = ""
        self._at = 0
        self._opened = 0
        self._act: Callable[[], object] = lambda: None
        self.happened = threading.Event()

    def arm(self, path: str | os.PathLike[str], at: int, act: Callable[[], object]) -> None:
        """Call ``act`` once, before the open number ``at`` of ``path`` from now on. Scans before it wait for it."""
        self._path, self._at, self._act, self._opened = os.fspath(path), at, act, 0
        self.happened = threading.Event()

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        path = _local(path)
        if path != self._path:
            return open(path, mode)
        with self._lock:
            self._opened += 1
            number = self._opened
            if number == self._at:
                self._act()
                self.happened.set()
            file = open(path, mode)  # noqa: SIM115 - DuckDB closes it
        return _Waiting(file, self.happened) if FOOTER < number < self._at else file

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": _local(path), "size": os.stat(_local(path)).st_size, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        return [_local(path)]

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(os.stat(_local(path)).st_mtime, UTC)


class _Waiting:
    """A file that gives nothing away until the race is over: so two threads share the scan, one on each side of it."""

    def __init__(self, file: BinaryIO, happened: threading.Event) -> None:
        self._file = file
        self._happened = happened

    def read(self, *size: int) -> bytes:
        assert self._happened.wait(_SECONDS), "no second thread came to scan"
        return self._file.read(*size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _local(path: str) -> str:
    return "/" + Raced._strip_protocol(path).lstrip("/")
