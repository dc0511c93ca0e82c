import duckdb
import pytest

from .api import QUERY, SECRET, assert_error, bearer, open_api
from .marts import publish

MANY = "/api/analytics/query"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("select=nope", "select"),
        ("select=amount;drop", "select"),
        ("order=nope.desc", "order"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1000000", "limit"),
        ("limit=", "limit"),
        ("limit=٣", "limit"),
        ("offset=-1", "offset"),
        ("offset=9999999999999999999999", "offset"),
        ("limit=1&limit=2", "limit"),
        ("select=amount&select=amount", "select"),
        ("nope=eq.1", "nope"),
        ("amount=almost.1", "amount"),
        ("amount=eq.1.005", "amount"),
        ("amount=eq.12345678901", "amount"),
        ("transaction_id=eq.1.5", "transaction_id"),
        ("transaction_id=eq.9223372036854775808", "transaction_id"),
        ("user_id=eq.2147483648", "user_id"),
        ("posted_on=eq.2023-02-29", "posted_on"),
        ("posted_on=eq.yesterday", "posted_on"),
        ("snapshot=", "snapshot"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(any_client, parameters, named):
    error = assert_error(any_client.get(f"{QUERY}?{parameters}", headers=bearer(1)), 400, "invalid_parameter")
    assert error["message"].startswith(f"parameter {named!r}")
    assert ": expected " in error["message"]
    assert ", got " in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"queries": [{"dataset": "dim_categories"}, {"dataset": "nope"}]}, 404, "unknown_dataset", "queries[1]"),
        ({"queries": [{"dataset": "dim_categories", "nope": "eq.1"}]}, 400, "invalid_parameter", "queries[0]"),
        ({"queries": [{"dataset": "dim_categories", "limit": -1}]}, 400, "invalid_parameter", "'limit'"),
        ({"queries": [{"dataset": "dim_categories", "cursor": "x"}]}, 400, "invalid_cursor", "queries[0]"),
        ({"queries": [{"dataset": "dim_categories"}] * 21}, 400, "invalid_parameter", "at most 20"),
        (
            {"queries": [{"dataset": "dim_categories", "snapshot": name} for name in ("a", "b")]},
            400,
            "invalid_parameter",
            "'snapshot'",
        ),
        (
            {"queries": [{"dataset": "dim_categories", "name": ["like.c*", "between.1"]}]},
            400,
            "invalid_parameter",
            "queries[0]: parameter 'name', value 2, character 1",
        ),
        ({"queries": [{"dataset": "dim_categories", "select": ["name"]}]}, 422, "invalid_request", "select"),
        ({"queries": []}, 422, "invalid_request", "queries"),
        ({"queries": [{"select": "name"}]}, 422, "invalid_request", "dataset"),
        ({"queries": [{"dataset": "dim_categories", "name": 5}]}, 422, "invalid_request", "name"),
        ({"queries": [{"dataset": "dim_categories"}], "extra": 1}, 422, "invalid_request", "extra"),
        ([], 422, "invalid_request", "body"),
    ],
)
def test_a_body_that_makes_no_sense(client, body, status, code, says):
    error = assert_error(client.post(MANY, json=body, headers=bearer(1)), status, code)
    assert says in error["message"]


def test_a_body_that_is_no_json(client):
    assert_error(client.post(MANY, content=b"{", headers=bearer(1)), 422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/analytics/datasets/nope", 404, "unknown_dataset"),
        ("GET", "/api/analytics/datasets/nope/query", 404, "unknown_dataset"),
        ("GET", "/api/analytics/datasets/..%2F..%2Fetc%2Fpasswd/query", 404, "not_found"),
        ("GET", "/api/nope", 404, "not_found"),
        ("DELETE", "/api/analytics/datasets", 405, "method_not_allowed"),
        ("GET", "/api/analytics/query", 405, "method_not_allowed"),
        ("POST", "/health/ready", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there(any_client, method, path, status, code):
    assert_error(any_client.request(method, path, headers=bearer(1)), status, code)


@pytest.mark.parametrize("snapshot", ["20200101T000000-000000-abcdef", "../../etc", "plain-0123456789abcdef"])
def test_a_snapshot_that_is_gone(any_client, snapshot):
    assert_error(any_client.get(f"{QUERY}?snapshot={snapshot}", headers=bearer(1)), 410, "snapshot_gone")
    body = {"queries": [{"dataset": "fct_transactions", "snapshot": snapshot}]}
    assert_error(any_client.post(MANY, json=body, headers=bearer(1)), 410, "snapshot_gone")


@pytest.mark.parametrize("path", ["/api/analytics/datasets", "/api/analytics/datasets/dim_categories", QUERY])
@pytest.mark.parametrize("has_file", [True, False])
def test_nothing_to_read_yet(tmp_path, path, has_file):
    missing = tmp_path / "missing.duckdb"
    client, _ = open_api(parquet_dir=tmp_path, duckdb_path=missing if has_file else None)
    response = client.get(path, headers=bearer(1))
    error = assert_error(response, 503, "no_snapshot")
    assert "no snapshot and no fallback" in error["message"]
    assert int(response.headers["retry-after"]) > 0
    assert str(tmp_path) not in response.text


def test_a_file_without_tables_is_nothing_to_read(tmp_path):
    path = tmp_path / "analytics.duckdb"
    duckdb.connect(str(path)).close()
    client, _ = open_api(duckdb_path=path)
    assert_error(client.get("/api/analytics/datasets", headers=bearer(1)), 503, "no_snapshot")


def test_a_file_that_is_none_of_duckdbs(tmp_path):
    path = tmp_path / "analytics.duckdb"
    path.write_bytes(b"not a database" * 1000)
    client, _ = open_api(duckdb_path=path)
    response = client.get("/api/analytics/datasets", headers=bearer(1))
    assert_error(response, 503, "data_unreadable")
    assert int(response.headers["retry-after"]) > 0


def test_marts_that_cannot_be_read(store, client):
    snapshot = store.current_id()
    path = store.root / "snapshots" / snapshot / "fct_transactions.parquet"
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    response = client.get(QUERY, headers=bearer(1))
    assert_error(response, 503, "data_unreadable")
    assert int(response.headers["retry-after"]) > 0
    assert str(store.root) not in response.text


def test_a_query_beyond_memory(store, client, monkeypatch):
    def read(*_):
        raise duckdb.OutOfMemoryException("could not allocate block")

    monkeypatch.setattr(client.app.state.database, "read", read)
    response = client.get(QUERY, headers=bearer(1))
    assert_error(response, 503, "out_of_memory")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("unexpected", [RuntimeError(f"secret {SECRET}"), duckdb.BinderException(f"secret {SECRET}")])
def test_an_unexpected_error_tells_nothing_but_its_request_id(client, monkeypatch, unexpected):
    def read(*_):
        raise unexpected

    monkeypatch.setattr(client.app.state.database, "read", read)
    response = client.get(QUERY, headers=bearer(1))
    error = assert_error(response, 500, "internal_error")
    assert SECRET not in response.text
    assert response.headers["x-request-id"] in error["hint"]


def test_fallback_is_used_only_until_there_is_a_snapshot(store, duckdb_file, tmp_path):
    client, _ = open_api(parquet_dir=tmp_path / "empty", duckdb_path=duckdb_file)
    before = client.get(QUERY, headers=bearer(1)).json()
    assert before["snapshot"] is None
    assert "analytics_fallback_in_use 1.0" in client.get("/metrics").text
    store.root.rename(tmp_path / "empty")
    after = client.get(QUERY, headers=bearer(1)).json()
    assert after["snapshot"]
    assert after["rows"] == before["rows"]
    assert "analytics_fallback_in_use 0.0" in client.get("/metrics").text


def test_a_dataset_that_only_a_later_snapshot_has(store, client):
    assert_error(client.get("/api/analytics/datasets/other", headers=bearer(1)), 404, "unknown_dataset")
    publish(store, 2)
    assert client.get("/api/analytics/datasets/dim_categories", headers=bearer(1)).status_code == 200
