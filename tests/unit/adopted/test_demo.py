"""``DBT_PROJECT_DIR=… make demo`` serves what was built of the project."""

import os
import re
import shlex
import signal
import socket
import subprocess

import httpx
import pytest

from backend.filepaths import REPO_ROOT
from tests.e2e.stack import wait_for


@pytest.fixture
def demo(history, tmp_path):
    """What ``make demo`` prints, while it serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**history.shop.environment, "PORT": str(port), "SECRETS_HOST_DIR": str(tmp_path / "secrets")}
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["make", "demo"], cwd=REPO_ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(lambda: process.poll() is not None or answers(port), "make demo serves", seconds=120)
        assert process.poll() is None, log.read_text()
        yield log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_it_prints_a_question_about_a_mart_of_the_project_that_is_answered(demo):
    listed, sample = (shlex.split(command) for command in re.findall(r"^  (curl .*)$", demo, re.MULTILINE))
    for command, expected in ((listed, "turnover"), (sample, '"dataset":"Sales"')):
        printed = subprocess.run([*command, "-s", "--fail-with-body"], capture_output=True, text=True, check=False)
        assert printed.returncode == 0, printed.stdout
        assert expected in printed.stdout
