"""Several processes of the API on one port: one has one interpreter, which is busy with one answer at a time.

The kernel gives each connection to one of them. They share nothing but that port, and the metrics of all are those of
each: ``deploy/decisions/0026-workers.md``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

import structlog

from backend import exposition

_FORK = multiprocessing.get_context("fork")
_ENDING = (signal.SIGTERM, signal.SIGINT)
_PAUSE_SECONDS = 1.0  # before another takes the place of one that was killed
_ASKED_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Worker:
    """One of ``count``, with a socket in ``directory`` on which the others ask for its metrics."""

    number: int
    count: int
    parent: int
    directory: Path
    host: str
    port: int

    def bound(self) -> socket.socket:
        """A socket on the port of all, which nobody is listening on yet."""
        return _bound(self.host, self.port)

    @property
    def orphaned(self) -> bool:
        """Whether whoever would end it, or put another in its place, is gone."""
        return os.getppid() != self.parent

    async def answer_the_others(self, metrics: Callable[[], bytes]) -> asyncio.AbstractServer:
        """Give whoever asks its metrics, for as long as the server that comes back is kept."""

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(metrics())
            with suppress(OSError):
                await writer.drain()
            writer.close()

        self._path(self.number).unlink(missing_ok=True)  # of one that was killed
        return await asyncio.start_unix_server(answer, self._path(self.number))

    def metrics_of_all(self, own: bytes) -> bytes:
        """The metrics of all workers as those of one process. Raises OSError when one does not answer."""
        texts = {number: own if number == self.number else self._asked(number) for number in range(self.count)}
        return exposition.merged({number: text for number, text in texts.items() if text is not None})

    def _asked(self, number: int) -> bytes | None:
        """What that one says; None while it is being started, when it has counted nothing."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_ASKED_SECONDS)
            try:
                asking.connect(str(self._path(number)))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            return b"".join(iter(lambda: asking.recv(1 << 16), b""))

    def _path(self, number: int) -> Path:
        return self.directory / str(number)


def run(count: int, serve: Callable[[Worker], None], *, host: str, port: int) -> int:
    """Have ``serve`` run in so many processes until they end; the exit code of the first that failed, else 0.

    Signals to end go to all of them. One that was killed is replaced; one that fails ends all.
    """
    with _bound(host, port) as reserved, tempfile.TemporaryDirectory(prefix="workers-") as directory:
        bound_to = reserved.getsockname()[1]
        running = _Running(
            serve,
            [Worker(number, count, os.getpid(), Path(directory), host, bound_to) for number in range(count)],
        )
        for ends in _ENDING:
            signal.signal(ends, running.end)
        return running.until_all_ended()


class _Running:
    """The processes of the workers, by the worker's number."""

    def __init__(self, serve: Callable[[Worker], None], workers: Sequence[Worker]) -> None:
        self._serve = serve
        self._workers = workers
        self._processes: dict[int, ForkProcess] = {}
        self._ending = False
        self._code = 0

    def end(self, number: int, _: FrameType | None = None) -> None:
        """Send the signal to all, and replace none any more."""
        self._ending = True
        for process in list(self._processes.values()):
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, number)

    def until_all_ended(self) -> int:
        """Start all and wait for all; the exit code. Whatever it raises, it ends all."""
        try:
            for worker in self._workers:
                self._start(worker)
            while self._processes:
                connection.wait([process.sentinel for process in self._processes.values()])
                for worker in self._workers:
                    process = self._processes.get(worker.number)
                    if process is not None and not process.is_alive():
                        self._ended(worker, process.exitcode or 0)
        except BaseException:  # no process more can be had, for one
            self.end(signal.SIGTERM)
            raise
        return self._code

    def _ended(self, worker: Worker, code: int) -> None:
        del self._processes[worker.number]
        self._code = self._code or max(0, code)
        if self._code and not self._ending:
            self.end(signal.SIGTERM)
        if not self._ending:
            log.error("worker_replaced", worker=worker.number, exit_code=code)
            time.sleep(_PAUSE_SECONDS)
            self._start(worker)

    def _start(self, worker: Worker) -> None:
        # A signal that comes meanwhile is for this one, too: it waits until that is known, and until it can take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            if not self._ending:
                process = _FORK.Process(target=_served, args=(self._serve, worker), name=f"worker-{worker.number}")
                process.start()
                self._processes[worker.number] = process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _served(serve: Callable[[Worker], None], worker: Worker) -> None:
    os.setpgid(0, 0)  # what a terminal sends to a group goes to whoever passes it on, and comes once
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    serve(worker)
    for ends in _ENDING:
        signal.signal(ends, signal.SIG_IGN)  # it has


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
