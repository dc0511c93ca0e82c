"""An app, or the demo, on a port of this machine, for what only a real connection shows."""

import os
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager

import httpx
import uvicorn

from backend.filepaths import REPO_ROOT
from backend.protocol import Protocol
from tests.e2e.stack import TimedOut, wait_for


@contextmanager
def served(app):
    """URL of the app, on a port that nobody else has, until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, http=Protocol))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server listens", seconds=60, every=0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def demo(environment, log):
    """Port of ``make demo``, and what it printed, which is in the file ``log``, while it serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**environment, "PORT": str(port)}
    with log.open("w") as output:
        process = subprocess.Popen(
            ["make", "demo"],
            cwd=REPO_ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(
            lambda: process.poll() is not None or _answers(port),
            "make demo serves",
            seconds=120,
            details=log.read_text,
        )
        if process.poll() is not None:
            raise TimedOut(log.read_text())
        yield port, log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.TransportError:
        return False
