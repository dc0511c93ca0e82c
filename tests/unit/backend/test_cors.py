"""Pages of other origins: refused, unless their origin is listed."""

import pytest
from pydantic import ValidationError

from backend.config import Settings

from .api import QUERY, assert_error, bearer, open_api

OURS, OTHER = "https://app.example.org", "https://other.example.org"
ASKED = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization, traceparent"}


@pytest.fixture
def client(store):
    client, _ = open_api(parquet_dir=store.root, cors_origins=f"{OURS}, http://localhost:5173")
    return client


def allowing(response):
    return {name for name in response.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [OURS, "null", "https://evil.example.org"])
def test_closed_by_default(store, origin):
    client, _ = open_api(parquet_dir=store.root)
    for response in (
        client.options(QUERY, headers={"Origin": origin, **ASKED}),
        client.get(QUERY, headers={"Origin": origin, **bearer(1)}),
        client.get(QUERY, headers={"Origin": origin}),
    ):
        assert allowing(response) == set()


@pytest.mark.parametrize("origin", [OURS, "http://localhost:5173"])
def test_a_listed_origin_may_ask_and_read(client, origin):
    preflight = client.options(QUERY, headers={"Origin": origin, **ASKED})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert {"authorization", "prefer", "traceparent"} <= {
        name.strip().lower() for name in preflight.headers["access-control-allow-headers"].split(",")
    }
    answer = client.get(QUERY, headers={"Origin": origin, **bearer(1)})
    assert answer.status_code == 200
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"X-Snapshot-Id", "X-Request-Id", "ETag", "Content-Range", "traceparent"} <= exposed
    for response in (preflight, answer):
        assert response.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]


def test_a_listed_origin_may_read_errors_too(client, monkeypatch):
    refused = client.get(QUERY, headers={"Origin": OURS})
    assert_error(refused, 401, "unauthorized")

    def read(*_):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(client.app.state.database, "read", read)
    broken = client.get(QUERY, headers={"Origin": OURS, **bearer(1)})
    assert_error(broken, 500, "internal_error")
    for response in (refused, broken):
        assert response.headers["access-control-allow-origin"] == OURS


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER, **ASKED},
        {"Origin": "null", **ASKED},
        {"Origin": f"{OURS}.evil.org", **ASKED},
        {"Origin": OURS.replace("https", "http"), **ASKED},
        {"Origin": OURS, **ASKED, "Access-Control-Request-Method": "DELETE"},
        {"Origin": OURS, **ASKED, "Access-Control-Request-Headers": "x-other"},
    ],
)
def test_whoever_and_whatever_is_not_listed_is_refused(client, headers):
    response = client.options(QUERY, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "cors_refused"
    if headers["Origin"] != OURS:
        assert "access-control-allow-origin" not in response.headers
        answer = client.get(QUERY, headers={"Origin": headers["Origin"], **bearer(1)})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origins", ["*", "https://*.example.org", f"{OURS}/", f"{OURS}/app", "app.example.org", "null", "HTTPS://A.org"]
)
def test_what_is_no_origin_is_refused_at_start(origins):
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=origins)


def test_the_variable_lists_origins(monkeypatch):
    monkeypatch.setenv("API_CORS_ORIGINS", f" {OURS} ,http://[::1]:8080,")
    assert Settings().cors_origins == (OURS, "http://[::1]:8080")
    monkeypatch.setenv("API_CORS_ORIGINS", "")
    assert Settings().cors_origins == ()
