"""Who takes part: how each one is asked, and how its answer is read."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa

from tests.bench.asking import Request
from tests.bench.questions import SERIAL, Question
from tests.bench.site import Site

ARROW = "application/vnd.apache.arrow.stream"
Rows = list[dict[str, Any]]


class Peer(ABC):
    """One system; peers of the same ``server`` share its process."""

    name: str
    title: str
    server: str
    arrow = False
    repeats = False
    """Whether it is asked the same thing over and over, so that a cache may know the answer."""

    def answers(self, question: Question) -> bool:
        """Whether it has an answer of that kind."""
        return self.arrow or not question.arrow

    def requests(self, site: Site, question: Question) -> list[Request]:
        """What is asked in turn: one request for each user; of what is about everybody, also one for each."""
        if self.repeats:
            return [self.request(site, question, site.users[0]).repeated()]
        return [self.request(site, question, user) for user in site.users]

    @abstractmethod
    def request(self, site: Site, question: Question, user: int) -> Request:
        """That question about that user."""

    def rows(self, question: Question, body: bytes) -> Rows:
        """What it answered. Raises ValueError where that is no rows."""
        return from_arrow(body) if question.arrow else from_json(body)


def from_json(body: bytes) -> Any:
    """JSON with every number that has a point as an exact decimal."""
    return json.loads(body, parse_float=Decimal)


def from_arrow(body: bytes) -> Rows:
    """Rows of an Arrow stream. Raises pyarrow.ArrowInvalid, a ValueError, where it is none."""
    rows: Rows = pa.ipc.open_stream(body).read_all().to_pylist()
    return rows


class Ours(Peer):
    """The API, with a process for each core (``API_WORKERS``)."""

    name = "ours"
    title = "this project's API, a process for each core: a token checked, every answer a new one"
    server = "ours"
    arrow = True

    def request(self, site: Site, question: Question, user: int) -> Request:
        token = site.token(user, all_rows=not question.of_a_user)
        headers = {"Authorization": f"Bearer {token}", "Accept": ARROW if question.arrow else "application/json"}
        if len(question.queries) > 1:
            queries = [{"dataset": query.dataset, **dict(query.parameters)} for query in question.queries]
            headers["Content-Type"] = "application/json"
            return Request("/api/analytics/query", json.dumps({"queries": queries}), headers)
        (query,) = question.queries
        return Request(f"/api/analytics/datasets/{query.dataset}/query?{urlencode(query.parameters)}", "", headers)

    def columns(self, body: bytes) -> dict[str, str]:
        """Names and DuckDB types of the columns of an answer in JSON."""
        results = self._results(body)
        return {column["name"]: column["type"] for result in results for column in result["columns"]}

    def rows(self, question: Question, body: bytes) -> Rows:
        if question.arrow:
            return from_arrow(body)
        rows, *others = [result["rows"] for result in self._results(body)]
        # What it answers of two marts is joined by who asked.
        for other in others:
            accounts = {account["account_id"]: account for account in other}
            rows = [row | accounts[row["account_id"]] for row in rows if row["account_id"] in accounts]
        return list(rows)

    def _results(self, body: bytes) -> list[dict[str, Any]]:
        answer = from_json(body)
        return answer.get("results") or [answer]


class OursInOneProcess(Ours):
    """The API, as ``make demo`` and the image start it."""

    name = server = "ours, one process"
    title = "the same as it starts by default"


class OursCached(Ours):
    """The same server, asked for what it has just answered."""

    name = "ours, cached"
    title = "the same server, asked the same thing again and again"
    repeats = True


class Constant(Ours):
    """The same bytes as ours, from memory: what FastAPI and the connection take by themselves."""

    name = "constant"
    title = "FastAPI returning the bytes that ours answered, whatever is asked"
    server = "constant"
    repeats = True

    def request(self, site: Site, question: Question, user: int) -> Request:  # noqa: ARG002
        return Request(f"/{quote(question.name)}")


class OverFastApi(Peer):
    """A handful of lines of FastAPI around some library, as in ``servers/``."""

    def __init__(self, name: str, title: str, *, arrow: bool = False) -> None:
        self.name = self.server = name
        self.title = title
        self.arrow = arrow

    def request(self, site: Site, question: Question, user: int) -> Request:  # noqa: ARG002
        values = {"above": SERIAL, **({"user": str(user)} if question.of_a_user else {})}
        return Request(f"/{quote(question.name)}?{urlencode(values)}")


class Roapi(Peer):
    """ROAPI, which takes SQL."""

    name = server = "ROAPI"
    title = "the Rust server, marts in memory, SQL over HTTP"
    arrow = True

    def request(self, site: Site, question: Question, user: int) -> Request:  # noqa: ARG002
        headers = {"Accept": ARROW if question.arrow else "application/json"}
        return Request("/api/sql", question.sql.format(user=user, above=SERIAL), headers)


class Datasette(Peer):
    """Datasette, which takes SQL that its plugin rewrites for DuckDB."""

    name = server = "datasette"
    title = "datasette with datasette-parquet: DuckDB views on the Parquet files"

    def request(self, site: Site, question: Question, user: int) -> Request:  # noqa: ARG002
        # It has no way to write decimals as JSON: as text they stay exact.
        exact = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in question.decimals)
        sql = f"SELECT * REPLACE ({exact}) FROM ({question.sql.format(user=user, above=SERIAL)}) AS t"
        return Request(f"/marts.json?{urlencode({'sql': sql, '_shape': 'array'})}")


OURS = Ours()
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        OverFastApi(
            "plan", "the original plan: for each request an empty DuckDB, 11 views on Parquet, FastAPI's encoder"
        ),
        OverFastApi("shared file", "the shared DuckDB file, opened read-only for each request, FastAPI's encoder"),
        Roapi(),
        Datasette(),
        OverFastApi("PostgreSQL", "indexed tables, JSON made by the server, an asyncpg pool of 8 behind FastAPI"),
        OverFastApi("polars", "data frames in memory behind FastAPI, polars' own writers", arrow=True),
        OURS,
        OursInOneProcess(),
        OursCached(),
        Constant(),
    )
}
