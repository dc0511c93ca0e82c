"""Answers that are kept are those that would be made: never another's or an older one's, nor more than have room."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import auth
from backend.api.analytics import endpoints, sql
from backend.api.problems import ApiError
from backend.duckdb.client import Database
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import QUERY, SECRET, assert_error, bearer, open_api
from .listening import add_long, listening
from .marts import publish

MANY = "/api/analytics/query"
OF_THE_REQUEST = {"x-request-id", "traceparent"}


def noted(monkeypatch, module, name):
    """What the module's function is called with from now on."""
    calls, function = [], getattr(module, name)

    def noting(*arguments):
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(module, name, noting)
    return calls


@pytest.fixture(autouse=True)
def every_answer_asks_for_documents(monkeypatch):
    """Rows are kept nowhere, so that queries can be counted, and held back, in one place."""
    monkeypatch.setattr(Database, "keep_rows", lambda *_: None)


@pytest.fixture
def asked(monkeypatch):
    """The queries of rows that were made so far."""
    return noted(monkeypatch, sql, "documents")


def shown(response, *, without=()):
    headers = {k: v for k, v in response.headers.items() if k not in OF_THE_REQUEST | set(without)}
    return response.status_code, headers, response.content


@pytest.mark.parametrize("path", ["", "?limit=1", "?select=amount.sum()&order=sum", "?description=like.*row*"])
def test_the_same_question_is_answered_once(client, asked, path):
    first, again = (client.get(QUERY + path, headers=bearer(1)) for _ in range(2))
    client.get(QUERY + path, headers=bearer(1))
    assert shown(first) == shown(again)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    # The first one came before the snapshot was open, when nobody could tell what it would be an answer on.
    assert len(asked) <= 2


def test_a_batch_is_answered_once_and_another_batch_is_another(client, asked):
    bodies = [{"queries": [{"dataset": "fct_transactions", "limit": limit}]} for limit in (2, 3)]
    client.get(QUERY, headers=bearer(1))
    asked.clear()
    for body, _ in itertools.product(bodies, range(3)):
        answer = client.post(MANY, json=body, headers=bearer(1)).json()
        assert len(answer["results"][0]["rows"]) == body["queries"][0]["limit"]
    assert len(asked) == 2


def test_errors_are_not_kept(client, asked, monkeypatch):
    client.get(QUERY, headers=bearer(1))
    with monkeypatch.context() as patch:
        patch.setattr(sql, "documents", lambda *_: (_ for _ in ()).throw(ApiError(503, "once", "a", hint="b")))
        assert_error(client.get(f"{QUERY}?limit=3", headers=bearer(1)), 503, "once")
    assert client.get(f"{QUERY}?limit=3", headers=bearer(1)).status_code == 200


def test_the_file_has_no_answers_to_keep(duckdb_file, asked):
    client, _ = open_api(duckdb_path=duckdb_file)
    for _ in range(3):
        client.get(QUERY, headers=bearer(1))
    assert len(asked) == 3


# --- never another's, nor an older one's ------------------------------------------------------------------------------
questions = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(
        ["limit=2", "limit=3", "offset=1", "select=amount.sum(),generation", "limit=2&format=csv", "limit=x"]
    ),
    st.sampled_from(["identity", "gzip"]),
    st.sampled_from(["", "count=exact"]),
)
steps = st.lists(
    st.one_of(questions, questions, questions, st.just("publish"), st.integers(0, 5).map(lambda back: ("back", back))),
    min_size=5,
    max_size=25,
)


def put(client, question, caller):
    method, parameters, coding, prefer = question
    headers = {**caller, "Accept-Encoding": coding}
    headers |= {"Prefer": prefer} if prefer else {}
    if method == "GET":
        return client.get(f"{QUERY}?{parameters}", headers=headers)
    query = {"dataset": "fct_transactions"} | dict(item.split("=") for item in parameters.split("&"))
    return client.post(MANY, json={"queries": [query]}, headers=headers)


@settings(max_examples=15, deadline=None)
@given(steps=steps)
def test_whatever_is_published_and_asked_answers_are_those_of_an_api_that_keeps_none(tmp_path_factory, steps):
    store = SnapshotStore(tmp_path_factory.mktemp("kept") / "parquet")
    ids, generations = [publish(store, 0).id], itertools.count(1)
    keeping, database = open_api(parquet_dir=store.root)
    making, other = open_api(parquet_dir=store.root, kept_answers=0)
    with keeping, making:
        for step in steps:
            if step == "publish":
                ids.append(publish(store, next(generations)).id)
            elif step[0] == "back":
                store.rollback(ids[-1 - step[1] % len(ids)], holder="test")
            else:
                # The tag and the cursors tell settings apart.
                for caller in (bearer(1), bearer(2), bearer(1, all_rows=True)):
                    expected = shown(put(making, step, caller), without=["etag"])
                    for _ in range(3):  # made, kept, and known by its bytes
                        assert shown(put(keeping, step, caller), without=["etag"]) == expected
        assert making.app.state.answers.size == 0
    database.close()
    other.close()


def test_a_kept_answer_is_of_no_later_snapshot_than_a_query_would_be(store, monkeypatch):
    """One that is pinned is open before it is the current one: who got its answer would go back with the next."""
    client, database = open_api(parquet_dir=store.root)
    with client:
        old, new = store.current_id(), publish(store, 2).id

        def asked(parameters):
            return client.get(f"{QUERY}?{parameters}", headers=bearer(1)).json()["snapshot"]

        assert [asked("limit=3") for _ in range(3)] == [new] * 3
        store.rollback(old, holder="test")
        assert asked("limit=3") == old
        assert asked(f"limit=3&snapshot={new}") == new
        store.rollback(new, holder="test")
        with database._generations._opening:  # as somebody does who opens the new one
            assert [asked(parameters) for parameters in ("limit=3", "limit=4")] == [old] * 2
        assert asked("limit=4") == new


# --- the same request again ------------------------------------------------------------------------------------------
ASKED = [
    {"method": "GET", "url": f"{QUERY}?limit=3"},
    {"method": "POST", "url": MANY, "json": {"queries": [{"dataset": "fct_transactions", "limit": 3}]}},
]


@pytest.fixture
def read(monkeypatch):
    """The requests whose parameters were read so far."""
    return noted(monkeypatch, endpoints, "read_request")


@pytest.mark.parametrize("request_", ASKED, ids=["GET", "POST"])
def test_a_request_that_came_before_is_known_by_its_bytes_and_reported_like_any_other(client, read, request_):
    headers = bearer(1)
    answers = [client.request(**request_, headers={**headers, "X-Request-Id": f"r{n}"}) for n in range(5)]
    assert len({answer.content for answer in answers}) == 1
    assert len(read) <= 2  # nobody can tell what the first one, which opens the snapshot, is an answer on
    assert [answer.headers["x-request-id"] for answer in answers] == [f"r{n}" for n in range(5)]
    metrics = client.get("/metrics").text
    assert 'analytics_dataset_requests_total{dataset="fct_transactions",status="200"} 5.0' in metrics
    read.clear()
    assert client.request(**request_, headers={**headers, "Accept-Encoding": "gzip"}).content == answers[0].content
    assert len(read) == 1


@pytest.mark.parametrize("request_", ASKED, ids=["GET", "POST"])
def test_a_token_that_expires_is_refused_although_its_request_is_known(client, request_):
    token = auth.issue(SECRET, user_id=1, ttl=timedelta(seconds=3 - auth._LEEWAY_SECONDS))
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(3):
        assert client.request(**request_, headers=headers).status_code == 200
    wait_for(lambda: client.request(**request_, headers=headers).status_code == 401, "it is refused", seconds=60)


def test_head_is_answered_as_before_where_its_get_is_known(client):
    for _ in range(3):
        expected = client.get(f"{QUERY}?limit=3", headers=bearer(1))
    found = client.head(f"{QUERY}?limit=3", headers=bearer(1))
    assert shown(found)[:2] == shown(expected)[:2]


# --- together ---------------------------------------------------------------------------------------------------------
def test_many_that_ask_the_same_at_once_wait_for_one_query(store, asked, monkeypatch):
    with listening(store) as api, ThreadPoolExecutor(8) as pool:
        api.get(QUERY)
        asked.clear()
        go, documents = threading.Event(), sql.documents
        monkeypatch.setattr(sql, "documents", lambda *query: go.wait(60) and documents(*query))
        before = api.app.state.answers.found
        answers = [pool.submit(api.get, f"{QUERY}?limit=7") for _ in range(8)]
        wait_for(lambda: api.app.state.answers.found == before + 7, "seven wait for the eighth", seconds=60)
        go.set()
        assert len({answer.result().content for answer in answers}) == 1
        assert {answer.result().status_code for answer in answers} == {200}
        assert len(asked) == 1


def test_who_waits_for_one_that_fails_asks_again(store, asked, monkeypatch):
    with listening(store) as api, ThreadPoolExecutor(3) as pool:
        api.get(QUERY)
        go, documents, failing = threading.Event(), sql.documents, iter([True])

        def at_first_failing(*query):
            go.wait(60)
            if next(failing, False):
                raise ApiError(503, "once", "it failed", hint="again")
            return documents(*query)

        monkeypatch.setattr(sql, "documents", at_first_failing)
        before = api.app.state.answers.found
        answers = [pool.submit(api.get, f"{QUERY}?limit=7") for _ in range(3)]
        wait_for(lambda: api.app.state.answers.found == before + 2, "two wait for the third", seconds=60)
        go.set()
        assert sorted(answer.result().status_code for answer in answers) == [200, 200, 503]


def test_who_waits_does_so_no_longer_than_for_a_query_of_ones_own(store, monkeypatch):
    with listening(store, statement_timeout_seconds=0.5) as api, ThreadPoolExecutor(2) as pool:
        api.get(QUERY)
        go, documents = threading.Event(), sql.documents
        monkeypatch.setattr(sql, "documents", lambda *query: go.wait(60) and documents(*query))
        answers = [pool.submit(api.get, f"{QUERY}?limit=7") for _ in range(2)]
        wait_for(lambda: any(answer.done() for answer in answers), "who waits is answered", seconds=60)
        go.set()
        assert {answer.result().status_code for answer in answers} == {504}


# --- room -------------------------------------------------------------------------------------------------------------
def test_there_is_room_for_so_much_and_the_last_ones_stay(store, asked):
    client, database = open_api(parquet_dir=store.root, kept_answers=100_000)
    with client:
        add_long(database, 10_000)
        for limit in range(1, 60):
            client.get(f"{QUERY}?limit={limit}", headers=bearer(1))
        answers = client.app.state.answers
        assert 50_000 < answers.size <= 100_000
        asked.clear()
        client.get(f"{QUERY}?limit=59", headers=bearer(1))
        assert len(asked) == 0
        client.get(f"{QUERY}?limit=2", headers=bearer(1))
        assert len(asked) == 1
        before = answers.size
        large = client.get("/api/analytics/datasets/long/query?limit=10000", headers=bearer(1))
        assert len(large.content) > 100_000
        assert answers.size == before


def test_a_large_answer_is_kept_when_it_is_asked_for_again(store, asked):
    client, _ = open_api(parquet_dir=store.root)
    plain, _ = open_api(parquet_dir=store.root, kept_answers=0)
    path, headers = "/api/analytics/datasets/long/query", bearer(1) | {"Accept-Encoding": "identity"}
    with client, plain:
        for api in (client, plain):
            add_long(api.app.state.database, 10_000)
        expected = plain.get(f"{path}?limit=5000", headers=headers)
        size = len(expected.content)
        asked.clear()
        for queries, kept in ((1, False), (2, True), (2, True)):
            found = client.get(f"{path}?limit=5000", headers=headers)
            assert shown(found, without=["etag"]) == shown(expected, without=["etag"])
            assert len(asked) == queries
            assert (client.app.state.answers.size > size) == kept
        client.get(f"{path}?limit=4000", headers=headers)
        assert client.app.state.answers.size < 1.5 * size


def test_a_page_that_is_kept_keeps_its_snapshot_for_the_next_page(store):
    client, database = open_api(parquet_dir=store.root)
    with client:
        client.get(f"{QUERY}?limit=100", headers=bearer(1))
        for _ in range(2):
            page = client.get(f"{QUERY}?limit=3", headers=bearer(1)).json()
        database._generations.holds.close()
        again = client.get(f"{QUERY}?limit=3", headers=bearer(1)).json()
        assert again == page
        publish(store, 2)
        assert store.retain(keep=1, minutes=0) == []
        following = client.get(f"{QUERY}?cursor={again['next']}", headers=bearer(1))
        assert following.json()["snapshot"] == page["snapshot"]
