"""Whatever happens to the files of a snapshot: what is served was verified, or it is the last that could be."""

import os
import shutil

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from backend.checksum import file_sha256
from backend.config import Settings
from backend.duckdb import generations, verified
from backend.duckdb.client import Database
from backend.errors import SnapshotCorrupt
from tests.e2e.stack import wait_for

from .api import QUERY, bearer, open_api
from .marts import CATEGORIES, SPECS, damage, publish, write_parquet

EVERYTHING = {"queries": [{"dataset": spec.name, "limit": 1000} for spec in SPECS]}
BIG = {"resident_memory": 0}  # nothing fits into memory


@pytest.fixture(autouse=True)
def retry_at_once(monkeypatch):
    monkeypatch.setattr(generations, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(generations, "_RETRY_PAUSE", 0)


def content(client):
    answer = client.post("/api/analytics/query", json=EVERYTHING, headers=bearer(1, all_rows=True))
    assert answer.status_code == 200, answer.text
    return answer.json()


def served(client):
    """The one generation of all that is served."""
    (found,) = {row["generation"] for result in content(client)["results"] for row in result["rows"]}
    return found


def ready(client):
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    return answer.json()


def wait_until(condition):
    Retrying(retry=retry_if_result(lambda met: not met), stop=stop_after_delay(60), wait=wait_fixed(0.01))(condition)


def current(store):
    return store.root / "snapshots" / store.current_id()


def rotten(store):
    damage(store, store.current_id(), "fct_transactions")


def a_file_gone(store):
    (current(store) / "fct_transactions.parquet").unlink()


def all_gone(store):
    shutil.rmtree(current(store))


def manifest_gone(store):
    (current(store) / "manifest.json").unlink()


def truncated(store):
    path = current(store) / "fct_transactions.parquet"
    path.chmod(0o644)
    os.truncate(path, 100)


def replaced(store):
    other = store.root / "other"
    other.mkdir()
    write_parquet(other, 99)
    os.replace(other / "fct_transactions.parquet", current(store) / "fct_transactions.parquet")


DAMAGE = [rotten, a_file_gone, all_gone, manifest_gone, truncated, replaced]


@pytest.mark.parametrize("harm", DAMAGE)
def test_damage_changes_nothing_that_is_served_and_is_reported(store, client, harm, caplog):
    before = content(client)
    assert ready(client) == {**ready(client), "status": "ready", "problem": None}
    harm(store)
    assert content(client) == before
    client.app.state.database._generations.scrub()
    client.app.state.database._generations.scrub()
    assert content(client) == before
    found = ready(client)
    assert found["status"] == "degraded"
    assert before["snapshot"] in found["problem"]
    metrics = client.get("/metrics").text
    assert "analytics_degraded 1.0" in metrics
    assert "analytics_damage_found_total 1.0" in metrics
    assert caplog.text.count("'event': 'snapshot_damaged'") == 1

    publish(store, 2)
    assert served(client) == 2
    assert ready(client)["status"] == "ready"
    assert "analytics_degraded 0.0" in client.get("/metrics").text


def test_damage_is_found_without_being_asked(store):
    client, database = open_api(parquet_dir=store.root, scrub_seconds=0.001)
    content(client)
    rotten(store)
    wait_until(lambda: ready(client)["status"] == "degraded")
    database.close()


@pytest.mark.parametrize("harm", [rotten, truncated, replaced])
def test_a_new_snapshot_that_is_damaged_is_not_served(store, client, harm):
    before = content(client)
    publish(store, 2)
    harm(store)
    assert content(client) == before
    assert ready(client)["status"] == "degraded"
    assert store.current_id() in ready(client)["problem"]
    publish(store, 3)
    assert served(client) == 3
    assert ready(client) == {**ready(client), "status": "ready", "problem": None}


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_start_on_a_damaged_snapshot_serves_the_newest_intact_one_before_it(store, harm):
    first = store.current_id()
    publish(store, 2)
    rotten(store)
    rolled_back_to = publish(store, 3).id
    publish(store, 4)
    store.rollback(rolled_back_to, holder="a test")
    harm(store)
    client, _ = open_api(parquet_dir=store.root)
    assert content(client)["snapshot"] == first, "the second is damaged, the fourth was rolled back"
    assert ready(client)["status"] == "degraded"
    assert rolled_back_to in ready(client)["problem"]
    publish(store, 5)
    assert served(client) == 5


@pytest.mark.parametrize("harm", [rotten, a_file_gone, all_gone, truncated, replaced])
def test_a_mart_too_large_for_memory_is_never_served_damaged(store, harm):
    """What was not copied can't be served on once it is gone: then it is the snapshot before."""
    publish(store, 2)
    client, database = open_api(parquet_dir=store.root, **BIG)
    assert served(client) == 2
    assert database.status().resident_bytes == 0
    path = current(store) / "fct_transactions.parquet"
    harm(store)
    if path.exists():
        os.utime(path)  # as any write through the kernel does
    assert served(client) == 1
    assert ready(client)["status"] == "degraded"


def test_a_mart_too_large_for_memory_that_rots_without_a_write_is_served_until_it_is_found(store):
    """The disk gives back other bytes, and nothing else tells."""
    publish(store, 2)
    client, database = open_api(parquet_dir=store.root, **BIG)
    assert served(client) == 2
    rotten(store)
    database._generations.scrub()
    assert served(client) == 1
    assert ready(client)["status"] == "degraded"


def publish_partly(store, generation):
    """A snapshot that takes over `fct_transactions`."""
    with store.build("partial", holder="a test") as build:
        write_parquet(build.path, generation)
        (build.path / "fct_transactions.parquet").unlink()
        build.link(["fct_transactions"])
        return build.publish(SPECS)


def test_a_mart_too_large_for_memory_that_a_snapshot_took_over_is_not_hashed_again(store, monkeypatch):
    client, database = open_api(parquet_dir=store.root, **BIG)
    content(client)
    hashed = []

    def noted(path):
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(verified, "file_sha256", noted)
    new = publish_partly(store, 2)
    assert content(client)["snapshot"] == new.id
    assert hashed == ["dim_categories.parquet"]
    # Control: another file, if only a copy, is hashed.
    newer = publish_partly(store, 3)
    path = current(store) / "fct_transactions.parquet"
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)
    hashed.clear()
    assert content(client)["snapshot"] == newer.id
    assert sorted(hashed) == ["dim_categories.parquet", "fct_transactions.parquet"]
    database.close()


def test_where_a_mart_on_the_disk_was_found_damaged_nothing_known_of_it_is_believed(store):
    """It has the size, the times and the inode of the one that was verified, and a request still reads that one."""
    publish(store, 2)
    client, database = open_api(parquet_dir=store.root, **BIG)
    content(client)
    with database.connection():
        rotten(store)
        database._generations.scrub()
        assert served(client) == 1
        assert ready(client)["status"] == "degraded"
    database.close()


def test_damage_that_a_partial_build_took_over_is_never_served(store):
    """Nobody has written to the file, so that the build does not look into it."""
    publish(store, 2)
    rotten(store)
    taken = publish_partly(store, 3)
    client, database = open_api(parquet_dir=store.root)
    assert store.current_id() == taken.id
    assert served(client) == 1, "the second and the third have the damaged file"
    assert ready(client)["status"] == "degraded"
    database.close()


def test_a_mart_too_large_for_memory_that_changes_while_it_is_read(store):
    publish(store, 2)
    database = Database(Settings(**BIG), parquet_dir=store.root, duckdb_path=None)
    seen = []

    def work(connection):
        seen.append(connection.execute("SELECT any_value(generation) FROM fct_transactions").fetchall()[0][0])
        if len(seen) == 1:
            rotten(store)
            os.utime(current(store) / "fct_transactions.parquet")
        return seen[-1]

    assert database.read(work) == 1
    assert seen == [2, 1]
    database.close()


def test_without_an_intact_snapshot_it_is_an_error(store):
    rotten(store)
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    with pytest.raises(SnapshotCorrupt, match="is not the file that was published"):
        database.check()
    assert database.status().damage_found == 1
    database.close()


def test_a_lost_pointer_is_reported_and_found_again(store, client):
    before = content(client)
    (store.root / "mart").unlink()
    assert content(client) == before
    assert "mart is gone" in ready(client)["problem"]
    (store.root / "mart").symlink_to("/etc")
    assert content(client) == before
    assert "/etc" in ready(client)["problem"]
    store.rollback(before["snapshot"], holder="a test")
    assert content(client) == before
    assert ready(client)["status"] == "ready"


def test_a_rollback_away_from_a_damaged_snapshot_is_followed_at_once(store, client, monkeypatch):
    monkeypatch.setattr(generations, "_RETRY_SECONDS", 3600)
    first = store.current_id()
    assert served(client) == 1
    publish(store, 2)
    third = publish(store, 3).id
    rotten(store)
    assert served(client) == 1
    assert ready(client)["status"] == "degraded"
    store.rollback(store.ids()[1], holder="a test")
    assert served(client) == 2
    assert ready(client)["status"] == "ready"
    assert first < third


def test_marts_that_a_snapshot_took_over_are_in_memory_once(store, client):
    content(client)
    database = client.app.state.database
    alone = database.status().resident_bytes
    assert alone == sum(mart.bytes for mart in store.manifests()[0].marts.values())
    with database.connection():
        new = publish_partly(store, 2)

        def answered_from():
            return client.get(QUERY, headers=bearer(1)).json()["snapshot"]

        wait_for(lambda: answered_from() == new.id, "the new one is open", seconds=60, every=0.01)
        assert database.status().generations_open == 2
        assert database.status().resident_bytes == alone + new.marts[CATEGORIES.name].bytes
    # Somebody may be making a table of a copy that nobody else has any more.
    left = sum(mart.bytes for mart in new.marts.values())
    wait_for(lambda: database.status().resident_bytes == left, "the older copy is gone", seconds=60)
    database.close()
    assert database.status().resident_bytes == 0
