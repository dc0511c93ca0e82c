"""The README's own commands, run as they stand there against ``make demo``."""

import json
import os
import re
import subprocess

import httpx
import pytest

from backend.filepaths import REPO_ROOT
from tests import serving

README = (REPO_ROOT / "README.md").read_text(encoding="utf-8")


def blocks(section):
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """``make demo`` with a state of its own; its environment and port."""
    directory = tmp_path_factory.mktemp("demo")
    hidden = ("PARQUET_DIR", "DUCKDB_PATH", "SOURCE_DUCKDB_PATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    env = {
        **{name: value for name, value in os.environ.items() if name not in hidden},
        "STATE": str(directory / "state"),
        "SECRETS_HOST_DIR": str(directory / "secrets"),
    }
    assert blocks("Run it")[0].strip() == "make demo"
    with serving.demo(env, directory / "log") as (port, printed):
        yield {**env, "PORT": str(port)}, port, printed


def shell(script, env):
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=REPO_ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_curls_of_the_readme_work_for_two_users_who_see_only_their_own_rows(demo):
    env, port, _ = demo
    (script,) = blocks("Ask it")
    curls = re.findall(r"^curl .*$", script, re.MULTILINE)
    assert len(curls) == script.count("curl ") == 7
    seen = {}
    for user in (1, 2):
        setup = script[: script.index("# What")].replace("USER_ID=1", f"USER_ID={user}")
        printed = [
            shell((setup + curl + " --fail-with-body").replace("127.0.0.1:8000", f"127.0.0.1:{port}"), env)
            for curl in curls
        ]
        listed, dataset, rent, batch, live, ready = (json.loads(text) for text in printed[:6])
        assert len(listed["datasets"]) == 11
        assert dataset["id"] == "fct_transactions"
        assert list(rent["rows"][0]) == ["posted_on", "amount", "description"]
        assert [result["dataset"] for result in batch["results"]] == ["dim_accounts", "agg_monthly_cashflow"]
        assert {row["user_id"] for result in batch["results"] for row in result["rows"]} == {user}
        assert batch["snapshot"] == listed["snapshot"]
        assert live["status"] == "live"
        assert ready["status"] == "ready"
        assert "http_requests_total" in printed[6]
        seen[user] = printed[2]
    assert seen[1] != seen[2]


def test_the_demo_prints_a_curl_that_works(demo):
    env, _, log = demo
    commands = re.findall(r"^  (curl .*)$", log, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert "snapshot" in json.loads(shell(command + " --fail-with-body -s", env))


def test_make_dbt_publishes_the_next_snapshot_and_rollback_data_returns(demo):
    env, port, _ = demo

    def served():
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").json()["snapshot"]

    # A project that does not run: what the targets act on is the demo's store.
    env = {**env, "COMPOSE_PROJECT_NAME": "no-such-project"}
    before = served()
    assert "Published snapshot" in shell("make -s dbt", env)
    after = served()
    assert after > before
    listing = shell("make -s snapshots", env)
    assert f"* {after}" in listing
    assert before in listing
    shell(f"make -s rollback-data SNAPSHOT={before}", env)
    assert served() == before
