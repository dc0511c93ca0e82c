"""``verify`` with the real dbt, on a source that changes, beside a build, and where it can't compare."""

import json
import shutil
import signal
import subprocess
import sys

import duckdb
import pytest

from backend.filepaths import REPO_ROOT
from backend.scripts.bootstrap_duckdb import legacy_snapshot_id, refresh_duckdb_file
from deploy.pipeline.dbt import Dbt
from deploy.pipeline.parity import verify
from deploy.pipeline.parity.compare import compare
from deploy.pipeline.parity.report import Kind, Report, Verdict
from deploy.pipeline.parity.twins import Twins
from tests.marts import MARTS

from .conftest import BUY
from .driver import cli, python

# Somebody buys something before each of the two builds, that is: after the source was frozen.
BOUGHT_MEANWHILE = """
import runpy, sys
import duckdb
from deploy.pipeline.dbt import Dbt

(_, file, buy), run = sys.argv, Dbt.run

def buy_and_run(dbt):
    with duckdb.connect(file) as source:
        source.execute(buy)
    run(dbt)

Dbt.run, sys.argv[1:] = buy_and_run, ["verify"]
runpy.run_module("deploy.pipeline", run_name="__main__")
"""
BOUGHT = "SELECT count(*) FROM transactions WHERE description = 'one more'"


@pytest.fixture
def work(tmp_path):
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def legacy(place, published, monkeypatch):
    """The phase-0 file as the last publish left it."""
    shutil.copy2(published.legacy, place.legacy)
    monkeypatch.setenv("LEGACY_DUCKDB_PATH", str(place.legacy))
    return place.legacy


def served(place):
    """Everything that an API of any phase reads, and when it was written."""
    paths = [place.legacy, place.store.root / "mart", *(place.store.root / "snapshots").rglob("*")]
    return {path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in paths}


def left_over(place):
    return [*place.root.glob("verify-*"), *place.left_over()]


def test_writes_meanwhile_are_no_false_alarm_and_nothing_that_is_served_is_touched(place, legacy):
    before = served(place)
    with place.store.build("other", holder="a build at the same time"):
        arguments = ("-c", BOUGHT_MEANWHILE, str(place.source), BUY.format(account=1))
        result = python(place, *arguments, LEGACY_DUCKDB_PATH=str(legacy))
    assert result.returncode == 0, result.stdout + result.stderr
    with duckdb.connect(str(place.source), read_only=True) as source:
        assert source.execute(BOUGHT).fetchall() == [(2,)]

    report = Report.from_json(result.stdout)
    assert json.loads(result.stdout)["verdict"] == report.verdict == Verdict.EQUAL
    builds, file = report.comparisons
    assert (builds.old, builds.new) == ("built as tables", "built as Parquet")
    assert (file.old, file.new) == ("phase-0 file", f"snapshot {place.store.current_id()}")
    for comparison in report.comparisons:
        assert {mart.name for mart in comparison.marts} == MARTS
        assert all(mart.old == mart.new and mart.old.rows > 0 for mart in comparison.marts)
    with place.store.open() as snapshot:
        assert report.source == snapshot.manifest.source, "the moment before the purchases"
    assert left_over(place) == []
    assert served(place) == before


def test_without_one_source_moment_the_same_writes_would_differ(place, work, monkeypatch):
    twins = Twins(work)
    monkeypatch.setattr(Twins, "source", property(lambda _: place.source))
    build = Twins._build

    def buy_and_build(twins, variables):
        place.alter(BUY.format(account=1))
        build(twins, variables)

    monkeypatch.setattr(Twins, "_build", buy_and_build)
    twins.build()
    with duckdb.connect() as connection:
        found = {mart.name: mart.kinds for mart in compare(connection, *twins.attach(connection))}
    assert found["fct_transactions"] == (Kind.ROW_COUNT, Kind.CONTENT)
    assert found["dim_accounts"] == (Kind.CONTENT,)
    assert found["dim_users"] == found["fct_budgets"] == ()


# --- the phase-0 file against its snapshot ----------------------------------------------------------------------------


def test_a_changed_cell_in_the_phase_0_file_is_found_and_shown(place, legacy, work):
    with duckdb.connect(str(legacy)) as connection:
        connection.execute("UPDATE dim_accounts SET balance = balance + 0.01 WHERE account_id = 2")
    comparison = verify._compare_file(work)
    assert comparison.verdict == Verdict.DIFFERENT
    (mart,) = (mart for mart in comparison.marts if mart.kinds)
    assert (mart.name, mart.kinds, mart.differing) == ("dim_accounts", (Kind.CONTENT,), 2)
    old, new = mart.rows
    assert (old.old, old.new, new.old, new.new) == (1, 0, 0, 1)
    assert {name for name in old.values if old.values[name] != new.values[name]} == {"balance"}


def test_the_file_is_compared_with_the_snapshot_it_is_of_not_with_the_current_one(
    place, legacy, work, recording, monkeypatch
):
    first = place.store.current_id()
    recording.replay(monkeypatch)
    monkeypatch.delenv("LEGACY_DUCKDB_PATH")
    assert place.build().snapshot.id != first
    monkeypatch.setenv("LEGACY_DUCKDB_PATH", str(legacy))
    comparison = verify._compare_file(work)
    assert (comparison.verdict, comparison.new) == (Verdict.EQUAL, f"snapshot {first}")


def test_a_publish_that_replaces_the_file_while_it_is_compared_is_no_false_alarm(
    place, legacy, work, recording, monkeypatch
):
    """The marts of the first snapshot are compared, although the file is of the second one by then."""
    first, open_snapshot = place.store.current_id(), verify.SnapshotStore.open
    recording.replay(monkeypatch)
    published = []

    def publish_first(store, snapshot_id=None):
        if not published:
            published.append(True)
            place.build()
            refresh_duckdb_file(store, legacy)
        return open_snapshot(store, snapshot_id)

    monkeypatch.setattr(verify.SnapshotStore, "open", publish_first)
    comparison = verify._compare_file(work)
    assert (comparison.verdict, comparison.new) == (Verdict.EQUAL, f"snapshot {first}")
    assert place.store.current_id() != first


def left_out_because(work):
    comparison = verify._compare_file(work)
    assert (comparison.verdict, comparison.marts) == (Verdict.LEFT_OUT, ())
    return comparison.reason


def test_where_there_is_nothing_to_compare_it_says_so(place, legacy, work, monkeypatch):
    shutil.rmtree(place.store.root / "snapshots" / place.store.current_id())
    assert "of a snapshot that is gone" in left_out_because(work)
    legacy.unlink()
    assert left_out_because(work) == f"there is no {legacy} yet"
    monkeypatch.delenv("LEGACY_DUCKDB_PATH")
    assert left_out_because(work) == "this phase has not both of them"


def test_a_file_that_phase_0_built_in_since_is_no_false_alarm(place, legacy, work):
    """The way back was taken: it says no longer that it is what the snapshot was."""
    place.alter(BUY.format(account=1))
    assert legacy_snapshot_id(legacy) == place.store.current_id()
    Dbt(work / "target", {"DUCKDB_PATH": str(legacy), "MART_BUILD_DIR": ""}).run()
    assert legacy_snapshot_id(legacy) is None
    assert "does not say of which snapshot it is" in left_out_because(work)


# --- unknown ----------------------------------------------------------------------------------------------------------


def test_a_source_that_cannot_be_read_is_unknown_and_says_why(place):
    place.source.unlink()
    result = cli(place, "verify")
    assert result.returncode == 2
    report = Report.from_json(result.stdout)
    assert report.verdict == Verdict.UNKNOWN
    assert str(place.source) in report.reason
    assert "Cannot open database" in result.stderr, "what dbt said"
    assert left_over(place) == []


def test_whatever_goes_wrong_is_unknown(place, monkeypatch):
    def fail(_):
        raise KeyError("never expected")

    monkeypatch.setattr(Twins, "freeze", fail)
    report = verify.verify()
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, 2)
    assert "never expected" in report.reason
    assert left_over(place) == []


def test_one_that_is_ended_leaves_nothing_behind(place):
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.pipeline", "verify"],
        env={"PYTHONPATH": str(REPO_ROOT), **place.environment},
        cwd=REPO_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any("Running with dbt" in line for line in process.stderr), "dbt was never started"
        assert [*place.root.glob("verify-*")] != []
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output) == (128 + signal.SIGTERM, "")
    assert left_over(place) == []
