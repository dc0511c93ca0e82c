import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from backend.duckdb.file import DuckDBFile

from .api import QUERY, assert_error, bearer, open_api
from .marts import write_file

WRITER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("CREATE OR REPLACE TABLE landed AS SELECT 1 AS one")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def writer(duckdb_file):
    """Another process that has the file open for writing, until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(duckdb_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    yield process
    finish(process)


def finish(process):
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


@pytest.mark.parametrize("path", ["/api/analytics/datasets", QUERY, "/health/ready"])
def test_a_build_that_holds_the_file_makes_it_503(duckdb_file, writer, path):
    client, _ = open_api(duckdb_path=duckdb_file, lock_wait_seconds=0.3)
    response = client.get(path, headers=bearer(1))
    assert_error(response, 503, "database_locked")
    assert int(response.headers["retry-after"]) > 0
    assert str(duckdb_file) not in response.text
    metrics = client.get("/metrics").text
    assert 'analytics_refused_total{code="database_locked"} 1.0' in metrics
    assert "analytics_lock_retries_total 0.0" not in metrics


def test_a_build_that_ends_in_time_goes_unnoticed(duckdb_file, writer, monkeypatch):
    client, database = open_api(duckdb_path=duckdb_file, lock_wait_seconds=60)
    waiting = threading.Event()
    counted = DuckDBFile._count

    def count(self, state):
        counted(self, state)
        waiting.set()

    monkeypatch.setattr(DuckDBFile, "_count", count)
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(client.get, QUERY, headers=bearer(1))
        assert waiting.wait(60)
        finish(writer)
        assert response.result().status_code == 200
    assert database.status().lock_retries >= 1


def test_between_requests_the_file_is_free_for_a_build(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    for generation in (1, 2, 3):
        write_file(duckdb_file, generation)
        subprocess.run(
            [sys.executable, "-c", WRITER, str(duckdb_file)], input="\n", text=True, check=True, capture_output=True
        )
        assert client.get(QUERY, headers=bearer(1)).json()["rows"][0]["generation"] == generation


def test_requests_at_the_same_time_share_the_file(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    with client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: client.get(QUERY, headers=bearer(user)), [1, 2, 3] * 10))
    assert {answer.status_code for answer in answers} == {200}
    for user, answer in zip([1, 2, 3] * 10, answers, strict=True):
        assert {row["user_id"] for row in answer.json()["rows"]} == {user}
    write_file(duckdb_file, 2)  # fails if any of them still had it open


def test_only_base_tables_of_the_main_schema_are_datasets(duckdb_file):
    with duckdb.connect(str(duckdb_file)) as connection:
        connection.execute("CREATE SCHEMA landed; CREATE TABLE landed.secret AS SELECT 1 AS one")
        connection.execute("CREATE VIEW peek AS SELECT * FROM landed.secret")
    client, _ = open_api(duckdb_path=duckdb_file)
    listed = client.get("/api/analytics/datasets", headers=bearer(1)).json()["datasets"]
    assert [dataset["id"] for dataset in listed] == ["dim_categories", "fct_transactions"]
    for name in ("secret", "landed.secret", "peek"):
        assert_error(client.get(f"/api/analytics/datasets/{name}/query", headers=bearer(1)), 404, "unknown_dataset")
