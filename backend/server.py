"""The API's process: ``python -m backend.server``. SIGTERM drains it, Ctrl-C stops it without that."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from types import FrameType

import typer
import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.protocol import Protocol


class Server(uvicorn.Server):
    """After SIGTERM it says that it is not ready and serves on; only ``drain_seconds`` later it accepts no more.

    By then nobody should send anything new. It ends, with exit code 0, when all that it was asked is answered.
    """

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        super().__init__(uvicorn.Config(app, host=host, port=port, log_config=None, http=Protocol))
        self._state = app.state
        self._drained_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain on SIGTERM, once; leave other signals to uvicorn."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
        elif not self._state.draining:
            self._state.draining = True
            self._drained_at = time.monotonic() + self._state.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop accepting, asked ten times a second."""
        return await super().on_tick(counter) or time.monotonic() >= self._drained_at


def main(host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    with suppress(KeyboardInterrupt):  # uvicorn raises it once it is through
        Server(create_app(), host=host, port=port).run()


if __name__ == "__main__":
    typer.run(main)
