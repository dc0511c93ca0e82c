"""Servers as processes of their own: started, waited for, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from backend.filepaths import REPO_ROOT
from tests.bench import usage
from tests.e2e.stack import wait_for

START_SECONDS = 120
STOP_SECONDS = 10


class NotStarted(AssertionError):
    """A server that ended before it answered."""


@dataclass(frozen=True)
class Running:
    """A server that answers on ``port``; ``pids`` are the roots of its processes."""

    port: int
    pids: tuple[int, ...]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def started(
    command: Sequence[str], *, log: Path, ready: Callable[[], bool], env: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """That process once ``ready()``, until the block ends. Raises NotStarted with the end of its ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=options.pop("cwd", REPO_ROOT),
            env={"PATH": os.environ["PATH"], "TZ": "UTC", "LANG": "C.UTF-8", **env},
            start_new_session=True,  # Ctrl-C reaches whoever ends it, and it only through them
            **options,
        )
    try:

        def ready_or_ended() -> bool:
            if process.poll() is not None:
                raise NotStarted(f"{' '.join(command)} ended with {process.returncode}:\n{_tail(log)}")
            return ready()

        wait_for(
            ready_or_ended,
            f"{command[0]} is ready",
            seconds=START_SECONDS,
            every=0.01,
            details=lambda: f"The end of its log:\n{_tail(log)}",
        )
        yield process
    finally:
        _end(process)


def listening(port: int) -> bool:
    """Whether something accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    family = usage.tree([process.pid])
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for member in family:
        with suppress(psutil.NoSuchProcess):  # psutil knows a pid that was given to somebody else meanwhile
            member.kill()
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
