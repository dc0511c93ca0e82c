"""Phase 1 on the volume of a phase 0: the old file answers until there is a snapshot, and is fresh for the way back."""

import json
from dataclasses import replace

import pytest

from .reference import QUERIES, comparable
from .stack import RUN_SECONDS, wait_for


@pytest.fixture(scope="module")
def old(start_stack):
    return start_stack(0)


@pytest.fixture(scope="module")
def new(old):
    """The same project, volume and secrets under the overlay of phase 1; nothing is started yet."""
    return replace(old, phase=1)


def answers(stack):
    with stack.api() as api:
        found = {path: api.get("/api/analytics/datasets/" + path) for path in QUERIES.values()}
    assert {answer.status_code for answer in found.values()} == {200}, found
    return {path: comparable(answer.text) for path, answer in found.items()}


def last_refresh(stack):
    with stack.api() as api:
        return api.get("/api/analytics/datasets").json()["last_refresh"]


def test_the_old_file_answers_before_the_first_build_parquet_after_it_and_the_file_stays_usable(old, new):
    expected = answers(old)
    wait_for(lambda: old.unfinished_runs() == 0, "the run of phase 0 has ended", seconds=RUN_SECONDS, every=1)

    # The backend of phase 1, while no build of phase 1 has run: it answers from the old file.
    old.run("stop", "dagster-daemon", "dagster-webserver")
    new.up("--no-deps", "backend")
    assert new.snapshot() is None
    assert answers(new) == expected
    before = last_refresh(new)

    # The daemon of phase 1 finds no snapshot and builds; the same backend goes over to Parquet by itself.
    new.up("dagster-daemon", "dagster-webserver")
    wait_for(new.snapshot, "the API serves a snapshot", seconds=RUN_SECONDS, details=lambda: new.logs("dagster-daemon"))
    wait_for(lambda: new.unfinished_runs() == 0, "the run has refreshed the file", seconds=RUN_SECONDS, every=1)
    assert answers(new) == expected
    refreshed = last_refresh(new)
    assert refreshed > before

    # The way back: the file that phase 1 wrote, under the phase-0 backend, has the same rows, types and order.
    code, listing = new.exec("dagster-daemon", "ls", "/opt/dagster/dagster_home/data")
    assert code == 0
    assert sorted(listing.split()) == ["analytics.duckdb", "analytics.duckdb.lock", "parquet"]
    old.up("--no-deps", "backend")
    assert old.snapshot() is None
    assert answers(old) == expected
    assert last_refresh(old) == refreshed
    with old.api() as api:
        described = {d["id"]: d for d in api.get("/api/analytics/datasets").json()["datasets"]}
    assert all(column["description"] for d in described.values() for column in d["columns"])


def test_the_backend_of_phase_1_can_write_neither_the_file_nor_parquet(old, new):
    for path in ("/app/data/analytics.duckdb", "/app/data/parquet/intruder"):
        code, output = new.exec("backend", "touch", path)
        assert code != 0
        assert "Read-only file system" in output, json.dumps(output)
