"""Findings of checks that need no engine; with one, tests/e2e/test_rollout_faults.py makes them all."""

import shutil
import socket
from types import SimpleNamespace

import pytest

from backend import lockfile
from deploy.rollout import preflight
from deploy.rollout.compose import Config
from deploy.rollout.engine import EngineFailed
from tests.compose.test_rendered import render


def finding(name, site, target=1):
    (check,) = [check for check in preflight._CHECKS if check.name == name]
    return preflight._made(check, site, target)


def site(tmp_path, **variables):
    config = Config(render("phase1", SECRETS_HOST_DIR=str(tmp_path / "secrets"), **variables))
    engine = SimpleNamespace(containers=lambda _: [], version=lambda: "20.10.24", image_id=lambda _: None)
    return SimpleNamespace(config=lambda _: config, engine=engine, directory=tmp_path)


@pytest.fixture
def secrets(tmp_path):
    directory = tmp_path / "secrets"
    directory.mkdir(mode=0o700)
    for file in Config(render("phase1", SECRETS_HOST_DIR=str(directory))).secrets.values():
        with open(file, "w") as secret:
            secret.write("s")
    return directory


def test_all_secrets_there(tmp_path, secrets):
    assert finding("secrets", site(tmp_path)).verdict == "ok"


def test_a_secret_that_is_missing_or_empty_or_open_to_others_is_named(tmp_path, secrets):
    (secrets / "jwt_secret").unlink()
    (secrets / "postgres_password").write_text("")
    found = finding("secrets", site(tmp_path))
    assert found.verdict == "failed"
    assert "jwt_secret is missing" in found.found
    assert "postgres_password is missing or empty" in found.found
    assert "make secrets" in found.to_do
    shutil.rmtree(secrets)
    secrets.mkdir(mode=0o755)
    (secrets / "jwt_secret").write_text("s")
    assert f"others can look into {secrets}" in finding("secrets", site(tmp_path)).found


def test_a_port_that_somebody_else_has_is_named(tmp_path):
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        free_port = free.getsockname()[1]
        free.close()
        here = site(tmp_path, PORT=str(taken.getsockname()[1]), DAGSTER_PORT=str(free_port))
        found = finding("ports", here)
        assert found.verdict == "failed"
        assert f"127.0.0.1:{taken.getsockname()[1]} for gateway" in found.found
        assert str(free_port) not in found.found


def test_who_holds_the_lock_is_named(tmp_path):
    assert finding("rollout lock", site(tmp_path)).verdict == "ok"
    with lockfile.held(tmp_path / "lock", "Ada's promotion", wait=0):
        found = finding("rollout lock", site(tmp_path))
    assert (found.verdict, "Ada's promotion" in found.found) == ("failed", True)


def test_an_image_that_is_not_there_is_named(tmp_path):
    assert "parquet-marts/backend:local" in finding("images", site(tmp_path)).found


@pytest.mark.parametrize(
    ("version", "verdict"), [("20.9.1", "failed"), ("20.10.24+dfsg1", "ok"), ("28.2.2", "ok"), ("?", "failed")]
)
def test_an_engine_that_is_too_old_is_named(tmp_path, version, verdict):
    here = site(tmp_path)
    here.engine.version = lambda: version
    assert finding("engine", here).verdict == verdict


@pytest.mark.parametrize("error", [EngineFailed("the engine is gone", hint="start it"), ZeroDivisionError("1/0")])
def test_a_check_that_can_not_be_made_says_unknown_and_why(tmp_path, error):
    def fails(_):
        raise error

    here = site(tmp_path)
    here.engine.image_id = fails
    found = finding("images", here)
    assert found.verdict == "unknown"
    assert str(error.args[0]) in found.found
    assert found.to_do
