"""What dbt has parsed before is gone on from, and what has changed since is noticed."""

import json
import re
import shutil
from dataclasses import replace

import duckdb
import pytest

from backend import filepaths, tally
from backend.filepaths import DBT_PROJECT_DIR, REPO_ROOT
from deploy.pipeline.build import Outcome, run_build
from deploy.pipeline.dbt import Dbt, artefacts
from tests.compose.test_rendered import render

from .driver import cli, python

PARSED_ANEW = "Unable to do partial parsing"
STARTED = "Running with dbt="


@pytest.fixture
def parsed_here(place, monkeypatch):
    """``place``, with the project parsed under the profile that it builds with, as in the image."""
    here = replace(place, parsed=place.root / "parsed")
    here.enter(monkeypatch)
    Dbt(here.parsed, {}).parse()
    return here


def test_a_build_starts_dbt_once_and_parses_nothing_anew(parsed_here):
    """Nor does it import what would take longer than all else that it does itself."""
    result = python(parsed_here, "-X", "importtime", "-m", "deploy.pipeline", "build")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(STARTED) == 1
    assert PARSED_ANEW not in result.stdout
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}
    assert imported >= {"duckdb", "backend.audit", "deploy.pipeline.build"}
    assert imported & {"numpy", "pandas", "pyarrow", "jinja2", "yaml", "psycopg", "fastapi"} == set()


def test_where_nothing_was_parsed_before_the_build_does(parsed_here):
    result = cli(parsed_here, "build", DBT_TARGET_PATH=str(parsed_here.root / "nothing"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(STARTED) == 1
    assert result.stdout.count(PARSED_ANEW) == 1


def test_models_and_macros_that_changed_since_are_noticed(parsed_here, tmp_path, monkeypatch):
    project = tmp_path / "dbt"
    shutil.copytree(DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setattr(filepaths, "DBT_PROJECT_DIR", project)
    (model,) = project.rglob("dim_users.sql")
    model.write_text(model.read_text().replace("    full_name,\n", "    upper(full_name) as full_name,\n"))
    macro = project / "macros" / "materializations" / "mart_external.sql"
    macro.write_text(re.sub(r"(?<=\{\{ return\()\[options\.get.* \| max(?=\) \}\})", "2048", macro.read_text()))

    run_build(None, Outcome(), run_id="run", holder="a test")

    names = "SELECT DISTINCT full_name = upper(full_name) FROM dim_users"
    assert parsed_here.served(names) == [(True,)]
    with parsed_here.store.open() as snapshot, duckdb.connect() as connection:
        groups = "SELECT max(row_group_num_rows) FROM parquet_metadata(?)"
        ((rows,),) = connection.execute(groups, [str(snapshot.file("fct_transactions"))]).fetchall()
    assert rows == 2048


def test_an_unknown_mart_is_refused_before_a_build_is_counted(parsed_here):
    before, served = tally.read(parsed_here.store.root), parsed_here.store.current_id()
    result = cli(parsed_here, "build", "--select", "dim_users", "--select", "dim_userz")
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("no mart is called dim_userz\nsee `dbt ls` for the marts")
    assert result.stdout.count(STARTED) == 1
    assert tally.read(parsed_here.store.root) == before
    assert parsed_here.store.current_id() == served
    assert parsed_here.left_over() == []


@pytest.mark.parametrize("phase", ["phase1", "phase2"])
def test_the_image_has_parsed_what_its_daemon_builds(phase, tmp_path, monkeypatch):
    dockerfile = (REPO_ROOT / "deploy" / "images" / "pipeline.Dockerfile").read_text()
    (variables,) = re.findall(r"^RUN ((?:[A-Z_]+=\S+ (?:\\\n *)?)+)dbt parse", dockerfile, re.MULTILINE)
    image = dict(re.findall(r"([A-Z_]+)=(\S+)", variables))
    daemon = render(phase)["services"]["dagster-daemon"]["environment"] | {"DBT_TARGET_PATH": str(tmp_path)}
    for name in daemon:
        monkeypatch.delenv(name, raising=False)
    Dbt(tmp_path, image).parse()
    for name, value in daemon.items():
        monkeypatch.setenv(name, value)
    with artefacts() as target:
        Dbt(target, {}).parse()
        events = [json.loads(line)["info"]["name"] for line in (target / "dbt.log").read_text().splitlines()]
    assert "PartialParsingSkipParsing" in events
