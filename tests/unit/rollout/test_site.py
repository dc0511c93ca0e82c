"""The token that the rollout asks the backends with."""

from types import SimpleNamespace

import jwt

from deploy.rollout.compose import Config
from deploy.rollout.site import Site
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
