import os

import duckdb
import pytest

from .driver import cli


def assert_refused(result, *texts):
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    message, hint = result.stderr.strip().splitlines()
    assert message
    assert hint
    for text in texts:
        assert text in result.stderr


@pytest.fixture
def two(place, recording, monkeypatch):
    """A store with two snapshots; their ids, the served one last."""
    recording.replay(monkeypatch)
    first = place.store.current_id()
    return first, place.build().snapshot.id


def test_snapshots_lists_them_with_the_current_one_marked(place, two):
    result = cli(place, "snapshots")
    assert result.returncode == 0, result.stderr
    earlier, current = result.stdout.splitlines()
    assert earlier.startswith(f"  {two[0]}  11 marts")
    assert current.startswith(f"* {two[1]}  11 marts")


def test_rollback_serves_an_earlier_snapshot_and_brings_the_phase_0_file_back_to_it(place, two):
    with place.store.open(two[0]) as snapshot:
        rows = snapshot.manifest.marts["dim_users"].rows
    result = cli(place, "rollback-data", "--snapshot", two[0], LEGACY_DUCKDB_PATH=str(place.legacy))
    assert result.returncode == 0, result.stderr
    assert f"Serving snapshot {two[0]}" in result.stdout
    assert place.store.current_id() == two[0]
    with duckdb.connect(str(place.legacy), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM dim_users").fetchall() == [(rows,)]


@pytest.mark.parametrize(
    ("snapshot", "says"),
    [
        ("20200101T000000-000000-abcdef", "snapshot '20200101T000000-000000-abcdef' is not in"),
        ("../../etc", "snapshot '../../etc' is not in"),
        ("", "snapshot '' is not in"),
    ],
)
def test_rollback_to_what_is_no_snapshot_is_refused(place, published, snapshot, says):
    assert_refused(cli(place, "rollback-data", "--snapshot", snapshot), says, "make snapshots")
    assert os.readlink(place.store.root / "mart") == f"snapshots/{published.store.current_id()}"


def test_rollback_to_a_damaged_snapshot_is_refused(place, two):
    target = place.store.root / "snapshots" / two[0] / "dim_users.parquet"
    target.unlink()
    assert_refused(cli(place, "rollback-data", "--snapshot", two[0]), "dim_users.parquet is missing")
    assert place.store.current_id() == two[1]


@pytest.mark.parametrize("command", [("snapshots",), ("rollback-data", "--snapshot", "x")])
def test_without_a_store_it_says_what_to_set(place, command):
    assert_refused(cli(place, *command, PARQUET_DIR=None), "PARQUET_DIR is not set", ".env_example")


def test_phase_0_builds_tables_in_the_shared_file(phase_0, published):
    assert f"Built 11 marts as tables in {phase_0.file}" in (phase_0.root / "output").read_text()
    with published.store.open() as snapshot, duckdb.connect(str(phase_0.file), read_only=True) as connection:
        tables = connection.execute("SELECT table_name, estimated_size FROM duckdb_tables()").fetchall()
        assert dict(tables) == {mart.name: mart.rows for mart in snapshot.manifest.marts.values()}
    assert not phase_0.store.root.exists()


def test_a_build_that_fails_says_so_without_a_traceback(phase_0):
    result = cli(phase_0, "build", "--select", "dim_userz", PARQUET_DIR=None)
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("no mart is called dim_userz\nsee `dbt ls` for the marts")
    assert "Traceback" not in result.stderr


def test_take_over_serves_what_another_store_serves_and_refreshes_the_phase_0_file(place, two, tmp_path):
    target = {"PARQUET_DIR": str(tmp_path / "other"), "LEGACY_DUCKDB_PATH": str(place.legacy)}
    result = cli(place, "take-over", "--source", str(place.store.root), **target)
    assert result.returncode == 0, result.stderr
    assert f"Serving snapshot {two[1]}" in result.stdout
    assert f"* {two[1]}" in cli(place, "snapshots", **target).stdout
    assert tables(place.legacy) == set(place.store.open().manifest.marts)


def test_take_over_from_an_empty_directory_is_refused(place, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    other = str(tmp_path / "other")
    assert_refused(cli(place, "take-over", "--source", str(empty), PARQUET_DIR=other), "no snapshot", str(empty))


def test_refresh_file_writes_what_is_served(place, two):
    result = cli(place, "refresh-file", LEGACY_DUCKDB_PATH=str(place.legacy))
    assert result.returncode == 0, result.stderr
    assert two[1] in result.stdout
    assert tables(place.legacy) == set(place.store.open().manifest.marts)


def tables(file):
    with duckdb.connect(str(file), read_only=True) as connection:
        return {
            name
            for (name,) in connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'"
            ).fetchall()
        }
