import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from backend.config import Settings
from backend.duckdb import client as duckdb_client
from backend.duckdb import engine, generations
from backend.duckdb.client import Database
from backend.errors import SnapshotCorrupt, SnapshotGone
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import QUERY, bearer, open_api
from .marts import SPECS, damage, publish, transactions, write_parquet

SETTINGS = Settings()
GENERATION = "SELECT any_value(generation) FROM dim_categories"
BOTH = {"queries": [{"dataset": "dim_categories"}, {"dataset": "fct_transactions", "limit": 1000}]}


@pytest.fixture
def database(store):
    database = Database(SETTINGS, parquet_dir=store.root, duckdb_path=None)
    yield database
    database.close()


def generation(database, snapshot=None):
    return database.read(lambda connection: connection.execute(GENERATION).fetchall()[0][0], snapshot)


def test_a_switch_looks_only_into_marts_whose_files_are_new(store, database, monkeypatch):
    looked = []

    def counted(connection, relation, mart, source):
        looked.append(mart.name)
        return engine.columns_of(connection, relation, mart, source)

    monkeypatch.setattr("backend.duckdb.generation.columns_of", counted)
    assert generation(database) == 1
    assert sorted(looked) == ["dim_categories", "fct_transactions"]
    looked.clear()
    with store.build("partial", holder="test", wait=30) as build:
        write_parquet(build.path, 2)
        (build.path / "fct_transactions.parquet").unlink()
        build.link(["fct_transactions"])
        build.publish(SPECS)
    assert generation(database) == 2
    assert looked == ["dim_categories"]
    counts = database.read(lambda connection: connection.execute("SELECT count(*) FROM fct_transactions").fetchall())
    assert counts == [(len(transactions(1)),)]


def test_publishing_under_load_gives_whole_answers_and_no_errors(store):
    client, database = open_api(parquet_dir=store.root)
    published = {store.current_id(): 1}
    done = threading.Event()

    def ask():
        answers = []
        while not done.is_set() or len(answers) < 5:
            response = client.post("/api/analytics/query", json=BOTH, headers=bearer(1))
            answers.append((response.status_code, response.json(), response.headers.get("x-snapshot-id")))
        return answers

    with client, ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(ask) for _ in range(4)]
        for number in range(2, 8):
            published[publish(store, number).id] = number
            store.retain(keep=1, minutes=0)
        done.set()
        answers = [answer for reader in readers for answer in reader.result()]

        assert {status for status, _, _ in answers} == {200}
        for _, answer, header in answers:
            seen = {row["generation"] for result in answer["results"] for row in result["rows"]}
            assert seen == {published[answer["snapshot"]]}
            assert {result["snapshot"] for result in answer["results"]} == {header}
        assert client.get(QUERY, headers=bearer(1)).json()["rows"][0]["generation"] == 7
        # Nothing is held but the current one: old instances are closed and their snapshots may go.
        assert database.status().generations_open == 1
        store.retain(keep=1, minutes=0)
        assert os.listdir(store.root / "snapshots") == [store.current_id()]


class Slow:
    """Opening a snapshot waits until it may go on."""

    def __init__(self, patch):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.times = 0
        opened = SnapshotStore.open

        def slow_open(store, snapshot_id=None):
            self.times += 1
            self.begun.set()
            assert self.go_on.wait(60)
            return opened(store, snapshot_id)

        patch.setattr(SnapshotStore, "open", slow_open)


def test_while_one_request_opens_the_new_snapshot_others_use_the_old(store, database, monkeypatch):
    assert generation(database) == 1
    publish(store, 2)
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        opener = pool.submit(generation, database)
        assert slow.begun.wait(60)
        assert [generation(database) for _ in range(3)] == [1, 1, 1]
        slow.go_on.set()
        assert opener.result() == 2
    assert generation(database) == 2


def test_among_others_nobody_waits_for_the_new_snapshot(store, database, monkeypatch):
    assert generation(database) == 1
    with database.connection() as other:
        publish(store, 2)
        slow = Slow(monkeypatch)
        assert [generation(database) for _ in range(3)] == [1, 1, 1]
        assert slow.begun.wait(60)
        slow.go_on.set()
        wait_for(lambda: generation(database) == 2, "the new one is open", seconds=60, every=0.01)
        assert other.execute(GENERATION).fetchall() == [(1,)]
    assert slow.times == 1
    assert database.status().generations_open == 1


def test_what_is_being_opened_aside_is_waited_for_at_the_end(store, database, monkeypatch):
    with database.connection(), ThreadPoolExecutor(1) as pool:
        publish(store, 2)
        slow = Slow(monkeypatch)
        assert generation(database) == 1
        assert slow.begun.wait(60)
        closing = threading.Event()
        close = database._generations.holds.close
        monkeypatch.setattr(database._generations.holds, "close", lambda: (close(), closing.set()))
        closed = pool.submit(database.close)
        assert closing.wait(60)
        slow.go_on.set()
        closed.result(60)
        for thread in threading.enumerate():
            if thread.name == "opening":
                thread.join()
    assert database.status().generations_open == 0


def test_what_cannot_be_opened_aside_is_tried_again_as_seldom_as_ever(store, database, monkeypatch):
    tried = []
    opened = SnapshotStore.open
    monkeypatch.setattr(SnapshotStore, "open", lambda self, *given: tried.append(1) or opened(self, *given))
    with database.connection():
        damage(store, publish(store, 2).id)
        wait_for(lambda: generation(database) == 1 and database.status().problem, "it is said", seconds=60, every=0.01)
        monkeypatch.setattr(generations, "_RETRY_SECONDS", 3600)
        database._generations._retry_at = time.monotonic() + 3600
        tried.clear()
        threads = threading.active_count()
        assert [generation(database) for _ in range(50)] == [1] * 50
        assert (tried, threading.active_count()) == ([], threads)


def test_where_there_is_no_thread_for_it_another_request_opens_it(store, database, monkeypatch):
    def refused(_):
        raise RuntimeError("can't start new thread")

    with database.connection():
        publish(store, 2)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            with pytest.raises(RuntimeError):
                generation(database)
    assert generation(database) == 2
    assert database.status().generations_open == 1


def test_an_old_generation_lives_until_its_last_request_ends(store, database):
    old = store.current_id()
    with database.connection() as slow:
        publish(store, 2)
        wait_for(lambda: generation(database) == 2, "the new one is open", seconds=60, every=0.01)
        assert database.status().generations_open == 2
        assert store.retain(keep=1, minutes=0) == []
        assert slow.snapshot == old
        assert slow.execute(GENERATION).fetchall() == [(1,)]
    assert database.status().generations_open == 1
    assert store.retain(keep=1, minutes=0) == [old]


def test_a_damaged_snapshot_is_not_served_and_the_next_good_one_is(store, database, monkeypatch):
    monkeypatch.setattr(generations, "_RETRY_SECONDS", 0)
    assert generation(database) == 1
    damage(store, publish(store, 2).id)
    assert [generation(database) for _ in range(3)] == [1, 1, 1]
    assert database.status().generations_open == 1
    publish(store, 3)
    assert generation(database) == 3


def test_a_damaged_snapshot_is_tried_again_once_in_a_while(store, database, monkeypatch):
    monkeypatch.setattr(generations, "_RETRY_SECONDS", 3600)
    assert generation(database) == 1
    damage(store, publish(store, 2).id)
    tries = []
    opened = SnapshotStore.open

    def counting_open(self, snapshot_id=None):
        tries.append(snapshot_id)
        return opened(self, snapshot_id)

    monkeypatch.setattr(SnapshotStore, "open", counting_open)
    for _ in range(5):
        generation(database)
    assert len(tries) == 1


@pytest.mark.parametrize("how", ["damaged", "no manifest", "pointer", "dangling", "marts"])
def test_without_a_last_good_one_it_is_an_error(store, database, how):
    directory = store.root / "snapshots" / store.current_id()
    if how == "damaged":
        damage(store, store.current_id())
    elif how == "no manifest":
        (directory / "manifest.json").unlink()
    elif how == "pointer":
        (store.root / "mart").unlink()
        (store.root / "mart").symlink_to("/etc")
    elif how == "dangling":
        directory.rename(store.root / "elsewhere")
    else:
        shutil.copy(directory / "fct_transactions.parquet", directory / "other")
        (directory / "other").replace(directory / "dim_categories.parquet")
    for _ in range(2):
        with pytest.raises(SnapshotCorrupt):
            generation(database)
    assert database.status().generations_open == 0


def test_going_back_to_an_earlier_snapshot(store, database):
    first = store.current_id()
    publish(store, 2)
    assert generation(database) == 2
    store.rollback(first, holder="test")
    assert generation(database) == 1
    assert database.status().snapshot == first


def test_an_instance_that_failed_for_good_is_replaced(store, database):
    def fail(_):
        raise duckdb.FatalException("database has been invalidated")

    second = publish(store, 2).id
    for snapshot in (None, None, second):
        assert generation(database, snapshot) == 2
        with pytest.raises(duckdb.FatalException):
            database.read(fail, snapshot)
        assert database.status().generations_open == 0
    first = store.rollback(store.manifests()[0].id, holder="test").id
    assert generation(database, first) == 1


def test_pinned_snapshots_are_few(store):
    settings = Settings(pinned_snapshots=2)
    database = Database(settings, parquet_dir=store.root, duckdb_path=None)
    snapshots = {store.current_id(): 1, **{publish(store, number).id: number for number in range(2, 7)}}
    assert generation(database) == 6
    for snapshot, number in [*snapshots.items(), *snapshots.items()]:
        assert generation(database, snapshot) == number
        assert database.status().generations_open <= 3
    database.close()
    assert database.status().generations_open == 0


def test_a_pinned_snapshot_that_nobody_uses_is_let_go(store):
    database = Database(Settings(pinned_idle_seconds=1e-9), parquet_dir=store.root, duckdb_path=None)
    first = store.current_id()
    publish(store, 2)
    assert generation(database, first) == 1
    assert store.retain(keep=1, minutes=0) == []
    assert generation(database) == 2
    assert store.retain(keep=1, minutes=0) == [first]
    with pytest.raises(SnapshotGone):
        generation(database, first)
    database.close()


def test_the_instance_reads_its_snapshot_and_nothing_else(store, database, tmp_path):
    (tmp_path / "other.csv").write_text("a\n1\n")
    secret = f"SELECT * FROM read_csv('{tmp_path}/other.csv')"
    here = "python variable"  # noqa: F841 - what a replacement scan would find
    opened = os.open(tmp_path / "other.csv", os.O_RDONLY)
    for statement in (
        secret,
        "SELECT * FROM read_text('/etc/passwd')",
        # Its copies are among the descriptors of the process, in which there are other files, too.
        f"SELECT * FROM read_text('/proc/self/fd/{opened}')",
        "SELECT * FROM read_text('/proc/self/fd/../environ')",
        f"ATTACH '{tmp_path}/new.duckdb'",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "INSTALL httpfs",
        "LOAD postgres_scanner",
        "SELECT * FROM here",
    ):
        with database.connection() as connection, pytest.raises(duckdb.Error):
            connection.execute(statement)
    os.close(opened)
    assert sorted(os.listdir(tmp_path)) == ["other.csv", "parquet"]


def test_a_plain_directory_is_read_again_when_it_was_replaced_meanwhile(tmp_path):
    mart = tmp_path / "mart"
    mart.mkdir()
    write_parquet(mart, 1)
    database = Database(SETTINGS, parquet_dir=tmp_path, duckdb_path=None)
    seen = []

    def work(connection):
        seen.append(connection.execute(GENERATION).fetchall()[0][0])
        if len(seen) == 1:
            replacement = tmp_path / "replacement"
            replacement.mkdir()
            write_parquet(replacement, 2)
            for path in replacement.iterdir():
                path.replace(mart / path.name)
        return connection.snapshot

    snapshot = database.read(work)
    assert seen == [1, 2]
    assert snapshot == SnapshotStore(tmp_path).current_id()
    with pytest.raises(SnapshotGone):
        database.read(work, "plain-0000000000000000")
    database.close()


def test_a_plain_directory_that_never_rests_is_an_error(tmp_path):
    mart = tmp_path / "mart"
    mart.mkdir()
    write_parquet(mart, 1)
    database = Database(SETTINGS, parquet_dir=tmp_path, duckdb_path=None)

    def work(_):
        os.utime(mart / "dim_categories.parquet", ns=(0, len(seen) + 1))
        seen.append(1)

    seen = []
    with pytest.raises(SnapshotCorrupt, match="changed"):
        database.read(work)
    database.close()


def test_the_functions_of_the_module_read_what_the_environment_names(store, duckdb_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PARQUET_DIR", str(store.root))
    monkeypatch.setenv("DUCKDB_PATH", str(duckdb_file))
    duckdb_client.database.cache_clear()
    try:
        rows = duckdb_client.execute_query(
            "SELECT transaction_id AS id FROM fct_transactions WHERE user_id = ? LIMIT 1", [2]
        )
        assert rows == [{"id": 2000}]
        assert duckdb_client.check_connection() is True
        assert duckdb_client._get_last_refresh_time() == store.open().manifest.created_at
        with duckdb_client.get_connection() as connection:
            assert connection.snapshot == store.current_id()
            assert connection.cursor().execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
    finally:
        duckdb_client.database().close()
        duckdb_client.database.cache_clear()
