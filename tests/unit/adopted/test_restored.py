"""What a build of a project begins with."""

from types import SimpleNamespace

import duckdb
import pytest

from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted.build import restore


@pytest.fixture
def begin(tmp_path):
    """``begin(name)`` builds in a file of that name and adds a row: rows there were, whether a part was possible."""
    store = SnapshotStore(tmp_path / "parquet")
    own = tmp_path / "own.duckdb"

    def build(name):
        profile = SimpleNamespace(database=own)
        with store.build("run", holder="test") as build:
            file = build.workspace / name
            possible = restore(profile, file, build.restore_state)
            with duckdb.connect(str(file)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS history AS SELECT 0 AS n")
                rows = connection.execute("SELECT count(*) FROM history").fetchall()[0][0]
                connection.execute("INSERT INTO history VALUES (1)")
            build.publish([], state=[file])
        return rows, possible

    build.own = own
    return build


def test_at_first_it_is_new(begin):
    assert begin("shop.duckdb") == (1, False)


def test_at_first_it_is_the_projects_own_where_there_is_one_and_then_what_the_last_one_left(begin):
    with duckdb.connect(str(begin.own)) as connection:
        connection.execute("CREATE TABLE history AS FROM range(10)")
    assert begin("own.duckdb") == (10, False)
    assert begin("own.duckdb") == (11, True)


def test_a_database_that_has_another_name_now_is_gone_on_from_as_a_whole(begin):
    begin("dev.duckdb")
    assert begin("prod.duckdb") == (2, False)
    assert begin("prod.duckdb") == (3, True)
