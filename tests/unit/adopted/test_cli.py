"""Which project is meant, and what is refused for one of its owner's: the command line."""

import os
import subprocess
import sys

import pytest

from backend import filepaths
from backend.errors import ConfigError
from backend.filepaths import REPO_ROOT, adopted_project_dir

PROJECT = REPO_ROOT / "tests" / "foreign" / "bike_shop"


def run(*command):
    environment = {**os.environ, "DBT_PROJECT_DIR": str(PROJECT), "PYTHONPATH": str(REPO_ROOT)}
    return subprocess.run(
        command, env=environment, cwd=REPO_ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_phase_0_is_the_owners_own_stack():
    result = run("make", "up", "PHASE=0")
    assert result.returncode == 2
    assert result.stderr.startswith("Phase 0 of a project of your own is your own stack: LEGACY_DUCKDB_VOLUME names")


def test_the_example_is_asked_for_no_marts_of_a_project(tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO_ROOT)}
    command = [sys.executable, "-m", "deploy.pipeline", "marts"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "DBT_PROJECT_DIR is not set")


def test_the_example_by_its_own_name_is_the_example(monkeypatch):
    monkeypatch.chdir(REPO_ROOT)
    for name in ("", "dbt", "tests/../dbt/", str(filepaths.DBT_PROJECT_DIR)):
        monkeypatch.setenv("DBT_PROJECT_DIR", name)
        assert adopted_project_dir() is None
    monkeypatch.setenv("DBT_PROJECT_DIR", "tests/foreign/bike_shop")
    assert adopted_project_dir() == PROJECT


def test_a_directory_that_is_no_dbt_project_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("DBT_PROJECT_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"has no dbt_project\.yml"):
        adopted_project_dir()
