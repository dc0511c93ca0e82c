"""What one request may take of the process, and what is left for the others."""

import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import httpx
import pytest

from backend.config import Settings
from backend.duckdb.client import Database

from .api import QUERY, assert_error, bearer, open_api
from .listening import HEAVY, add_dataset, add_heavy, listening
from .marts import ROWS_PER_USER, USERS, publish

MANY = "/api/analytics/query"
ENDLESS = 3600


@pytest.fixture
def impatient(store):
    client, database = open_api(parquet_dir=store.root, statement_timeout_seconds=0.3)
    with client:
        add_heavy(database)
        yield client


def test_a_query_that_takes_too_long_is_stopped(impatient):
    error = assert_error(impatient.get(HEAVY, headers=bearer(1)), 504, "statement_timeout")
    assert "0.3 seconds" in error["message"]
    assert "analytics_queries_running 0.0" in impatient.get("/metrics").text
    rows = impatient.app.state.database.read(lambda connection: connection.execute("FROM fct_transactions").fetchall())
    assert len(rows) == ROWS_PER_USER * len(USERS)


def test_the_time_is_that_of_the_whole_batch(impatient):
    body = {"queries": [{"dataset": "dim_categories"}, *[{"dataset": "heavy"}] * 19]}
    assert_error(impatient.post(MANY, json=body, headers=bearer(1)), 504, "statement_timeout")
    assert "analytics_queries_running 0.0" in impatient.get("/metrics").text


def test_an_interrupt_hits_one_session_only(store):
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    statement = "SELECT sum(i % 7) FROM range(?) t(i)"
    started = threading.Event()

    def work(connection):
        started.set()
        return connection.execute(statement, [500_000_000]).fetchall()

    with database.connection() as other, ThreadPoolExecutor(1) as pool:
        unhurt = pool.submit(database.read, work)
        assert started.wait(60)
        threading.Timer(0.2, other.interrupt).start()
        with pytest.raises(duckdb.InterruptException):
            other.execute(statement, [10**12])
        assert not unhurt.done()
        assert unhurt.result() == [(1_499_999_994,)]
    database.close()


def test_a_client_that_goes_away_ends_its_query(store):
    with listening(store, statement_timeout_seconds=ENDLESS, concurrent_queries=1) as api:
        add_heavy(api.database)
        connection = api.begin(HEAVY)
        api.wait_for_queries(running=1, waiting=0)
        connection.close()
        api.wait_for_queries(running=0, waiting=0)
        assert api.get(QUERY).status_code == 200
        assert 'analytics_refused_total{code="client_gone"} 1.0' in api.get("/metrics").text


def test_heavy_queries_of_one_caller_leave_room_for_the_light_ones_of_others(store):
    with listening(store, statement_timeout_seconds=ENDLESS, concurrent_queries=4, queued_queries=10) as api:
        add_heavy(api.database)
        heavy = [api.begin(f"{HEAVY}?limit={n}", user=1) for n in range(1, 8)]  # each a question of its own
        api.wait_for_queries(running=2, waiting=5)
        assert_error(api.get(QUERY, user=1), 429, "too_many_queries")
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda n: api.get(f"{QUERY}?limit={n}", user=2), range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert api.queries() == (2, 5)
        for connection in heavy:
            connection.close()
        api.wait_for_queries(running=0, waiting=0)


def test_whoever_waits_gets_a_turn_and_what_is_no_query_waits_for_none(store):
    with listening(store, statement_timeout_seconds=ENDLESS, concurrent_queries=1, queued_queries=2) as api:
        add_heavy(api.database)
        heavy = api.begin(HEAVY, user=1)
        api.wait_for_queries(running=1, waiting=0)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(api.get, QUERY, user=2)
            api.wait_for_queries(running=1, waiting=1)
            refused = api.get(f"{QUERY}?limit=1", user=2)
            assert_error(refused, 429, "too_many_queries")
            assert int(refused.headers["retry-after"]) > 0
            assert api.get("/health/ready").json()["status"] == "ready"
            assert httpx.get(api.url + QUERY, timeout=60).status_code == 401
            heavy.close()
            assert {row["user_id"] for row in waiting.result().json()["rows"]} == {2}


def test_whoever_waits_too_long_is_told_that_nothing_was_begun(store, monkeypatch):
    with listening(store, statement_timeout_seconds=ENDLESS, concurrent_queries=1) as api:
        add_heavy(api.database)
        heavy = api.begin(HEAVY, user=1)
        api.wait_for_queries(running=1, waiting=0)
        monkeypatch.setattr(api.app.state.admission, "seconds", 0.1)
        error = assert_error(api.get(QUERY, user=2), 429, "too_many_queries")
        assert "no turn came in 0.1 seconds" in error["message"]
        api.wait_for_queries(running=1, waiting=0)
        heavy.close()
        api.wait_for_queries(running=0, waiting=0)


def test_all_instances_together_keep_to_the_memory_of_the_process(store):
    settings = Settings(duckdb_memory_limit="400MB", pinned_snapshots=2, table_memory=0)
    database = Database(settings, parquet_dir=store.root, duckdb_path=None)
    ids = [store.current_id(), *(publish(store, number).id for number in (2, 3, 4))]

    def limit(connection):
        size, unit = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0].split()
        return float(size) * {"MiB": 2**20, "GiB": 2**30}[unit]

    with database.connection(ids[-1]) as answering:
        publish(store, 5)
        limits = [limit(answering), *(database.read(limit, snapshot) for snapshot in (None, *ids[:3]))]
        assert database.status().generations_open == 4
    assert len(set(limits)) == 1
    assert 390e6 < sum(limits[:4]) <= 400e6
    database.close()


def test_a_query_that_needs_more_memory_than_there_is(store):
    client, database = open_api(parquet_dir=store.root, duckdb_memory_limit="60MB")
    add_dataset(database, "large", "SELECT DISTINCT hash(i)::VARCHAR AS category_id FROM range(3000000) t(i)")
    response = client.get("/api/analytics/datasets/large/query", headers=bearer(1))
    assert_error(response, 503, "out_of_memory")
    assert client.get(QUERY, headers=bearer(1)).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(store, chunked):
    with listening(store, max_body=1000) as api:
        for spaces, status in ((900, 200), (2000, 413), (5_000_000, 413)):
            body = b'{"queries": [{"dataset": "dim_categories"}]}' + b" " * spaces
            content = (body[i : i + 500] for i in range(0, len(body), 500)) if chunked else body
            headers = bearer(1) | {"Content-Type": "application/json"}
            answer = httpx.post(api.url + MANY, content=content, headers=headers, timeout=60)
            assert answer.status_code == status
            if status != 200:
                assert "1000 bytes" in assert_error(answer, 413, "body_too_large")["message"]
        assert api.get(QUERY).status_code == 200


@pytest.mark.parametrize("path", [QUERY, "/api/analytics/datasets", "/health/ready", f"{QUERY}?nope=eq.1", "/no/such"])
def test_head_is_get_without_a_body(store, path):
    with listening(store) as api, httpx.Client(base_url=api.url, headers=bearer(1), timeout=60) as client:
        get, head = client.get(path), client.head(path)
        assert head.content == b""
        assert head.status_code == get.status_code
        for name in ("content-length", "content-type", "x-snapshot-id"):
            assert head.headers.get(name) == get.headers.get(name), name
