import json
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from backend.api.analytics import models
from backend.app import Ready
from backend.scripts.bootstrap_duckdb import refresh_duckdb_file

from .api import QUERY, assert_error, bearer, open_api
from .marts import ROWS_PER_USER, SPECS, USERS, publish


def test_datasets_are_described_with_the_rows_the_caller_may_see(any_client):
    answer = any_client.get("/api/analytics/datasets", headers=bearer(2)).json()
    assert [dataset["id"] for dataset in answer["datasets"]] == ["dim_categories", "fct_transactions"]
    for dataset, spec in zip(answer["datasets"], SPECS, strict=True):
        assert dataset["name"] == spec.label
        assert dataset["description"] == spec.description
        assert dataset["columns"] == [
            {"name": column.name, "type": column.type, "description": column.description} for column in spec.columns
        ]
    assert [dataset["row_count"] for dataset in answer["datasets"]] == [5, ROWS_PER_USER]
    assert datetime.fromisoformat(answer["last_refresh"]).tzinfo == UTC


def test_operators_see_the_whole_marts(any_client):
    answer = any_client.get("/api/analytics/datasets", headers=bearer(all_rows=True)).json()
    assert [dataset["row_count"] for dataset in answer["datasets"]] == [5, ROWS_PER_USER * len(USERS)]
    rows = any_client.get(f"{QUERY}?select=user_id&limit=1000", headers=bearer(all_rows=True)).json()["rows"]
    assert [row["user_id"] for row in rows] == [user for user in USERS for _ in range(ROWS_PER_USER)]


def test_one_dataset_is_the_same_as_in_the_list(any_client):
    listed = any_client.get("/api/analytics/datasets", headers=bearer(2)).json()["datasets"]
    one = any_client.get("/api/analytics/datasets/fct_transactions", headers=bearer(2)).json()
    assert one == listed[1]


def test_two_users_see_only_their_own_rows(any_client):
    for user in (1, 2):
        answer = any_client.get(f"{QUERY}?limit=1000", headers=bearer(user)).json()
        assert {row["user_id"] for row in answer["rows"]} == {user}
        assert answer["row_count"] == len(answer["rows"]) == ROWS_PER_USER
        assert answer["next"] is None


def test_a_user_without_rows_sees_none(any_client):
    answer = any_client.get(QUERY, headers=bearer(99)).json()
    assert (answer["rows"], answer["row_count"], answer["next"]) == ([], 0, None)
    assert answer["columns"][0]["name"] == "user_id"


def test_asking_for_another_users_rows_finds_none(any_client):
    assert any_client.get(f"{QUERY}?user_id=eq.2", headers=bearer(1)).json()["rows"] == []
    assert any_client.get(f"{QUERY}?transaction_id=eq.2001", headers=bearer(1)).json()["rows"] == []


def test_select_order_limit_offset_and_filter(any_client):
    parameters = {
        "select": "amount,transaction_id",
        "order": "amount.desc,transaction_id",
        "amount": "eq.106.25",
        "limit": 2,
        "offset": 1,
    }
    answer = any_client.get(f"{QUERY}?{urlencode(parameters)}", headers=bearer(1)).json()
    assert answer["columns"] == [
        {"name": "amount", "type": "DECIMAL(12,2)"},
        {"name": "transaction_id", "type": "BIGINT"},
    ]
    assert answer["rows"] == [
        {"amount": 106.25, "transaction_id": 1013},
        {"amount": 106.25, "transaction_id": 1020},
    ]
    assert answer["dataset"] == "fct_transactions"


@pytest.mark.parametrize(
    ("order", "nulls_first"),
    [
        ("description", False),
        ("description.asc", False),
        ("description.desc", True),
        ("description.nullsfirst", True),
        ("description.desc.nullslast", False),
    ],
)
def test_null_is_larger_than_any_value_unless_told_otherwise(any_client, order, nulls_first):
    rows = any_client.get(f"{QUERY}?select=description&limit=1000&order={order}", headers=bearer(1)).json()["rows"]
    missing = [row["description"] is None for row in rows]
    assert sum(missing) == 8
    assert missing == sorted(missing, reverse=nulls_first)


def test_text_comes_out_as_it_went_in(any_client):
    wanted = "user 1, row 3 'quoted' \"twice\" 🙂 ü"
    parameters = urlencode({"description": f"eq.{wanted}", "select": "description"})
    assert any_client.get(f"{QUERY}?{parameters}", headers=bearer(1)).json()["rows"] == [{"description": wanted}]


def test_without_limit_a_page_has_the_default(store):
    client, _ = open_api(parquet_dir=store.root, default_limit=7)
    answer = client.get(QUERY, headers=bearer(1)).json()
    assert answer["row_count"] == 7
    assert answer["next"]


def test_several_queries_in_one_request(any_client):
    body = {
        "queries": [
            {"dataset": "fct_transactions", "select": "amount", "amount": "eq.106.25", "order": "amount", "limit": 3},
            {"dataset": "dim_categories", "offset": 3},
            {"dataset": "fct_transactions", "limit": 1},
        ]
    }
    answer = any_client.post("/api/analytics/query", json=body, headers=bearer(1)).json()
    assert [result["dataset"] for result in answer["results"]] == [query["dataset"] for query in body["queries"]]
    assert answer["results"][0]["rows"] == [{"amount": 106.25}] * 3
    assert [row["category_id"] for row in answer["results"][1]["rows"]] == [3, 4]
    assert answer["results"][1]["next"] is None
    for result in answer["results"]:
        assert (result["snapshot"], result["last_refresh"]) == (answer["snapshot"], answer["last_refresh"])
    alone = any_client.get(f"{QUERY}?limit=1", headers=bearer(1)).json()
    assert answer["results"][2] == alone


def test_a_named_snapshot_is_answered_from(store, client):
    first = store.current_id()
    second = publish(store, 2).id
    for snapshot, generation in ((first, 1), (second, 2), (first, 1)):
        response = client.get(f"{QUERY}?snapshot={snapshot}&limit=1", headers=bearer(1))
        assert response.json()["rows"][0]["generation"] == generation
        assert response.json()["snapshot"] == response.headers["x-snapshot-id"] == snapshot
    many = client.post(
        "/api/analytics/query",
        json={"queries": [{"dataset": "dim_categories", "snapshot": first}, {"dataset": "fct_transactions"}]},
        headers=bearer(1),
    ).json()
    assert {result["rows"][0]["generation"] for result in many["results"]} == {1}


def test_the_snapshot_that_answered_is_named(store, client):
    snapshot = store.current_id()
    created_at = store.open().manifest.created_at
    for path in ("/api/analytics/datasets", "/api/analytics/datasets/dim_categories", QUERY):
        response = client.get(path, headers=bearer(1))
        assert response.headers["x-snapshot-id"] == snapshot
    assert response.json()["snapshot"] == snapshot
    assert datetime.fromisoformat(response.json()["last_refresh"]) == created_at
    error = client.get(f"{QUERY}?nope=eq.1", headers=bearer(1))
    assert_error(error, 400, "invalid_parameter")
    assert error.headers["x-snapshot-id"] == snapshot


def test_the_file_has_no_snapshot_and_its_own_refresh_time(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    response = client.get(QUERY, headers=bearer(1))
    assert response.json()["snapshot"] is None
    assert "x-snapshot-id" not in response.headers
    assert datetime.fromisoformat(response.json()["last_refresh"]).timestamp() == pytest.approx(
        duckdb_file.stat().st_mtime, abs=1e-3
    )


def test_the_way_back_to_the_file_changes_neither_the_refresh_time_nor_the_datasets(store, client, tmp_path):
    file = tmp_path / "analytics.duckdb"
    refresh_duckdb_file(store, file)
    back, _ = open_api(duckdb_path=file)
    before, after = (api.get("/api/analytics/datasets", headers=bearer(1)).json() for api in (client, back))
    assert after["last_refresh"] == before["last_refresh"]
    assert {d["id"] for d in after["datasets"]} == {d["id"] for d in before["datasets"]}


def test_ready_means_that_a_query_ran(any_client):
    response = any_client.get("/health/ready")
    assert response.status_code == 200
    assert Ready.model_validate(response.json()).status == "ready"
    assert any_client.get("/health/live").json() == {"status": "live"}


def test_not_ready_while_there_is_nothing_to_read(tmp_path):
    client, _ = open_api(parquet_dir=tmp_path)
    response = client.get("/health/ready")
    assert_error(response, 503, "no_snapshot")
    assert int(response.headers["retry-after"]) > 0
    assert client.get("/health/live").status_code == 200


def test_metrics_tell_what_is_served_and_what_was_refused(store, client):
    client.get(QUERY, headers=bearer(1))
    client.get(f"{QUERY}?nope=eq.1", headers=bearer(1))
    client.get("/no/such/path")
    text = client.get("/metrics").text
    route = 'route="/api/analytics/datasets/{dataset_id}/query"'
    assert f'http_requests_total{{method="GET",{route},status="200"}} 1.0' in text
    assert f'http_request_duration_seconds_count{{method="GET",{route}}} 2.0' in text
    assert 'route="unmatched",status="404"} 1.0' in text
    assert f'analytics_snapshot_info{{snapshot="{store.current_id()}"}} 1.0' in text
    assert "analytics_generations_open 1.0" in text
    assert "analytics_fallback_in_use 0.0" in text
    assert 'analytics_refused_total{code="invalid_parameter"} 1.0' in text
    assert "analytics_data_age_seconds" in text


def test_every_request_is_logged_as_one_line_of_json(store, capsys):
    client, _ = open_api(parquet_dir=store.root)
    client.get(f"{QUERY}?limit=1", headers={**bearer(2), "X-Request-Id": "mine-1"})
    client.get("/no/such/path", headers={"X-Request-Id": "not an id"})
    client.get("/health/ready")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found, lost = [line for line in lines if line["event"] == "request"]
    assert found["request_id"] == "mine-1"
    assert found["route"] == "/api/analytics/datasets/{dataset_id}/query"
    assert (found["status"], found["user_id"], found["snapshot"]) == (200, 2, store.current_id())
    assert (lost["status"], lost["error_code"], lost["user_id"]) == (404, "not_found", None)
    assert lost["request_id"] != "not an id"


def test_a_request_keeps_the_id_it_came_with(client):
    assert client.get("/health/live", headers={"X-Request-Id": "mine-2"}).headers["x-request-id"] == "mine-2"
    assert len({client.get("/health/live").headers["x-request-id"] for _ in range(2)}) == 2


def test_openapi_is_true(client):
    """What is documented is what comes: shapes by their models, statuses by the paths."""
    paths = client.get("/openapi.json").json()["paths"]
    answers = {
        "/api/analytics/datasets": (models.DatasetList, client.get("/api/analytics/datasets", headers=bearer(1))),
        "/api/analytics/datasets/{dataset_id}": (
            models.DatasetInfo,
            client.get("/api/analytics/datasets/dim_categories", headers=bearer(1)),
        ),
        "/api/analytics/datasets/{dataset_id}/query": (models.QueryResult, client.get(QUERY, headers=bearer(1))),
        "/api/analytics/query": (
            models.QueryResults,
            client.post("/api/analytics/query", json={"queries": [{"dataset": "dim_categories"}]}, headers=bearer(1)),
        ),
    }
    for path, (model, response) in answers.items():
        (operation,) = paths[path].values()
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model.__name__}"}
        assert list(response.json()) == list(model.model_fields) or model is models.QueryResults
        assert set(response.json()) == set(model.model_fields)
        model.model_validate(response.json())
        assert operation["security"] == [{"HTTPBearer": []}, {"APIKeyCookie": []}]
        assert {"200", "401", "403", "503", "default"} <= set(operation["responses"])
        assert "X-Snapshot-Id" in operation["responses"]["200"]["headers"]
    documented = {
        parameter["name"] for parameter in paths[QUERY.replace("fct_transactions", "{dataset_id}")]["get"]["parameters"]
    }
    assert documented == {
        *("dataset_id", "select", "order", "limit", "offset", "format", "snapshot", "cursor", "filters", "Prefer")
    }
