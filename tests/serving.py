"""An app on a port of this machine, for what only a real connection shows."""

import threading
from contextlib import contextmanager

import uvicorn

from backend.protocol import Protocol
from tests.e2e.stack import wait_for


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
