import base64
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from typer.testing import CliRunner

from backend import auth
from backend.app import create_app
from backend.errors import ConfigError
from tests.e2e.stack import wait_for

from .api import QUERY, SECRET, assert_error, open_api

SOON = datetime(2100, 1, 1, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC)


def signed(secret=SECRET, algorithm="HS256", **claims):
    return "Bearer " + jwt.encode(claims, secret, algorithm=algorithm)


def unsigned(**claims):
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return (
        "Bearer "
        + ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)
        + "."
    )


def forged():
    """A good token whose subject was changed afterwards."""
    head, _, signature = signed(sub="1", exp=SOON).split(".")
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "2", "exp": 4102444800}).encode()).rstrip(b"=").decode()
    return f"{head}.{claims}.{signature}"


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (None, 401, "unauthorized"),
        ("", 401, "unauthorized"),
        ("Basic dXNlcjpwYXNz", 401, "unauthorized"),
        ("Bearer", 401, "unauthorized"),
        ("Bearer nonsense", 401, "unauthorized"),
        (signed(sub="1", exp=PAST), 401, "unauthorized"),
        (signed(sub="1"), 401, "unauthorized"),
        (signed(exp=SOON), 401, "unauthorized"),
        (signed(sub=None, exp=SOON), 401, "unauthorized"),
        (signed(sub="1", exp=SOON, nbf=SOON), 401, "unauthorized"),
        (signed(sub="1", exp=SOON, aud="elsewhere"), 401, "unauthorized"),
        (signed("another-secret-that-is-long-enough-too", sub="1", exp=SOON), 401, "unauthorized"),
        (signed(SECRET * 2, "HS512", sub="1", exp=SOON), 401, "unauthorized"),
        (unsigned(sub="1", exp=4102444800), 401, "unauthorized"),
        (forged(), 401, "unauthorized"),
        (signed(sub="admin", exp=SOON), 403, "forbidden"),
        (signed(sub="-1", exp=SOON), 403, "forbidden"),
        (signed(sub="1 OR 1=1", exp=SOON), 403, "forbidden"),
        (signed(sub="٣", exp=SOON), 403, "forbidden"),
    ],
)
@pytest.mark.parametrize("path", ["/api/analytics/datasets", QUERY])
def test_who_is_not_let_in(client, path, header, status, code):
    response = client.get(path, headers={} if header is None else {"Authorization": header})
    assert_error(response, status, code)
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "x-snapshot-id" not in response.headers


def test_every_analytics_endpoint_asks_for_a_token(client):
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method in operations:
            response = client.request(method, path.replace("{dataset_id}", "dim_categories"), json={"queries": []})
            assert (response.status_code == 401) == (path.startswith("/api/") or (path, method) == ("/session", "get"))


@pytest.mark.parametrize(
    ("scope", "users"),
    [
        ("analytics:all", {1, 2, 3}),
        ("openid analytics:all", {1, 2, 3}),
        ("analytics:allx", {2}),
        ("analytics", {2}),
        (["analytics:all"], {2}),
        (None, {2}),
    ],
)
def test_only_the_operators_scope_widens_what_is_seen(client, scope, users):
    header = {"Authorization": signed(sub="2", exp=SOON, scope=scope)}
    rows = client.get(f"{QUERY}?limit=1000", headers=header).json()["rows"]
    assert {row["user_id"] for row in rows} == users


def test_a_numeric_subject_is_a_user_id_too(client):
    header = {"Authorization": signed(sub="3", exp=SOON)}
    rows = client.get(QUERY, headers=header).json()["rows"]
    token = jwt.api_jws.encode(json.dumps({"sub": 3, "exp": 4102444800}).encode(), SECRET, algorithm="HS256")
    assert client.get(QUERY, headers={"Authorization": f"Bearer {token}"}).json()["rows"] == rows


def test_a_token_that_was_good_is_refused_once_it_expires(client):
    header = {"Authorization": signed(sub="1", exp=datetime.now(UTC) - timedelta(seconds=auth._LEEWAY_SECONDS - 2))}
    assert client.get(QUERY, headers=header).status_code == 200
    wait_for(lambda: client.get(QUERY, headers=header).status_code == 401, "it has expired", seconds=30)


def test_what_was_found_of_one_token_says_nothing_of_another_like_it(client):
    good = signed(sub="1", exp=SOON)
    assert client.get(QUERY, headers={"Authorization": good}).status_code == 200
    head, claims, _ = good.split(".")
    for other in (f"{head}.{claims}.", f"{head}.{claims}.AAAA", f"{good}A", good[:-4] + "AAAA", forged()):
        assert_error(client.get(QUERY, headers={"Authorization": other}), 401, "unauthorized")


@pytest.mark.parametrize("content", [None, "", "\n", "too short"])
def test_an_unfit_secret_is_refused_at_start(tmp_path, monkeypatch, content):
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    if content is not None:
        (tmp_path / "jwt_secret").write_text(content)
    with pytest.raises(ConfigError) as error:
        create_app()
    assert str(tmp_path) in error.value.message
    assert error.value.hint
    result = CliRunner().invoke(auth.cli, ["token", "--user-id", "1"])
    assert result.exit_code == 1
    assert str(tmp_path) in result.output


def test_the_command_prints_a_token_that_works(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    (tmp_path / "jwt_secret").write_text(SECRET + "\n")
    client, _ = open_api(parquet_dir=store.root)
    for arguments, users in (([], {2}), (["--all"], {1, 2, 3})):
        result = CliRunner().invoke(auth.cli, ["token", "--user-id", "2", "--ttl", "60", *arguments])
        token = result.stdout.strip()
        rows = client.get(f"{QUERY}?limit=1000", headers={"Authorization": f"Bearer {token}"}).json()["rows"]
        assert {row["user_id"] for row in rows} == users
        lifetime = jwt.decode(token, SECRET, algorithms=["HS256"])
        assert lifetime["exp"] - lifetime["iat"] == timedelta(minutes=1).total_seconds()
