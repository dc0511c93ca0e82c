"""The init script on its own: what it refuses, and what other processes can see of it."""

import os
import subprocess

import pytest

from backend.filepaths import REPO_ROOT

SCRIPT = REPO_ROOT / "deploy" / "source" / "initdb" / "10-roles.sh"
PASSWORDS = {"source_owner_password": "owner'\\pass", "source_reader_password": 'reader"pass'}


@pytest.fixture
def run(tmp_path):
    """Runs the script with a psql that only writes down how it was called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    psql = tools / "psql"
    psql.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\ncat >>{tmp_path}/called\n')
    psql.chmod(0o755)

    def run_(secrets, **environment):
        directory = tmp_path / "secrets"
        directory.mkdir()
        for name, value in secrets.items():
            (directory / name).write_text(value)
        settings = {"POSTGRES_USER": "postgres", "POSTGRES_DB": "finance", "SECRETS_DIR": str(directory), **environment}
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(SCRIPT)], env={"PATH": path, **settings}, capture_output=True, text=True, check=False
        )
        called = tmp_path / "called"
        return done, called.read_text() if called.exists() else None

    return run_


def test_no_password_is_on_a_command_line_or_in_the_statements(run):
    done, called = run(PASSWORDS)
    assert done.returncode == 0, done.stderr
    assert "CREATE ROLE analytics_reader" in called
    assert not any(password in called + done.stdout + done.stderr for password in PASSWORDS.values())


@pytest.mark.parametrize("missing", PASSWORDS)
def test_a_missing_secret_stops_it_before_anything_is_created(run, missing):
    done, called = run({name: value for name, value in PASSWORDS.items() if name != missing})
    assert done.returncode == 1
    assert missing in done.stderr
    assert "make secrets" in done.stderr
    assert called is None


def test_an_empty_secret_is_no_password(run):
    done, called = run(PASSWORDS | {"source_reader_password": ""})
    assert done.returncode == 1
    assert called is None


def test_the_image_can_execute_it():
    assert os.access(SCRIPT, os.X_OK)
