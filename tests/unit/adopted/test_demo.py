"""``DBT_PROJECT_DIR=… make demo`` serves what was built of the project."""

import re
import shlex
import subprocess

import pytest

from tests import serving


@pytest.fixture
def demo(history, tmp_path):
    """What ``make demo`` prints, while it serves."""
    environment = {**history.shop.environment, "SECRETS_HOST_DIR": str(tmp_path / "secrets")}
    with serving.demo(environment, tmp_path / "log") as (_, printed):
        yield printed


def test_it_prints_a_question_about_a_mart_of_the_project_that_is_answered(demo):
    listed, sample = (shlex.split(command) for command in re.findall(r"^  (curl .*)$", demo, re.MULTILINE))
    for command, expected in ((listed, "turnover"), (sample, '"dataset":"Sales"')):
        printed = subprocess.run([*command, "-s", "--fail-with-body"], capture_output=True, text=True, check=False)
        assert printed.returncode == 0, printed.stdout
        assert expected in printed.stdout
