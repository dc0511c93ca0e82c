"""The dependency audit: an advisory fails it, one without data is said to be unknown, and nothing passes silently."""

import json
import subprocess
import sys

import pytest

from backend.filepaths import REPO_ROOT
from deploy.images import audit

CLEAN = {"name": "duckdb", "version": "1.5.5", "vulns": []}
SKIPPED = {"name": "uv", "skip_reason": "Dependency not found and could not be audited"}
AFFECTED = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.1.6"], "description": "…"}],
}


def said(verdict):
    return "\n".join(verdict.lines)


def test_packages_without_an_advisory_pass():
    verdict = audit.judged([CLEAN], {})
    assert not verdict.failed
    assert "1 packages" in said(verdict)


def test_an_advisory_fails_it_and_names_the_pin_the_id_and_the_fix():
    verdict = audit.judged([CLEAN, AFFECTED], {})
    assert verdict.failed
    for part in ("jinja2 3.1.2", "PYSEC-1", "3.1.6"):
        assert part in said(verdict)


@pytest.mark.parametrize("known_as", ["PYSEC-1", "CVE-1"])
def test_an_advisory_that_is_accepted_by_any_of_its_ids_passes_with_the_reason(known_as):
    verdict = audit.judged([AFFECTED], {known_as: "no template of strangers is rendered"})
    assert not verdict.failed
    assert "no template of strangers is rendered" in said(verdict)


def test_what_is_accepted_and_nowhere_found_any_more_has_to_go():
    verdict = audit.judged([CLEAN], {"PYSEC-1": "of old"})
    assert verdict.failed
    assert "PYSEC-1" in said(verdict)


def test_a_package_without_an_answer_is_unknown_and_clears_no_accepted_advisory():
    verdict = audit.judged([CLEAN, SKIPPED], {"PYSEC-1": "perhaps of uv"})
    assert not verdict.failed
    assert "UNKNOWN for 1 of 2 packages: uv" in said(verdict)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a program that stands in for pip-audit: it prints this, and ends with this code."""

    def stand_in(*, stdout="", stderr="", code=0):
        (tmp_path / "pip_audit.py").write_text(
            f"import sys\nprint({stdout!r})\nprint({stderr!r}, file=sys.stderr)\nsys.exit({code})\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return stand_in


def test_no_answer_for_any_package_is_unknown_though_the_tool_calls_it_a_success(program, capsys):
    program(stdout=json.dumps({"dependencies": [SKIPPED], "fixes": []}), stderr="No known vulnerabilities found")
    assert audit.main() == 0
    assert "UNKNOWN: advisory data can't be reached" in capsys.readouterr().err


def test_an_advisory_ends_the_command_with_1(program, capsys):
    program(stdout=json.dumps({"dependencies": [AFFECTED], "fixes": []}), code=1)
    assert audit.main() == 1
    assert "jinja2 3.1.2" in capsys.readouterr().err


def test_a_tool_that_can_not_even_ask_is_a_failure_and_not_unknown(program, capsys):
    program(stderr="usage: pip-audit: error: unrecognized arguments", code=2)
    assert audit.main() == 1
    assert "unrecognized arguments" in capsys.readouterr().err


def test_without_a_network_the_real_tool_gets_no_answer_and_it_is_said():
    environment = {"HTTPS_PROXY": "http://127.0.0.1:9", "HOME": "/nonexistent", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.images.audit"],
        env=environment, cwd=REPO_ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "audit: UNKNOWN: advisory data can't be reached" in done.stderr
