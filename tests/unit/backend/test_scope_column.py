"""A mart may name the column that says whose row it is; then no other user sees it, in any phase."""

import json

import duckdb
import pytest

from backend.errors import AuditFailed
from backend.manifest import Column, MartSpec
from backend.scripts.bootstrap_duckdb import write_duckdb_file
from backend.snapshots import SnapshotStore

from .api import bearer, open_api

OWNED = "SELECT * FROM (VALUES ('1', 10), ('2', 20), ('guest', 30), (NULL, 40), ('01', 50)) AS t(owner, n)"
KEYS = "SELECT uuid AS owner, 1 AS n FROM (VALUES (UUID '00000000-0000-0000-0000-000000000001')) AS t(uuid)"
EXACT = "SELECT * FROM (VALUES (1.0::DECIMAL(4,1), 10), (1.5, 20)) AS t(owner, n)"


def publish(store, select, scope="owner"):
    with store.build("run", holder="test") as build:
        duckdb.sql(select).write_parquet(str(build.path / "owned.parquet"))
        found = duckdb.sql(select)
        columns = tuple(Column(*pair) for pair in zip(found.columns, map(str, found.types), strict=True))
        return build.publish([MartSpec("owned", "Owned", "", columns, scope=scope)])


@pytest.fixture(params=["snapshot", "the file that is kept for the way back"])
def numbers(request, tmp_path):
    """``numbers(select, user)``: which `n` the user sees; None is who sees all."""

    def seen(select, user):
        store = SnapshotStore(tmp_path / "parquet")
        publish(store, select)
        place = {"parquet_dir": store.root}
        if request.param != "snapshot":
            with store.open() as snapshot:
                write_duckdb_file(snapshot, tmp_path / "analytics.duckdb")
            place = {"duckdb_path": tmp_path / "analytics.duckdb"}
        client, _ = open_api(**place)
        with client:
            headers = bearer(all_rows=True) if user is None else bearer(user)
            answer = client.get("/api/analytics/datasets/owned/query", headers=headers)
            assert answer.status_code == 200, answer.text
            count = client.get("/api/analytics/datasets/owned", headers=headers).json()["row_count"]
            assert count == len(answer.json()["rows"])
            return [row["n"] for row in answer.json()["rows"]]

    return seen


@pytest.mark.parametrize(("user", "expected"), [(1, [10]), (2, [20]), (3, []), (None, [10, 20, 30, 40, 50])])
def test_only_the_users_rows_are_shown(numbers, user, expected):
    assert numbers(OWNED, user) == expected


def test_what_no_user_can_be_is_nobodys(numbers):
    assert numbers(KEYS, 1) == []


def test_numbers_are_compared_as_numbers(numbers):
    assert numbers(EXACT, 1) == [10]


def test_a_column_that_was_named_and_is_not_there_is_refused(tmp_path):
    store = SnapshotStore(tmp_path)
    with pytest.raises(AuditFailed, match="the column 'holder' is to say whose row it is, and it has only owner, n"):
        publish(store, OWNED, scope="holder")
    assert store.current_id() is None


def test_a_manifest_is_as_it_was_before_there_was_a_choice(tmp_path):
    store = SnapshotStore(tmp_path)
    published = publish(store, "SELECT 1 AS user_id, 2 AS n", scope="user_id")
    data = json.loads((tmp_path / "mart" / "manifest.json").read_text())
    assert data.keys() == {"id", "parent", "created_at", "marts", "run_id", "source", "sha256"}
    assert "scope" not in data["marts"][0]
    assert published.marts["owned"].user_column == "user_id"
    with store.open() as snapshot:
        assert snapshot.manifest == published
