"""Answers that are sent while they are made: in constant memory, and whole or recognisably not."""

import asyncio
import os
import re
import subprocess
import sys

import duckdb
import httpx
import pytest

from backend.api.admission import Job
from backend.api.analytics import formats
from backend.filepaths import REPO_ROOT
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import QUERY, SECRET, assert_error, bearer, open_api
from .listening import add_long, listening

LONG = "/api/analytics/datasets/long/query"
ENDLESS = 3600
ROWS = 3_000_000
PARTS = (httpx.RemoteProtocolError, httpx.ReadError)


@pytest.fixture
def long(store):
    """An API with a dataset that fits into no socket's buffer."""
    with listening(store, statement_timeout_seconds=ENDLESS, concurrent_queries=4, max_export_rows=ROWS) as api:
        add_long(api.database, ROWS)
        yield api


def test_a_client_that_goes_away_ends_its_download(long):
    connection = long.begin(f"{LONG}?format=csv")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert long.queries() == (1, 0)
    connection.close()
    long.wait_for_queries(running=0, waiting=0)
    assert 'analytics_refused_total{code="client_gone"} 1.0' in long.get("/metrics").text


def test_slow_downloads_leave_room_for_questions(long):
    slow = [long.begin(f"{LONG}?format=csv", user=user) for user in (1, 2, 3)]
    long.wait_for_queries(running=2, waiting=1)
    assert [long.get(QUERY, user=user).status_code for user in (1, 2, 3, 1, 2, 3)] == [200] * 6
    assert long.queries() == (2, 1)
    for connection in slow:
        connection.close()
    long.wait_for_queries(running=0, waiting=0)


@pytest.mark.parametrize("parameters", ["format=csv", "limit=10000"])
def test_a_client_that_takes_nothing_is_given_up(store, monkeypatch, parameters):
    sent = Job.sent

    async def soon_too_late(job, sending):
        job._deadline = min(job._deadline, asyncio.get_running_loop().time() + 0.2)
        await sent(job, sending)

    monkeypatch.setattr(Job, "sent", soon_too_late)
    with listening(store, statement_timeout_seconds=ENDLESS, max_export_rows=ROWS) as api:
        add_long(api.database, ROWS, column="repeat('x', 1000)")
        with api.begin(f"{LONG}?{parameters}") as connection:
            received = connection.recv(1)
            api.wait_for_queries(running=0, waiting=0)
            while part := connection.recv(1 << 20):
                received += part
        assert received.startswith(b"HTTP/1.1 200")
        assert not received.endswith((b"0\r\n\r\n", b"}"))
        assert 'analytics_refused_total{code="statement_timeout"} 1.0' in api.get("/metrics").text


@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
def test_an_answer_that_fails_midway_is_broken_off(store, name):
    fails = f"CASE WHEN i = {ROWS - 1} THEN error('midway') ELSE 'row ' || i END"
    with listening(store, statement_timeout_seconds=ENDLESS, max_export_rows=ROWS) as api:
        add_long(api.database, ROWS, column=fails)
        with httpx.stream("GET", f"{api.url}{LONG}?format={name}", headers=bearer(1), timeout=60) as answer:
            assert answer.status_code == 200
            with pytest.raises(PARTS):
                answer.read()
        api.wait_for_queries(running=0, waiting=0)
        assert 'analytics_refused_total{code="broken_off"} 1.0' in api.get("/metrics").text
        assert api.get(f"{LONG}?format={name}&limit=10").headers["x-row-count"] == "10"


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
def test_a_download_of_one_piece_says_how_long_it_is(long, name, coding):
    headers = bearer(1) | {"Accept-Encoding": coding}
    for limit, known in ((0, True), (1000, True), (100_000, False)):
        url = f"{long.url}{LONG}?format={name}&limit={limit}"
        with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
            assert ("content-length" in answer.headers) == known
            sent = sum(map(len, answer.iter_raw()))
            assert int(answer.headers.get("content-length", sent)) == sent > 0


def mart(store, rows, name="numbers", generation=1):
    """A snapshot with so many rows."""
    with duckdb.connect() as connection, store.build(f"run-{generation}", holder="test", wait=30) as build:
        select = f"SELECT i AS number, {generation} AS generation, hash(i)::VARCHAR AS text FROM range({rows}) t(i)"
        connection.execute(f"COPY ({select}) TO '{build.path}/{name}.parquet' (ROW_GROUP_SIZE 50000)")
        columns = (Column("number", "BIGINT"), Column("generation", "INTEGER"), Column("text", "VARCHAR"))
        return build.publish([MartSpec(name, "Numbers", "", columns)])


NUMBERS = "/api/analytics/datasets/numbers/query?format=csv"


def test_files_that_change_while_they_are_sent_break_it_off(tmp_path):
    """Where they are read from the disk: all that was sent before is right."""
    store = SnapshotStore(tmp_path)
    snapshot = mart(store, ROWS).id
    with listening(store, statement_timeout_seconds=ENDLESS, resident_memory=0, max_export_rows=ROWS) as api:
        truth = api.get(NUMBERS).text
        assert len(truth.splitlines()) == ROWS + 1
        with httpx.stream("GET", api.url + NUMBERS, headers=bearer(1), timeout=60) as answer:
            parts = answer.iter_text(1000)
            received = [next(parts)]
            os.utime(store.root / "snapshots" / snapshot / "numbers.parquet")
            with pytest.raises(PARTS):
                received += parts
        received = "".join(received)
        assert truth.startswith(received)
        assert len(received) < len(truth)


def test_files_that_changed_before_anything_was_sent_are_read_again(tmp_path, monkeypatch):
    directory = tmp_path / "mart"
    directory.mkdir()

    def write(generation):
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT {generation}::INTEGER AS category_id) TO '{tmp_path}/new' (FORMAT parquet)"
            )
        (tmp_path / "new").replace(directory / "numbers.parquet")

    write(1)
    with listening(SnapshotStore(tmp_path)) as api:
        assert api.get(NUMBERS).text.split() == ["category_id", "1"]
        cut, generations = formats._cut, iter([2])

        def replacing(*arguments):
            for batch in cut(*arguments):
                for generation in generations:
                    write(generation)
                yield batch

        monkeypatch.setattr(formats, "_cut", replacing)
        assert api.get(NUMBERS).text.split() == ["category_id", "2"]


def test_a_page_that_fails_in_its_last_row_says_why(tmp_path):
    """Also where DuckDB had answered before it came to that."""
    store, rows = SnapshotStore(tmp_path), 200_000
    with duckdb.connect() as connection, store.build("run", holder="test", wait=30) as build:
        day = f"CASE WHEN i = {rows - 1} THEN DATE '5000000-01-01' ELSE DATE '2024-01-01' END"
        select = f"SELECT {day} AS day, 'row ' || hash(i) AS text FROM range({rows}) t(i)"
        connection.execute(f"COPY ({select}) TO '{build.path}/days.parquet' (ROW_GROUP_SIZE 50000)")
        build.publish([MartSpec("days", "Days", "", (Column("day", "DATE"), Column("text", "VARCHAR")))])
    client, _ = open_api(parquet_dir=store.root, max_limit=rows)
    path = "/api/analytics/datasets/days/query?select=day.trunc(year),text&limit="
    with client:
        assert client.get(f"{path}{rows - 50_000}", headers=bearer(1)).status_code == 200
        assert_error(client.get(f"{path}{rows}", headers=bearer(1)), 400, "out_of_range")


PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def test_memory_does_not_grow_with_the_answer(tmp_path):
    """The peak of the server's process, after exports of every kind, and after the same ten times as large."""
    store = SnapshotStore(tmp_path / "parquet")
    mart(store, 2_500_000)
    (tmp_path / "jwt_secret").write_text(SECRET)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DUCKDB_PATH"},
        "PARQUET_DIR": str(store.root),
        "SECRETS_DIR": str(tmp_path),
        "API_MAX_EXPORT_ROWS": "2500000",
        "API_DUCKDB_MEMORY_LIMIT": "360MB",
        "API_TABLE_MEMORY": "0",  # tried while the larger answers are made, a table would be a part of their peak
        "API_STATEMENT_TIMEOUT_SECONDS": str(ENDLESS),
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.server", "--port", "0"],
            cwd=REPO_ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        said = wait_for(
            lambda: re.search(r"running on (http://127\.0\.0\.1:\d+)", (tmp_path / "log").read_text()),
            "the server runs", seconds=60,
        )  # fmt: skip

        def peak(rows):
            sent = 0
            for name, coding in (("csv", "identity"), ("csv", "gzip"), ("arrow", "zstd"), ("parquet", "identity")):
                path = f"{said[1]}/api/analytics/datasets/numbers/query?format={name}&limit={rows}"
                headers = bearer(1) | {"Accept-Encoding": coding}
                with httpx.stream("GET", path, headers=headers, timeout=600) as answer:
                    assert answer.headers["x-row-count"] == str(rows)
                    sent += sum(map(len, answer.iter_bytes()))
            return sent, int(PEAK.search(open(f"/proc/{process.pid}/status").read())[1])

        # Ten times, as long as the large ones take: on a busy machine more waits for its client now and then.
        few, small = [peak(250_000) for _ in range(10)][-1]
        many, large = peak(2_500_000)
        assert many > few * 9
        assert large < small * 1.25
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
def test_head_of_a_download_makes_the_headers_only(long, name):
    with httpx.Client(base_url=long.url, headers=bearer(1), timeout=60) as client:
        path = f"{LONG}?format={name}&limit=100000"
        head, get = client.head(path), client.get(path)
    assert head.content == b""
    for header in ("content-type", "etag", "x-row-count", "x-next-cursor", "content-disposition", "content-encoding"):
        assert head.headers.get(header) == get.headers.get(header)
    long.wait_for_queries(running=0, waiting=0)
