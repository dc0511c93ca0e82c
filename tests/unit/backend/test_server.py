"""The server's process: what its clients see of SIGTERM and of Ctrl-C."""

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import httpx
import psutil
import pytest
from fastapi import FastAPI

from backend import server
from backend import workers as workers_module
from backend.config import Settings
from backend.errors import NoSnapshot
from backend.filepaths import REPO_ROOT
from tests.e2e.stack import wait_for

from .api import QUERY, SECRET, assert_error, bearer
from .listening import listening
from .marts import USERS, publish

START_SECONDS = 60
BODY = b'{"queries": [{"dataset": "dim_categories"}]}'


class Process:
    """``python -m backend.server`` on ``store``, on a port that the kernel picks."""

    def __init__(self, store, directory, *, drain_seconds=1, workers=1):
        (directory / "jwt_secret").write_text(SECRET)
        self.log = directory / "log"
        environment = {
            **{name: value for name, value in os.environ.items() if name != "DUCKDB_PATH"},
            "PARQUET_DIR": str(store.root),
            "SECRETS_DIR": str(directory),
            "API_DRAIN_SECONDS": str(drain_seconds),
            "API_WORKERS": str(workers),
        }
        with self.log.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "backend.server", "--port", "0"],
                cwd=REPO_ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        said = wait_for(
            lambda: len(found := self.ports()) == workers and found,
            "the server runs",
            seconds=START_SECONDS,
            details=self.log.read_text,
        )
        (self.port,) = set(said)

    def ports(self):
        """Of each process that has said that it listens."""
        return [int(port) for port in re.findall(r"running on http://127\.0\.0\.1:(\d+)", self.log.read_text())]

    def workers(self):
        """Process ids of the workers there are."""
        return [child.pid for child in psutil.Process(self.popen.pid).children()]

    def answered(self):
        """How many queries were answered, as the metrics have it."""
        counted = re.findall(r"^http_requests_total{(.*)} (.*)$", self.get("/metrics").text, re.MULTILINE)
        return sum(float(count) for labels, count in counted if "/query" in labels and 'status="200"' in labels)

    def get(self, path):
        """On a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=bearer(), timeout=30)

    def accepts(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def start(store, tmp_path):
    started = []

    def start(**options):
        started.append(Process(store, tmp_path, **options))
        return started[-1]

    yield start
    for process in started:
        process.popen.kill()
        process.popen.wait()


def half_a_request(process):
    """A POST whose body has still to come: the server is at it until then."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    head = ["POST /api/analytics/query HTTP/1.1", "Host: api", f"Authorization: {bearer()['Authorization']}"]
    head += ["Content-Type: application/json", f"Content-Length: {len(BODY)}", "Expect: 100-continue"]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    assert b"100 Continue" in connection.recv(1000)  # it is being worked on
    return connection


def the_rest(connection):
    connection.sendall(BODY)
    with connection, connection.makefile("rb") as answer:
        return answer.read()


@pytest.fixture(params=[1, 2])
def workers(request):
    return request.param


def test_after_sigterm_it_says_that_it_is_not_ready_serves_on_and_finishes_what_it_was_asked(start, workers):
    process = start(drain_seconds=5, workers=workers)
    assert process.get("/health/ready").status_code == 200
    slow = half_a_request(process)
    process.popen.send_signal(signal.SIGTERM)
    wait_for(lambda: process.get("/health/ready").status_code == 503, "it says that it is draining", seconds=5)
    process.popen.send_signal(signal.SIGTERM)  # a second one cuts nothing short
    assert_error(process.get("/health/ready"), 503, "draining")
    assert process.get("/health/live").status_code == 200
    assert {row["user_id"] for row in process.get(QUERY).json()["rows"]} == {USERS[0]}

    wait_for(lambda: not process.accepts(), "it accepts no more", seconds=30)
    assert process.popen.poll() is None
    answer = the_rest(slow)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"dataset":"dim_categories"' in answer
    assert process.popen.wait(timeout=30) == 0


def test_ctrl_c_waits_for_no_drain_but_finishes_what_it_was_asked(start, workers):
    process = start(drain_seconds=3600, workers=workers)
    slow = half_a_request(process)
    process.popen.send_signal(signal.SIGINT)
    wait_for(lambda: not process.accepts(), "it accepts no more", seconds=30)
    assert the_rest(slow).startswith(b"HTTP/1.1 200 OK")
    assert process.popen.wait(timeout=30) == 0


def test_ctrl_c_ends_a_drain(start, workers):
    process = start(drain_seconds=3600, workers=workers)
    process.popen.send_signal(signal.SIGTERM)
    wait_for(lambda: process.get("/health/ready").status_code == 503, "it says that it is draining", seconds=30)
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(timeout=30) == 0


@pytest.mark.parametrize("path", [QUERY, f"{QUERY}?limit=7", f"{QUERY}?format=csv"])
def test_an_answers_head_comes_with_its_body(store, path):
    """What has begun can't be asked of another backend: one that is killed may have begun nothing, or all."""
    with listening(store) as api:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", api.port)) as connection:
                head = [f"GET {path} HTTP/1.1", "Host: api", f"Authorization: {bearer(1)['Authorization']}"]
                connection.sendall("\r\n".join([*head, "", ""]).encode())
                head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert body


@pytest.mark.parametrize(("failures", "asked", "listens_after"), [(0, 1, 0), (3, 4, 0.3), (99, 20, 2)])
def test_it_listens_once_it_has_data_and_without_any_not_before_the_gateway_has_asked(
    monkeypatch, failures, asked, listens_after
):
    clock, checks = [0.0], []

    def check():
        checks.append(clock[0])
        if len(checks) <= failures:
            raise NoSnapshot("there is no snapshot", hint="wait")

    def sleep(seconds):
        clock[0] = round(clock[0] + seconds, 3)

    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    server.wait_for_data(SimpleNamespace(check=check))
    assert (len(checks), clock[0]) == (asked, listens_after)


# --- workers ----------------------------------------------------------------------------------------------------------
def test_all_workers_answer_and_their_metrics_are_one(start):
    process = start(workers=3)
    for _ in range(40):  # each on a connection of its own, which the kernel gives to one of them
        assert process.get(QUERY).status_code == 200
    assert {process.answered() for _ in range(12)} == {40}
    text = process.get("/metrics").text
    (snapshot,) = re.findall(r'^analytics_snapshot_info{snapshot="(.*)"} 1.0$', text, re.MULTILINE)
    assert snapshot == process.get(QUERY).json()["snapshot"]
    assert re.search(r"^analytics_generations_open 3.0$", text, re.MULTILINE)
    kept = {process.get(QUERY).headers["etag"] for _ in range(12)}
    assert len(kept) == 1, "the same, whoever answers"


def test_what_is_published_is_what_every_worker_answers_next(start, store):
    process = start(workers=2)
    for generation in (2, 3, 4):
        publish(store, generation)
        seen = {row["generation"] for _ in range(20) for row in process.get(QUERY).json()["rows"]}
        assert seen == {generation}


def test_a_worker_that_is_killed_is_replaced(start):
    process = start(workers=2)
    before = process.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(process.ports()) == 3, "another listens", seconds=START_SECONDS, details=process.log.read_text)
    assert len({*before, *process.workers()}) == 3
    assert [process.get(QUERY).status_code for _ in range(20)] == [200] * 20
    process.popen.send_signal(signal.SIGINT)
    assert process.popen.wait(timeout=30) == 0
    assert not any(psutil.pid_exists(pid) for pid in before)


def test_sigterm_while_one_is_replaced_ends_all(start):
    process = start(workers=2, drain_seconds=0)
    before = process.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: "worker_replaced" in process.log.read_text(), "it is noticed", seconds=30)
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(timeout=30) == 0
    assert not any(psutil.pid_exists(pid) for pid in before)
    assert len(process.ports()) == 2, "none was started any more"


OUT_OF_PROCESSES = """
import os, signal
from backend import workers

start, started = workers._Running._start, []

def failing(self, worker):
    if len(started) == 2:
        raise OSError("no process can be had")
    started.append(worker)
    start(self, worker)

def serve(worker):
    os.write(1, f"{os.getpid()}\\n".encode())  # in one piece, whoever else writes
    if worker.number == 0:
        os.read(served, 1)  # by the other, which is ended as soon as this one is gone
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(serving, b".")
    signal.pause()

served, serving = os.pipe()
workers._Running._start = failing
workers.run(2, serve, host="127.0.0.1", port=0)
"""


def test_all_end_where_no_process_can_be_had_any_more():
    ended = subprocess.run(
        [sys.executable, "-c", OUT_OF_PROCESSES],
        cwd=REPO_ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "no process can be had" in ended.stderr
    pids = [int(line) for line in ended.stdout.splitlines() if line.isdigit()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_metrics_of_a_worker_that_does_not_answer_fail_rather_than_leave_it_out(tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_ASKED_SECONDS", 0.1)
    worker = workers_module.Worker(0, 2, os.getpid(), tmp_path, "127.0.0.1", 0)
    own = b"# TYPE up gauge\nup 1.0\n"
    assert b"up 1.0" in worker.metrics_of_all(own), "the other is being started"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "1"))
        silent.listen()
        with pytest.raises(TimeoutError):
            worker.metrics_of_all(own)


def test_workers_end_when_nobody_is_left_to_end_them(start):
    process = start(workers=2)
    workers = process.workers()
    process.popen.kill()
    process.popen.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers), "they have ended", seconds=30)


def test_workers_that_can_t_start_end_all(store, tmp_path):
    (tmp_path / "jwt_secret").write_text("short")
    environment = os.environ | {"PARQUET_DIR": str(store.root), "SECRETS_DIR": str(tmp_path), "API_WORKERS": "2"}
    ended = subprocess.run(
        [sys.executable, "-m", "backend.server", "--port", "0"],
        cwd=REPO_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "jwt_secret" in ended.stderr


def test_a_port_that_is_taken_is_said_so(store, tmp_path):
    (tmp_path / "jwt_secret").write_text(SECRET)
    environment = os.environ | {"PARQUET_DIR": str(store.root), "SECRETS_DIR": str(tmp_path), "API_WORKERS": "2"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [sys.executable, "-m", "backend.server", "--port", str(taken.getsockname()[1])],
            cwd=REPO_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "already in use" in ended.stderr


def test_workers_share_what_one_would_take():
    alone = Settings(workers=3, duckdb_memory_limit="900MB", table_memory="30MB", concurrent_queries=8)
    one = alone.of_one_worker()
    assert (one.duckdb_memory_limit, one.table_memory, one.concurrent_queries) == (300_000_000, 10_000_000, 3)
    assert one.resident_memory == alone.resident_memory // 3
    assert one.max_limit == alone.max_limit
    assert Settings().of_one_worker() == Settings()


def test_garbage_is_not_looked_for_in_what_there_is_from_the_start():
    """A tenth of a second every two of load, in which nobody was answered."""
    app = FastAPI()
    app.state.worker = None
    serving = server.Server(app, host="127.0.0.1", port=0)

    async def frozen():
        serving.config.load()
        serving.lifespan = serving.config.lifespan_class(serving.config)
        await serving.startup()
        found = gc.get_freeze_count(), gc.get_threshold()
        await serving.shutdown()
        return found

    before, (young, middle, old) = gc.get_freeze_count(), gc.get_threshold()
    try:
        count, now = asyncio.run(frozen())
        assert count > before + 10_000
        assert now == (young, middle, 10 * old), "and in what came since a tenth as often"
    finally:
        gc.unfreeze()
        gc.set_threshold(young, middle, old)
