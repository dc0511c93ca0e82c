"""Signing in by cookie, as the page does."""

from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import jwt
import pytest

from backend import auth

from .api import QUERY, SECRET, assert_error, bearer

HOUR = 3600


def token(user_id=1, seconds=HOUR):
    return auth.issue(SECRET, user_id=user_id, ttl=timedelta(seconds=seconds))


def sign_in(client, user_id=1, **options):
    return client.post("/session", json={"token": token(user_id)}, **options)


def cookie(response):
    return SimpleCookie(response.headers["set-cookie"])[auth.COOKIE]


def seen(response):
    return {row["user_id"] for row in response.json()["rows"]}


def test_who_signed_in_sees_their_rows_until_they_sign_out(client):
    assert sign_in(client, 2).json() == {"user_id": 2, "all_rows": False}
    assert client.get("/session").json() == {"user_id": 2, "all_rows": False}
    assert seen(client.get(QUERY)) == {2}
    assert seen(client.get(f"{QUERY}?user_id=eq.1")) == set()
    assert client.post("/api/analytics/query", json={"queries": [{"dataset": "dim_categories"}]}).status_code == 200
    assert client.delete("/session").status_code == 204
    assert_error(client.get(QUERY), 401, "unauthorized")
    assert_error(client.get("/session"), 401, "unauthorized")


def test_scripts_and_other_sites_can_not_use_the_cookie_and_it_ends_with_its_token(client):
    before = datetime.now(UTC)
    set_cookie = cookie(sign_in(client))
    assert set_cookie["httponly"]
    assert set_cookie["samesite"] == "strict"
    assert set_cookie["path"] == "/"
    assert not set_cookie["domain"]
    expires = datetime.fromtimestamp(jwt.decode(set_cookie.value, options={"verify_signature": False})["exp"], UTC)
    assert 0 < int(set_cookie["max-age"]) <= (expires - before).total_seconds() <= HOUR


@pytest.mark.parametrize(
    ("scheme", "forwarded", "secure"), [("http", None, False), ("https", None, True), ("http", "https", True)]
)
def test_the_cookie_of_a_request_over_tls_is_never_sent_without(client, scheme, forwarded, secure):
    client.base_url = f"{scheme}://testserver"
    headers = {"X-Forwarded-Proto": forwarded} if forwarded else {}
    assert bool(cookie(sign_in(client, headers=headers))["secure"]) == secure
    assert bool(cookie(client.delete("/session", headers=headers))["secure"]) == secure


def test_a_header_wins_over_the_cookie_and_a_bad_one_too(client):
    sign_in(client, 1)
    assert seen(client.get(QUERY, headers=bearer(2))) == {2}
    for header in ("", "Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz"):
        assert_error(client.get(QUERY, headers={"Authorization": header}), 401, "unauthorized")


def test_a_cookie_that_is_no_token_lets_nobody_in(client):
    for value in ("", "nonsense", token(seconds=-HOUR), jwt.encode({"sub": "1", "exp": 4102444800}, "x" * 32)):
        client.cookies.clear()
        client.cookies.set(auth.COOKIE, value)
        assert_error(client.get(QUERY), 401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"token": "no.token.atall"}, 401, "unauthorized"),
        ({"token": auth.issue(SECRET, user_id=1, ttl=timedelta(hours=-1))}, 401, "unauthorized"),
        ({"token": jwt.encode({"sub": "admin", "exp": 4102444800}, SECRET)}, 403, "forbidden"),
        ({"token": jwt.encode({"sub": "1", "exp": 4102444800, "pad": "x" * 4000}, SECRET)}, 422, "invalid_request"),
        ({"token": "a;b"}, 422, "invalid_request"),
        ({"token": ""}, 422, "invalid_request"),
        ({"token": None}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ({"token": "good.in.itself", "more": 1}, 422, "invalid_request"),
    ],
)
def test_what_signs_nobody_in(client, body, status, code):
    response = client.post("/session", json=body)
    assert_error(response, status, code)
    assert "set-cookie" not in response.headers
    assert not (body.get("token") and body["token"] in response.text)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_of_another_site_signs_nobody_in(client, kind):
    body = f'{{"token": "{token()}"}}'.encode()
    response = client.post("/session", content=body, headers={"Content-Type": kind} if kind else {})
    assert_error(response, 422, "invalid_request")
    assert "set-cookie" not in response.headers
    assert sign_in(client).status_code == 200  # the same, declared as what it is


def test_a_token_is_neither_logged_nor_kept_by_anybody_on_the_way(client, capsys):
    response = sign_in(client)
    assert response.headers["cache-control"] == "no-store"
    assert client.get("/session").headers["cache-control"] == "no-store"
    assert cookie(response).value not in capsys.readouterr().out
