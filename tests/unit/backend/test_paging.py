import base64
import json

import pytest

from .api import QUERY, assert_error, bearer, open_api
from .marts import ROWS_PER_USER, publish, transactions, write_file


def pages(client, parameters, headers, *, between=lambda: None):
    """Every page, following ``next``; ``between`` happens after each."""
    answer = client.get(f"{QUERY}?{parameters}", headers=headers).json()
    yield answer
    while answer["next"]:
        between()
        answer = client.get(QUERY, params={"cursor": answer["next"]}, headers=headers).json()
        yield answer


def ids(answers):
    return [row["transaction_id"] for answer in answers for row in answer["rows"]]


@pytest.mark.parametrize("limit", [1, 7, ROWS_PER_USER - 1, ROWS_PER_USER, ROWS_PER_USER + 1])
@pytest.mark.parametrize("order", ["", "&order=amount.desc", "&order=description"])
def test_pages_add_up_to_the_whole_in_its_order(any_client, limit, order):
    whole = any_client.get(f"{QUERY}?limit=1000{order}", headers=bearer(1)).json()
    answers = list(pages(any_client, f"limit={limit}{order}", bearer(1)))
    assert ids(answers) == ids([whole])
    assert len(set(ids(answers))) == ROWS_PER_USER
    assert [answer["row_count"] for answer in answers[:-1]] == [limit] * (len(answers) - 1)
    assert answers[-1]["row_count"] >= 1


def test_without_order_rows_come_as_the_mart_was_written(any_client):
    answer = any_client.get(f"{QUERY}?limit=1000", headers=bearer(1)).json()
    assert ids([answer]) == [row.transaction_id for row in transactions(1) if row.user_id == 1]


def test_a_cursor_keeps_select_filter_and_first_offset(any_client):
    parameters = "select=transaction_id&amount=eq.106.25&limit=2&offset=1"
    answers = list(pages(any_client, parameters, bearer(1)))
    assert ids(answers) == [1013, 1020, 1027, 1034]
    assert [list(row) for answer in answers for row in answer["rows"]] == [["transaction_id"]] * 4


def test_paging_across_publishes_stays_on_its_snapshot(store, client):
    generation = iter(range(2, 100))
    snapshot = store.current_id()
    answers = list(pages(client, "limit=9", bearer(1), between=lambda: publish(store, next(generation))))
    assert len(answers) == 5
    assert ids(answers) == [row.transaction_id for row in transactions(1) if row.user_id == 1]
    assert {row["generation"] for answer in answers for row in answer["rows"]} == {1}
    assert {answer["snapshot"] for answer in answers} == {snapshot}
    assert client.get(QUERY, headers=bearer(1)).json()["rows"][0]["generation"] == 5


def test_a_cursor_whose_file_was_built_again(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    token = client.get(f"{QUERY}?limit=1", headers=bearer(1)).json()["next"]
    write_file(duckdb_file, 2)
    assert_error(client.get(QUERY, params={"cursor": token}, headers=bearer(1)), 410, "snapshot_gone")


def test_a_cursor_of_the_file_ends_with_the_first_snapshot(store, duckdb_file, tmp_path):
    client, _ = open_api(parquet_dir=tmp_path / "empty", duckdb_path=duckdb_file)
    token = client.get(f"{QUERY}?limit=1", headers=bearer(1)).json()["next"]
    store.root.rename(tmp_path / "empty")
    assert_error(client.get(QUERY, params={"cursor": token}, headers=bearer(1)), 410, "snapshot_gone")


def test_a_cursor_shows_whoever_uses_it_their_own_rows(any_client):
    token = any_client.get(f"{QUERY}?limit=5", headers=bearer(all_rows=True)).json()["next"]
    rows = any_client.get(QUERY, params={"cursor": token}, headers=bearer(2)).json()["rows"]
    assert {row["user_id"] for row in rows} == {2}


def test_parameters_beside_a_cursor_must_be_its_own(client):
    asked = {"select": "amount,transaction_id", "order": "amount", "limit": "3", "amount": "eq.106.25"}
    first = client.get(QUERY, params=asked, headers=bearer(1)).json()
    beside = {**asked, "cursor": first["next"], "snapshot": first["snapshot"]}
    assert client.get(QUERY, params=beside, headers=bearer(1)).json()["row_count"] == 2
    for name, value in {**dict.fromkeys(asked, "eq.1"), "offset": "3", "snapshot": "other"}.items():
        response = client.get(QUERY, params={**beside, name: value}, headers=bearer(1))
        assert repr(name) in assert_error(response, 400, "invalid_parameter")["message"]
    other = "/api/analytics/datasets/dim_categories/query"
    response = client.get(other, params={"cursor": first["next"]}, headers=bearer(1))
    assert "'cursor'" in assert_error(response, 400, "invalid_parameter")["message"]


def test_any_changed_letter_makes_a_cursor_invalid(client):
    token = client.get(f"{QUERY}?limit=1", headers=bearer(1)).json()["next"]
    changed = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(0, len(token), 5)]
    for text in [
        *changed,
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token[:-1],
        token + "A",
        token + "=",
        "",
        "é",
    ]:
        response = client.get(QUERY, params={"cursor": text}, headers=bearer(1))
        assert_error(response, 400, "invalid_cursor")


def test_a_home_made_cursor_is_refused(client):
    payload = {"dataset": "fct_transactions", "params": {}, "snapshot": None, "as_of": "", "offset": 0}
    for head in (b"", b"\0" * 16):
        token = base64.urlsafe_b64encode(head + json.dumps(payload).encode()).rstrip(b"=").decode()
        assert_error(client.get(QUERY, params={"cursor": token}, headers=bearer(1)), 400, "invalid_cursor")


def test_a_cursor_continues_in_a_request_of_many(store, client):
    first = client.get(f"{QUERY}?limit=39", headers=bearer(1)).json()
    publish(store, 2)
    body = {"queries": [{"dataset": "fct_transactions", "cursor": first["next"]}, {"dataset": "dim_categories"}]}
    answer = client.post("/api/analytics/query", json=body, headers=bearer(1)).json()
    assert ids(answer["results"][:1]) == [1039]
    assert answer["snapshot"] == first["snapshot"]
    assert {result["rows"][0]["generation"] for result in answer["results"]} == {1}
