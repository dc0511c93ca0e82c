"""How the rollout asks the backends: with which token, and again where one that drains answered."""

from contextlib import contextmanager
from types import SimpleNamespace

import jwt
import pytest

from deploy.rollout import site as module
from deploy.rollout.compose import Config
from deploy.rollout.engine import EngineFailed
from deploy.rollout.site import Site
from tests.answering import answering
from tests.compose.test_rendered import render

OLD, NEW = "an-old-secret-that-is-long-enough-1", "a-new-secret-that-is-long-enough-22"


def test_it_is_signed_and_claimed_as_the_backends_are_configured(tmp_path):
    (tmp_path / "jwt_secret").write_text(f"{NEW}\n{OLD}\n")
    variables = {"API_JWT_AUDIENCE": "marts", "API_JWT_ISSUER": "us"}
    config = Config(render("phase1", SECRETS_HOST_DIR=str(tmp_path), **variables))
    sent = {}

    def execute(*_, **variables):
        sent.update(variables)
        return "{}"

    Site.answers(SimpleNamespace(config=lambda _: config, execute=execute), None)
    claims = jwt.decode(sent["TOKEN"], NEW, algorithms=["HS256"], audience="marts", issuer="us")
    assert claims["scope"] == "analytics:all"


DRAINING = (503, '{"error":{"code":"draining","message":"this replica is about to stop","hint":"ask again"}}')
NO_BACKEND = (503, '{"error":{"code":"no_backend","message":"","hint":""}}')
READY = (200, '{"status":"ready"}')


@contextmanager
def gateway(*answers):
    """A stand-in for the site whose gateway gives these, the last one ever after, and how often it was asked."""
    with answering(*answers) as (port, asked):
        yield SimpleNamespace(gateway_address=f"127.0.0.1:{port}"), asked


def test_one_that_drains_is_not_taken_for_all_that_serve():
    with gateway(DRAINING, DRAINING, READY) as (site, asked):
        assert Site.ready(site) == {"status": "ready"}
    assert asked == ["/health/ready"] * 3


def test_any_other_refusal_is_said_at_once():
    with gateway(NO_BACKEND, READY) as (site, asked), pytest.raises(EngineFailed, match=r"503.*no_backend"):
        Site.ready(site)
    assert len(asked) == 1


def test_where_none_stays_it_says_so_in_the_end(monkeypatch):
    monkeypatch.setattr(module, "_ASK_SECONDS", 0.5)
    with gateway(DRAINING) as (site, asked), pytest.raises(EngineFailed, match=r"until .* a replica that stays"):
        Site.ready(site)
    assert len(asked) > 1
