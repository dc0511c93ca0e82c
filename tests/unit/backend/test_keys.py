"""Whose signature is believed: keys of a file, keys of a URL, and several of each while they are rotated."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from backend import auth, jwks
from backend.app import create_app
from backend.config import Settings
from backend.duckdb.client import Database
from backend.errors import ConfigError

from .api import QUERY, SECRET, assert_error, bearer, open_api
from .published import SOON, jwk, private_key, provider, signed
from .published import jwks as published

OLD, NEW = f"old-{SECRET}", f"new-{SECRET}"


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(directory))
    return directory


@pytest.fixture
def start(store, secrets):
    """``start()``: the API with what lies in the secrets' directory, as a replica of its own."""

    def start(**options):
        limits = Settings(**options)
        return TestClient(
            create_app(settings=limits, database=Database(limits, parquet_dir=store.root, duckdb_path=None))
        )

    return start


@pytest.fixture
def client(start, secrets):
    """Knows one secret, one RSA key and one EC key."""
    (secrets / "jwt_secret").write_text(SECRET)
    (secrets / "jwks").write_text(json.dumps(published("rsa-1", "ec-1")))
    return start()


def users(client, headers):
    answer = client.get(f"{QUERY}?limit=1000&select=user_id", headers=headers)
    assert answer.status_code == 200, answer.text
    return {row["user_id"] for row in answer.json()["rows"]}


def refused(client, headers):
    response = client.get(QUERY, headers=headers)
    assert_error(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_the_challenge_says_what_is_wrong_with_the_token(client):
    challenges = {
        None: "Bearer",
        "Bearer x": 'Bearer error="invalid_token"',
        signed("rsa-1", sub="nobody")["Authorization"]: 'Bearer error="insufficient_scope"',
    }
    for header, challenge in challenges.items():
        response = client.get(QUERY, headers={"Authorization": header} if header else {})
        assert response.status_code == (403 if "scope" in challenge else 401)
        assert response.headers["www-authenticate"] == challenge


# --- keys of a file ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["rsa-1", "ec-1"])
def test_a_published_key_is_as_good_as_a_secret(client, name):
    assert users(client, signed(name, sub="2")) == {2}
    assert users(client, signed(name, scope="analytics:all")) == {1, 2, 3}
    assert users(client, bearer(3)) == {3}


def forged_with(secret, **headers):
    """Signed with what everybody knows, as if it were a secret."""
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", **headers}).encode())
    body = jwt.utils.base64url_encode(json.dumps({"sub": "1", "exp": 4102444800}).encode())
    algorithm = jwt.get_algorithm_by_name("HS256")
    signature = jwt.utils.base64url_encode(algorithm.sign(head + b"." + body, secret))
    return {"Authorization": "Bearer " + b".".join([head, body, signature]).decode()}


def public(name, encoding, form=PublicFormat.SubjectPublicKeyInfo):
    return private_key(name).public_key().public_bytes(encoding, form)


def unsigned(**headers):
    parts = [{"typ": "JWT", **headers}, {"sub": "1", "exp": 4102444800}]
    encoded = [jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts]
    return {"Authorization": f"Bearer {'.'.join(encoded)}."}


MINE = "rsa-mine"  # a key that nobody published
FORGERIES = {
    "the public key as a secret, PEM": lambda: forged_with(public("rsa-1", Encoding.PEM), kid="rsa-1"),
    "the public key as a secret, PEM, stripped": lambda: forged_with(public("rsa-1", Encoding.PEM).strip()),
    "the public key as a secret, PKCS 1": lambda: forged_with(public("rsa-1", Encoding.PEM, PublicFormat.PKCS1)),
    "the public key as a secret, DER": lambda: forged_with(public("rsa-1", Encoding.DER), kid="rsa-1"),
    "the public key as a secret, JWK": lambda: forged_with(json.dumps(jwk("rsa-1")).encode(), kid="rsa-1"),
    "the modulus as a secret": lambda: forged_with(jwt.utils.base64url_decode(jwk("rsa-1")["n"]), kid="rsa-1"),
    "the EC key as a secret": lambda: forged_with(public("ec-1", Encoding.PEM), kid="ec-1"),
    "an empty secret": lambda: forged_with(b"", kid="rsa-1"),
    "none": lambda: unsigned(alg="none", kid="rsa-1"),
    "None": lambda: unsigned(alg="None", kid="rsa-1"),
    "no algorithm": lambda: unsigned(kid="rsa-1"),
    "RS256 without a signature": lambda: unsigned(alg="RS256", kid="rsa-1"),
    "another key under its kid": lambda: signed("rsa-1", key=private_key(MINE)),
    "a key of another kind under its kid": lambda: signed("rsa-1", key=private_key("ec-1"), algorithm="ES256"),
    "its key under another kid": lambda: signed("ec-1", key=private_key("rsa-1"), algorithm="RS256"),
    "another algorithm with its key": lambda: signed("rsa-1", algorithm="PS256"),
    "a longer hash with its key": lambda: signed("rsa-1", algorithm="RS512"),
    "an unknown kid": lambda: signed(MINE),
    "an empty kid": lambda: signed("rsa-1", headers={"kid": ""}),
    "a path as kid": lambda: signed("rsa-1", headers={"kid": "../../../dev/null"}),
    "its own jwk": lambda: signed("rsa-1", key=private_key(MINE), headers={"jwk": jwk(MINE, kid="rsa-1")}),
    "its own jwk and no kid": lambda: signed(MINE, headers={"jwk": jwk(MINE)}),
    "its own certificate": lambda: signed(MINE, headers={"x5c": ["MIIB"], "x5u": "https://127.0.0.1/c"}),
    "an unknown crit": lambda: signed("rsa-1", headers={"crit": ["exp"], "exp": 4102444800}),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forgery_is_refused(client, how):
    refused(client, FORGERIES[how]())


def test_a_token_must_say_which_published_key_it_is_signed_with(client):
    token = jwt.encode({"sub": "1", "exp": SOON}, private_key("rsa-1"), algorithm="RS256")
    refused(client, {"Authorization": f"Bearer {token}"})


def test_a_url_in_a_token_is_never_asked(client):
    with provider(published(MINE)) as mine:
        for header in ("jku", "x5u"):
            refused(client, signed(MINE, headers={header: mine.url}))
            refused(client, signed("rsa-1", key=private_key(MINE), headers={header: mine.url}))
    assert mine.asked == 0


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
header_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c"])
heads = st.dictionaries(
    header_names, st.one_of(json_values, st.sampled_from(["HS256", "RS256", "ES256", "rsa-1", "ec-1"]))
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=heads, body=json_values, signature=st.binary(max_size=80))
def test_whatever_is_sent_as_a_token_is_refused(client, head, body, signature):
    encoded = [jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (head, body)]
    token = b".".join([*encoded, jwt.utils.base64url_encode(signature)]).decode()
    refused(client, {"Authorization": f"Bearer {token}"})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(claims=st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "scope"]), json_values))
def test_whatever_a_signed_token_claims_is_no_servers_error(client, claims):
    token = jwt.api_jws.encode(json.dumps({"exp": 4102444800, **claims}).encode(), SECRET, algorithm="HS256")
    assert client.get(QUERY, headers={"Authorization": f"Bearer {token}"}).status_code in (200, 401, 403)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"keys": {}}', "PyJWKSetError"),
        ({"keys": [{"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "a"}]}, "1 keys, 0 of them usable"),
        ({"keys": [jwk("rsa-1"), jwk("rsa-2", kid=None)]}, "2 keys, 1 of them usable"),
        ({"keys": [jwk("rsa-1"), jwk("rsa-2", use="enc")]}, "2 keys, 1 of them usable"),
        ({"keys": [jwk("rsa-1"), jwk("rsa-2", alg="RS512")]}, "2 keys, 1 of them usable"),
        ({"keys": [jwk("rsa-1"), jwk("rsa-small")]}, "2 keys, 1 of them usable"),
        ({"keys": [jwk("rsa-1"), {"kty": "unknown", "kid": "a"}]}, "2 keys, 1 of them usable"),
        ({"keys": [jwk("rsa-1", key=private_key("rsa-1"))]}, "1 keys, 0 of them usable"),
    ],
)
def test_an_unfit_jwks_is_refused_at_start(start, secrets, content, says):
    (secrets / "jwt_secret").write_text(SECRET)
    (secrets / "jwks").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as error:
        start()
    assert says in error.value.message
    assert str(secrets / "jwks") in error.value.message


@pytest.mark.parametrize("name", ["rsa-1", "ec-1"])
def test_a_public_key_is_no_secret(start, secrets, name):
    for text in (public(name, Encoding.PEM).decode(), public(name, Encoding.OpenSSH, PublicFormat.OpenSSH).decode()):
        (secrets / "jwt_secret").write_text(text)
        with pytest.raises(ConfigError, match="jwt_secret"):
            start()
    (secrets / "jwt_secret").write_text(json.dumps(jwk(name)))
    with pytest.raises(ConfigError, match="not a random secret"):
        start()


def test_an_empty_set_of_keys_is_none(start, secrets):
    (secrets / "jwks").write_text('{"keys": []}')
    with pytest.raises(ConfigError, match="jwt_secret"):
        start()
    (secrets / "jwt_secret").write_text(SECRET)
    client = start()
    assert users(client, bearer(1)) == {1}
    refused(client, signed("rsa-1"))


# --- without a secret -------------------------------------------------------------------------------------------------
def test_without_a_secret_cursors_have_one_of_their_own(start, secrets):
    (secrets / "jwks").write_text(json.dumps(published("rsa-1")))
    with pytest.raises(ConfigError, match="cursor_secret") as error:
        start()
    assert "same for all replicas" in error.value.hint
    (secrets / "cursor_secret").write_text(NEW)
    one, other = start(), start()
    refused(one, forged_with(NEW.encode()))
    refused(one, bearer(1))
    cursor = one.get(f"{QUERY}?limit=39", headers=signed("rsa-1")).json()["next"]
    assert other.get(QUERY, params={"cursor": cursor}, headers=signed("rsa-1")).json()["row_count"] == 1


# --- rotation ---------------------------------------------------------------------------------------------------------
def hs256(secret):
    return {"Authorization": f"Bearer {auth.issue(secret, user_id=1, ttl=timedelta(hours=1))}"}


def test_rotating_a_secret_fails_nobody(start, secrets):
    """As decision 0015 has it: known everywhere, then signing, then alone. Replicas are replaced one after another."""
    steps = [OLD, f"{OLD}\n{NEW}\n", f"{NEW}\n\n{OLD}\n", NEW]
    replicas = []
    for content in steps:
        (secrets / "jwt_secret").write_text(content)
        made = CliRunner().invoke(auth.cli, ["token", "--user-id", "1"]).stdout.strip()
        replicas.append((start(), {"Authorization": f"Bearer {made}"}))
    for (before, older), (after, newer) in pairwise(replicas):
        for signer, token in ((before, older), (after, newer)):
            cursor = signer.get(f"{QUERY}?limit=39", headers=token).json()["next"]
            for client in (before, after):
                assert users(client, token) == {1}
                assert client.get(QUERY, params={"cursor": cursor}, headers=token).json()["row_count"] == 1
    last, token = replicas[-1]
    assert users(last, token) == users(last, hs256(NEW)) == {1}
    refused(last, hs256(OLD))
    old_cursor = replicas[0][0].get(f"{QUERY}?limit=39", headers=hs256(OLD)).json()["next"]
    assert_error(last.get(QUERY, params={"cursor": old_cursor}, headers=token), 400, "invalid_cursor")


def test_with_several_secrets_an_expired_token_is_still_called_expired(start, secrets):
    (secrets / "jwt_secret").write_text(f"{NEW}\n{OLD}")
    token = jwt.encode({"sub": "1", "exp": datetime(2020, 1, 1, tzinfo=UTC)}, OLD, algorithm="HS256")
    error = assert_error(start().get(QUERY, headers={"Authorization": f"Bearer {token}"}), 401, "unauthorized")
    assert error["message"] == "the token has expired"


def test_a_short_second_secret_is_refused_at_start(start, secrets):
    (secrets / "jwt_secret").write_text(f"{NEW}\nshort")
    with pytest.raises(ConfigError, match="line 2, has 5 bytes"):
        start()


# --- claims -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["rsa-1", None])
@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"aud": "marts", "iss": "https://idp"}, True),
        ({"aud": ["other", "marts"], "iss": "https://idp"}, True),
        ({"aud": "other", "iss": "https://idp"}, False),
        ({"aud": ["other"], "iss": "https://idp"}, False),
        ({"aud": "mart", "iss": "https://idp"}, False),
        ({"aud": "", "iss": "https://idp"}, False),
        ({"aud": "marts", "iss": "https://idp/"}, False),
        ({"aud": "marts", "iss": "https://other"}, False),
        ({"aud": "marts"}, False),
        ({"iss": "https://idp"}, False),
        ({}, False),
    ],
)
def test_audience_and_issuer_are_asked_for_once_they_are_configured(start, client, name, claims, good):
    client = start(jwt_audience="marts", jwt_issuer="https://idp")
    if name:
        headers = signed(name, **claims)
    else:
        headers = {"Authorization": f"Bearer {jwt.encode({'sub': '1', 'exp': SOON, **claims}, SECRET)}"}
    if good:
        assert users(client, headers) == {1}
    else:
        refused(client, headers)


def test_the_command_makes_tokens_that_are_asked_for(start, secrets, monkeypatch):
    (secrets / "jwt_secret").write_text(SECRET)
    monkeypatch.setenv("API_JWT_AUDIENCE", "marts")
    monkeypatch.setenv("API_JWT_ISSUER", "us")
    token = CliRunner().invoke(auth.cli, ["token", "--user-id", "2"]).stdout.strip()
    assert users(start(jwt_audience="marts", jwt_issuer="us"), {"Authorization": f"Bearer {token}"}) == {2}


@pytest.mark.parametrize(
    ("claim", "seconds", "good"),
    [
        ("exp", -5, True),
        ("exp", -60, False),
        ("nbf", 5, True),
        ("nbf", 60, False),
        ("iat", 5, True),
        ("iat", 60, False),
    ],
)
def test_clocks_may_differ_by_some_seconds(client, claim, seconds, good):
    claims = {claim: datetime.now(UTC) + timedelta(seconds=seconds)}
    for name in ("rsa-1", "ec-1"):
        response = client.get(QUERY, headers=signed(name, **claims))
        assert response.status_code == (200 if good else 401)


# --- keys of a URL ----------------------------------------------------------------------------------------------------
@pytest.fixture
def clock(monkeypatch):
    """Time as the fetched keys know it; it passes when a test says so."""
    seconds = [1000.0]
    monkeypatch.setattr(jwks, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


@pytest.fixture
def idp():
    with provider(published("rsa-1")) as idp:
        yield idp


@pytest.fixture
def asking(store, idp):
    """The API with a secret and the keys of a URL."""
    client, _ = open_api(parquet_dir=store.root, jwks_url=idp.url)
    with client:
        yield client


def fetches(client):
    lines = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("analytics_jwks_fetches_total")
    ]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}


def unavailable(client, headers):
    response = client.get(QUERY, headers=headers)
    assert_error(response, 503, "keys_unavailable")
    assert int(response.headers["retry-after"]) > 0


def test_keys_are_fetched_once_and_only_for_who_needs_one(asking, idp, clock):
    assert users(asking, bearer(1)) == {1}
    refused(asking, unsigned(alg="RS256"))
    assert idp.asked == 0
    for user in (1, 2, 1, 3):
        assert users(asking, signed("rsa-1", sub=str(user))) == {user}
    assert idp.asked == 1
    assert fetches(asking) == {"fetched": 1, "failed": 0}


def test_unknown_keys_make_the_url_be_asked_at_a_bounded_rate(asking, idp, clock):
    for _ in range(20):
        refused(asking, signed(MINE))
    assert idp.asked == 1
    idp.content = published("rsa-1", "rsa-2")
    clock[0] += jwks._PAUSE_SECONDS - 1
    refused(asking, signed("rsa-2"))
    clock[0] += 1
    assert users(asking, signed("rsa-2")) == users(asking, signed("rsa-1")) == {1}
    assert idp.asked == 2


def test_a_key_that_is_published_no_more_is_good_no_more(asking, idp, clock):
    assert users(asking, signed("rsa-1")) == {1}
    idp.content = published("rsa-2")
    clock[0] += jwks._PAUSE_SECONDS
    assert users(asking, signed("rsa-2")) == {1}
    refused(asking, signed("rsa-1"))


def test_old_keys_are_fetched_again_behind_what_is_answered(asking, idp, clock):
    assert users(asking, signed("rsa-1")) == {1}
    idp.content = published("rsa-2")
    idp.reached.clear()
    idp.open.clear()
    clock[0] += jwks._FRESH_SECONDS + 1
    assert users(asking, signed("rsa-1")) == {1}  # while the URL does not answer
    assert idp.reached.wait(timeout=30)
    idp.open.set()
    assert users(asking, signed("rsa-2")) == {1}  # waits for what is under way
    refused(asking, signed("rsa-1"))
    assert idp.asked == 2


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, {}),
        (302, {}),
        (200, b"{"),
        (200, b"\xff"),
        (200, []),
        (200, {"keys": []}),
        (200, {"keys": [{"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "rsa-1"}]}),
    ],
)
def test_a_url_that_fails_lets_nobody_in_and_shuts_nobody_out(asking, idp, clock, status, content):
    good = idp.content
    idp.status, idp.content = status, content
    for _ in range(3):
        unavailable(asking, signed("rsa-1"))
        unavailable(asking, forged_with(b"secret" * 8, kid="rsa-1") | signed(MINE))
    assert idp.asked == 1
    assert users(asking, bearer(2)) == {2}
    assert asking.get("/health/ready").status_code == 200

    idp.status, idp.content = 200, good
    clock[0] += jwks._PAUSE_SECONDS
    assert users(asking, signed("rsa-1")) == {1}

    idp.status, idp.content = status, content
    clock[0] += jwks._KEPT_SECONDS
    assert users(asking, signed("rsa-1")) == {1}
    clock[0] += 1
    unavailable(asking, signed("rsa-1"))
    assert fetches(asking)["failed"] >= 2


def test_a_url_that_hangs_holds_up_nobody_who_has_a_key(asking, idp, clock):
    idp.open.clear()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(asking.get, QUERY, headers=signed("rsa-1")) for _ in range(4)]
        assert idp.reached.wait(timeout=30)
        assert users(asking, bearer(2)) == {2}
        assert asking.get("/health/live").status_code == 200
        assert not any(future.done() for future in waiting)
        idp.open.set()
        assert [future.result().status_code for future in waiting] == [200] * 4
    assert idp.asked == 1


def test_a_url_that_nobody_answers_at_all(store):
    client, _ = open_api(parquet_dir=store.root, jwks_url="http://127.0.0.1:1/jwks")
    unavailable(client, signed("rsa-1"))


@pytest.mark.parametrize("url", ["ftp://idp/jwks", "file:///etc/passwd", "idp"])
def test_what_is_no_url_is_refused_at_start(store, url):
    with pytest.raises(ConfigError, match="API_JWKS_URL"):
        open_api(parquet_dir=store.root, jwks_url=url)


def test_a_key_of_the_file_needs_no_url(store, secrets, idp):
    (secrets / "jwks").write_text(json.dumps(published("ec-1")))
    client, _ = open_api(parquet_dir=store.root, jwks_url=idp.url)
    assert users(client, signed("ec-1")) == {1}
    assert idp.asked == 0
    assert users(client, signed("rsa-1")) == {1}
