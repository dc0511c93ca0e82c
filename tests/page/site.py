"""The API with its page on a port of this machine, as the promises need it: a URL, and tokens for it."""

import threading
from contextlib import contextmanager
from datetime import timedelta

import httpx
import uvicorn

from backend import auth
from backend.app import create_app
from backend.config import Settings
from backend.duckdb.client import Database
from tests.e2e.stack import wait_for

SECRET = "an-adequately-long-secret-for-tests-only"


class Site:
    """What is served at ``url``; a token is for a user."""

    def __init__(self, url, token):
        self.url = url
        self.token = token

    def get(self, path, user=1):
        answer = httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer


def token(user, *, ttl=3600):
    return auth.issue(SECRET, user_id=user, ttl=timedelta(seconds=ttl))


@contextmanager
def serving(*, parquet_dir=None, duckdb_path=None, **settings):
    """A server in a thread of this process."""
    limits = Settings(**settings)
    database = Database(limits, parquet_dir=parquet_dir, duckdb_path=duckdb_path)
    app = create_app(settings=limits, database=database, secret=SECRET)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, "the server runs", seconds=60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(f"http://127.0.0.1:{port}", token)
    finally:
        server.should_exit = True
        thread.join()
