"""The API's process, or several: ``python -m backend.server``. SIGTERM drains it, Ctrl-C stops it without that."""

from __future__ import annotations

import gc
import signal
import sys
import time
from contextlib import suppress
from socket import socket
from types import FrameType

import duckdb
import structlog
import typer
import uvicorn
from fastapi import FastAPI

from backend import logs
from backend.app import create_app
from backend.config import Settings
from backend.duckdb import client
from backend.duckdb.client import Database
from backend.errors import BundleError
from backend.protocol import Protocol
from backend.workers import Worker, run

_WITHOUT_DATA_SECONDS = 2.0
# Young ones looked through for garbage before all are: 0.04 s of load are spent on these, and find next to nothing.
_COLLECTIONS = 100

log = structlog.get_logger("backend.server")  # run as __main__, which nobody listens to


class Server(uvicorn.Server):
    """After SIGTERM it says that it is not ready and serves on; only ``drain_seconds`` later it accepts no more.

    By then nobody should send anything new. It ends, with exit code 0, when all that it was asked is answered.
    """

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        super().__init__(uvicorn.Config(app, host=host, port=port, log_config=None, http=Protocol))
        self._state = app.state
        self._worker: Worker | None = app.state.worker
        self._drained_at = float("inf")

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, and be there for the other workers before."""
        if self._worker:
            self._to_the_others = await self._worker.answer_the_others(self._state.metrics.exposition)
        await super().startup(sockets)
        # What there is by now is there to the end. To look through it for garbage took 0.1 s every two seconds of load,
        # in which nobody was answered (deploy/decisions/0026-workers.md).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], _COLLECTIONS)
        if self._worker:  # else uvicorn says so
            log.info(f"running on http://{self.config.host}:{self.config.port}", worker=self._worker.number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain on SIGTERM, once; leave other signals to uvicorn."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
        elif not self._state.draining:
            self._state.draining = True
            self._drained_at = time.monotonic() + self._state.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop accepting, asked ten times a second."""
        orphaned = self._worker is not None and self._worker.orphaned
        return await super().on_tick(counter) or time.monotonic() >= self._drained_at or orphaned


def main(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    workers = Settings().workers
    if workers > 1:
        logs.configure()
        sys.exit(run(workers, serve_as, host=host, port=port))
    with suppress(KeyboardInterrupt):  # uvicorn raises it once it is through
        app = create_app()
        wait_for_data(app.state.database)
        Server(app, host=host, port=port).run()


def serve_as(worker: Worker) -> None:
    """Serve as one of several, with its part of the limits."""
    with suppress(KeyboardInterrupt):
        settings = Settings().of_one_worker()
        app = create_app(settings=settings, database=client.configured(settings))
        app.state.worker = worker
        wait_for_data(app.state.database)
        with worker.bound() as listening:
            Server(app, host=worker.host, port=worker.port).run(sockets=[listening])


def wait_for_data(database: Database) -> None:
    """Open what is served before anybody is listened to; where there is nothing, for two seconds.

    The gateway takes a backend that it has just found for ready until its first check, which comes up to a second and a
    half after the container began. One without data must not be listening by then (deploy/decisions/0009-gateway.md).
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until it listens there is nothing to drain
    ends = time.monotonic() + _WITHOUT_DATA_SECONDS
    while time.monotonic() < ends:
        with suppress(BundleError, duckdb.Error, OSError):
            database.check()
            return
        time.sleep(0.1)


if __name__ == "__main__":
    typer.run(main)
