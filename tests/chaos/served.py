"""What is served, read through the real API: a uvicorn process on a snapshot store, and the digest of its answers."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from backend import auth
from tests.chaos.marts import digest
from tests.e2e.stack import wait_for
from tests.forked import PROCESSES

SECRET = "a-secret-of-adequate-length-for-the-fault-matrix"
LIMIT = 1_000_000  # rows of one answer: all marts in one request, so from one snapshot
SETTINGS = {"API_MAX_LIMIT": str(LIMIT), "API_SCRUB_SECONDS": "0.2"}
START_SECONDS = 60


class Wrong(AssertionError):
    """An answer that must never be given."""


@dataclass(frozen=True)
class State:
    """What is served: ``rows`` digests all rows of all marts, ``listing`` what /datasets says of them."""

    rows: str
    listing: str
    snapshot: str
    last_refresh: str


@dataclass(frozen=True)
class Unavailable:
    """A clean refusal: 503 with the one envelope for errors."""

    code: str
    message: str


class Api:
    """One backend, asked as an operator who sees all rows."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def read(self) -> State | Unavailable:
        """Everything that is served. Raises Wrong for an answer that is neither whole nor a clean refusal."""
        for _ in range(50):
            listed = self._json(self.client.get("/api/analytics/datasets"))
            if isinstance(listed, Unavailable):
                return listed
            names = [dataset["id"] for dataset in listed["datasets"]]
            queries = [{"dataset": name, "limit": LIMIT} for name in names]
            answer = self._json(self.client.post("/api/analytics/query", json={"queries": queries}))
            if isinstance(answer, Unavailable):
                return answer
            if answer["snapshot"] == listed["snapshot"]:  # else a snapshot was published between the two
                return _state(listed, answer)
        raise Wrong("the snapshot changed between two requests, 50 times in a row")

    def state(self) -> State:
        """Everything that is served, where something must be."""
        found = self.read()
        if isinstance(found, Unavailable):
            raise Wrong(f"503 {found.code}: {found.message}")
        return found

    def ready(self) -> dict:
        """Answer of /health/ready; ``{"status": "unavailable"}`` for a 503."""
        answer = self.client.get("/health/ready")
        return answer.json() if answer.status_code == 200 else {"status": "unavailable", "problem": answer.text}

    def _json(self, answer: httpx.Response) -> dict | Unavailable:
        if answer.status_code == 200:
            return json.loads(answer.text, parse_float=str, parse_int=str)
        body = answer.json()
        if answer.status_code == 503 and list(body) == ["error"] and set(body["error"]) == {"code", "message", "hint"}:
            return Unavailable(body["error"]["code"], body["error"]["message"])
        raise Wrong(f"{answer.status_code}: {answer.text[:300]}")


def _state(listed: dict, answer: dict) -> State:
    marts = {result["dataset"]: [list(row.values()) for row in result["rows"]] for result in answer["results"]}
    counts = {dataset["id"]: int(dataset["row_count"]) for dataset in listed["datasets"]}
    if counts != {name: len(rows) for name, rows in marts.items()}:
        raise Wrong(f"/datasets counts {counts}, read were { {name: len(rows) for name, rows in marts.items()} }")
    listing = [{key: value for key, value in d.items() if key != "row_count"} for d in listed["datasets"]]
    return State(
        digest(marts),
        hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest(),
        answer["snapshot"],
        answer["last_refresh"],
    )


def token() -> str:
    return auth.issue(SECRET, user_id=1, all_rows=True, ttl=timedelta(days=1))


class Backend(Api):
    """The API on the store ``root``, in a process of its own; its socket and log lie in ``directory``."""

    _numbers = 0

    def __init__(self, root: Path, directory: Path, **settings: str) -> None:
        Backend._numbers += 1
        name = f"api{Backend._numbers}"
        self.log = directory / f"{name}.log"
        (directory / "jwt_secret").write_text(SECRET)
        self._name = name
        self._socket = directory / f"{name}.sock"
        self._environment = {**SETTINGS, "PARQUET_DIR": str(root), "SECRETS_DIR": str(directory), **settings}
        transport = httpx.HTTPTransport(uds=str(self._socket))
        headers = {"Authorization": f"Bearer {token()}"}
        super().__init__(httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=60))
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        arguments = (self._socket, self.log, self._environment)
        self.process = PROCESSES.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        wait_for(self._answers, f"{self._name} answers", seconds=START_SECONDS, every=0.02, details=self._said)

    def _answers(self) -> bool:
        if not self.process.is_alive():
            raise AssertionError(f"the API ended by itself:\n{self._said()}")
        with suppress(httpx.TransportError):
            return self.client.get("/health/live").status_code == 200
        return False

    def _said(self) -> str:
        return self.log.read_text()[-2000:] if self.log.exists() else ""

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.join()


def end_with_parent() -> None:
    """No process outlives the run, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _serve(socket: Path, log: Path, environment: dict[str, str]) -> None:
    import uvicorn  # noqa: PLC0415 - imported beforehand, in the process that this one is forked off

    end_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for name in ("DUCKDB_PATH", "LEGACY_DUCKDB_PATH"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    uvicorn.main(["--factory", "backend.app:create_app", "--uds", str(socket)])


class Watch:
    """Reads all that is served, again and again, while something goes wrong."""

    def __init__(self, api: Api) -> None:
        self.reads = 0
        self.seen: set[tuple[str, str]] = set()
        self.wrong: list[str] = []
        self.unanswered: list[str] = []  # by any backend, which is no wrong answer
        self._api = api
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.1):
            try:
                found = self._api.read()
            except httpx.TransportError as error:
                self.unanswered.append(type(error).__name__)
            except Wrong as error:
                self.wrong.append(str(error))
            else:
                if isinstance(found, State):
                    self.reads += 1
                    self.seen.add((found.rows, found.listing))
                elif found.code == "no_backend":
                    self.unanswered.append(found.code)
                else:
                    self.wrong.append(f"503 {found.code}: {found.message}")
