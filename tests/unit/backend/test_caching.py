"""What answers say to caches, and how they are packed."""

import itertools

import pyarrow as pa
import pytest

from backend.api.analytics import sql

from .api import QUERY, assert_error, bearer, open_api
from .listening import add_long
from .marts import publish

MANY = "/api/analytics/query"
CACHED = ["/api/analytics/datasets", "/api/analytics/datasets/dim_categories", QUERY, f"{QUERY}?format=csv"]


@pytest.fixture
def plain(client):
    """The API asked by a client that takes nothing compressed."""
    client.headers["accept-encoding"] = "identity"
    return client


@pytest.mark.parametrize("path", CACHED)
def test_an_answer_that_the_client_has_is_not_sent_again(store, client, monkeypatch, path):
    first = client.get(path, headers=bearer(1))
    known = bearer(1) | {"If-None-Match": first.headers["etag"]}
    with monkeypatch.context() as patch:
        for statement in ("rows", "scan", "total", "count"):
            patch.setattr(sql, statement, lambda *_: pytest.fail("a query was run"))
        again = client.get(path, headers=known)
    assert again.status_code == 304
    assert again.content == b""
    for name in ("etag", "x-snapshot-id", "cache-control", "vary", "last-modified"):
        assert again.headers[name] == first.headers[name]
    assert "content-length" not in again.headers
    publish(store, 2)
    changed = client.get(path, headers=known)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("known", "status"),
    [('"other", {}', 304), ("W/{}", 304), ("*", 304), (' {} , "other"', 304), ('"other"', 200), ("", 200)],
)
def test_ways_to_say_what_is_known(client, known, status):
    tag = client.get(QUERY, headers=bearer(1)).headers["etag"]
    headers = bearer(1) | {"If-None-Match": known.format(tag)}
    assert client.get(QUERY, headers=headers).status_code == status


def test_whatever_makes_an_answer_another_one_has_another_tag(store):
    clients = [open_api(parquet_dir=store.root, default_limit=limit)[0] for limit in (7, 8)]
    callers = [bearer(1), bearer(2), bearer(1, all_rows=True)]
    paths = ["", "?limit=7", "?limit=8", "?offset=1", "?format=csv", "?format=arrow", "?order=amount"]
    codings = ["gzip", "zstd", "identity"]
    tags = {}
    for client, caller, path, coding in itertools.product(clients, callers, paths, codings):
        response = client.get(QUERY + path, headers=caller | {"Accept-Encoding": coding})
        assert tags.setdefault(response.headers["etag"], response.content) == response.content
    assert len(tags) == len(clients) * len(callers) * len(paths) * len(codings)


def test_the_same_question_has_the_same_tag_whatever_its_order(client):
    tags = {
        client.get(f"{QUERY}?{parameters}", headers=bearer(1)).headers["etag"]
        for parameters in ("limit=2&offset=1", "offset=1&limit=2")
    }
    assert len(tags) == 1


def test_the_current_state_is_asked_for_again_and_a_pinned_one_is_kept(store, client):
    current = client.get(f"{QUERY}?limit=1", headers=bearer(1))
    assert current.headers["cache-control"] == "private, no-cache"
    for pinned in ({"snapshot": store.current_id()}, {"cursor": current.json()["next"]}):
        response = client.get(QUERY, params=pinned, headers=bearer(1))
        assert response.headers["cache-control"] == "private, max-age=86400, immutable"
    for answer in (current, client.get(f"{QUERY}?format=csv", headers=bearer(1))):
        assert answer.headers["vary"] == "Authorization, Cookie, Accept, Accept-Encoding, Prefer"


def test_the_file_has_no_tag(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    for path in CACHED:
        response = client.get(path, headers=bearer(1) | {"If-None-Match": "*"})
        assert response.status_code == 200
        assert "etag" not in response.headers
        assert response.headers["cache-control"] == "private, no-cache"
    token = client.get(f"{QUERY}?limit=1", headers=bearer(1)).json()["next"]
    response = client.get(QUERY, params={"cursor": token}, headers=bearer(1))
    assert response.headers["cache-control"] == "private, no-cache"


def test_errors_and_batches_are_not_kept(client):
    error = client.get(f"{QUERY}?snapshot=gone", headers=bearer(1))
    assert_error(error, 410, "snapshot_gone")
    assert error.headers["cache-control"] == "no-store"
    batch = client.post(MANY, json={"queries": [{"dataset": "dim_categories"}]}, headers=bearer(1))
    assert "etag" not in batch.headers


def unpacked(response):
    if response.headers.get("content-encoding") == "zstd":
        return pa.CompressedInputStream(pa.BufferReader(response.content), "zstd").read()
    return response.content  # httpx has undone gzip


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("name", ["json", "csv", "arrow"])
def test_answers_are_compressed_as_the_client_likes(plain, coding, name):
    add_long(plain.app.state.database, 100_000)
    path = f"/api/analytics/datasets/long/query?format={name}&limit=10000"
    whole = plain.get(path, headers=bearer(1))
    packed = plain.get(path, headers=bearer(1) | {"Accept-Encoding": f"{coding}, br"})
    assert "content-encoding" not in whole.headers
    assert packed.headers["content-encoding"] == coding
    assert unpacked(packed) == whole.content
    assert packed.num_bytes_downloaded < len(whole.content) / 2


def test_a_batch_is_compressed_too(plain):
    body = {"queries": [{"dataset": "fct_transactions"}]}
    whole = plain.post(MANY, json=body, headers=bearer(1))
    packed = plain.post(MANY, json=body, headers=bearer(1) | {"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == whole.json()


def test_what_gains_nothing_is_not_compressed(client):
    for path in (f"{QUERY}?format=parquet", f"{QUERY}?limit=1", f"{QUERY}?limit=1&format=csv"):
        response = client.get(path, headers=bearer(1) | {"Accept-Encoding": "gzip, zstd"})
        assert "content-encoding" not in response.headers, path
