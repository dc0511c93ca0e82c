"""The API on a port of its own, for what only a real connection shows."""

import dataclasses
import re
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tests.e2e.stack import wait_for
from tests.serving import served

from .api import bearer, open_api

HEAVY = "/api/analytics/datasets/heavy/query"


class Listening:
    def __init__(self, app, url):
        self.app = app
        self.database = app.state.database
        self.url = url
        self.port = urlsplit(url).port

    def get(self, path, user=1, **options):
        """On a connection of its own."""
        return httpx.get(self.url + path, headers={**bearer(user), **options.pop("headers", {})}, timeout=60, **options)

    def begin(self, path, user=1):
        """A connection that has asked, and may be closed without reading the answer."""
        connection = socket.socket()
        connection.settimeout(60)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that not reading is soon noticed
        connection.connect(("127.0.0.1", self.port))
        head = [f"GET {path} HTTP/1.1", "Host: api", f"Authorization: {bearer(user)['Authorization']}"]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        return connection

    def queries(self):
        """How many run, and how many wait."""
        text = self.get("/metrics").text
        return tuple(
            int(float(re.search(rf"^analytics_queries_{state} (\S+)$", text, re.MULTILINE)[1]))
            for state in ("running", "queued")
        )

    def wait_for_queries(self, running, waiting):
        wait_for(lambda: self.queries() == (running, waiting), f"{running} queries run, {waiting} wait", seconds=120)


@contextmanager
def listening(store, **settings):
    client, _ = open_api(parquet_dir=store.root, **settings)
    with served(client.app) as url:
        yield Listening(client.app, url)


def add_long(database, rows, *, name="long", column="'row ' || i"):
    """A dataset with so many rows, in their order."""
    select = (
        f"SELECT i::INTEGER AS category_id, {column} AS name, 1::INTEGER AS generation, i AS n FROM range({rows}) t(i)"
    )
    _add(database, name, select)


def add_heavy(database):
    """A dataset whose queries take hours; nobody's in particular."""
    add_dataset(database, "heavy", "SELECT sum(i % 7)::INTEGER AS category_id FROM range(1000000000000) t(i)")


def add_dataset(database, name, select):
    """A dataset like dim_categories, made of SQL that gives a ``category_id``."""
    _add(database, name, f"SELECT category_id, 'a' AS name, 1::INTEGER AS generation, 1 AS n FROM ({select})")


def _add(database, name, select):
    database.check()
    datasets = database._generations.current.datasets
    datasets[name] = dataclasses.replace(
        datasets["dim_categories"], id=name, relation=f"({select})", position="n", rows=None
    )
