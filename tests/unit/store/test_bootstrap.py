import subprocess
import sys
from datetime import UTC, datetime
from threading import Event, Thread

import duckdb
import pytest

from backend.manifest import Column, MartSpec
from backend.scripts import bootstrap_duckdb
from backend.scripts.bootstrap_duckdb import legacy_snapshot_id, refresh_duckdb_file, write_duckdb_file
from backend.snapshots import SnapshotStore

from .marts import NAMES, ROWS, publish

ODD = "SELECT * FROM (VALUES {rows}) AS t(n, amount, moment, path, note) ORDER BY n DESC"
FIRST = "(1::BIGINT, 0.10::DECIMAL(12,2), TIMESTAMPTZ '2024-02-29 23:59:59.5+00', ['a', NULL], 'O''Neil \"é\" 🎉')"
SECOND = "(2, NULL, NULL, NULL, NULL)"
COLUMNS = (
    Column("n", "BIGINT", "Which; it's the key."),
    Column("amount", "DECIMAL(12,2)", 'In "euros" €.'),
    Column("moment", "TIMESTAMP WITH TIME ZONE", "When."),
    Column("path", "VARCHAR[]", "Where; -- DROP TABLE x"),
    Column("note", "VARCHAR", ""),
)
SPECS = (
    MartSpec("odd", "Odd", 'One row per it\'s "odd" 🎉; SELECT 1.', COLUMNS),
    MartSpec("empty", "Empty", "No row at all.", COLUMNS),
)


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "store")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "analytics.duckdb"


def read(file, sql):
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def generations(file):
    return {name: read(file, f"SELECT DISTINCT generation FROM {name}")[0][0] for name in NAMES}


def test_rows_order_types_and_comments_are_those_of_the_marts(store, file):
    with store.build("run", holder="test") as build, duckdb.connect() as connection:
        select = ODD.format(rows=f"{FIRST}, {SECOND}")
        connection.execute(f"COPY ({select}) TO '{build.path / 'odd.parquet'}' (FORMAT parquet)")
        connection.execute(f"COPY ({select} LIMIT 0) TO '{build.path / 'empty.parquet'}' (FORMAT parquet)")
        build.publish(SPECS)
    with store.open() as snapshot:
        write_duckdb_file(snapshot, file)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            expected = connection.execute("FROM read_parquet(?)", [str(snapshot.file("odd"))]).fetchall()
    assert read(file, "FROM odd") == expected
    assert [row[0] for row in expected] == [2, 1]
    assert read(file, "FROM empty") == []
    for spec in SPECS:
        columns = read(
            file, f"SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = '{spec.name}'"
        )
        assert columns == [(column.name, column.type, column.description or None) for column in COLUMNS]
    tables = read(file, "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'main'")
    assert dict(tables) == {s.name: s.description for s in SPECS}


def test_the_file_says_of_which_snapshot_it_is_and_is_as_old_as_that(store, file):
    publish(store, 1)
    refresh_duckdb_file(store, file)
    first = legacy_snapshot_id(file), datetime.fromtimestamp(file.stat().st_mtime, UTC)
    publish(store, 2)
    refresh_duckdb_file(store, file)
    second = legacy_snapshot_id(file), datetime.fromtimestamp(file.stat().st_mtime, UTC)
    assert [first, second] == [(manifest.id, manifest.created_at) for manifest in store.manifests()]


def test_a_file_that_a_phase_0_build_wrote_says_of_none(file):
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE dim_one AS SELECT 1")
    assert legacy_snapshot_id(file) is None


KILLED = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE history AS SELECT 1 AS one")
os._exit(0)
"""


def test_what_a_killed_build_has_only_in_the_log_is_written_since(store, file):
    publish(store, 1)
    refresh_duckdb_file(store, file)
    before = file.stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", KILLED, str(file)], check=True)
    assert file.stat().st_mtime_ns == before
    assert legacy_snapshot_id(file) is None
    assert read(file, "FROM history") == [(1,)]


def test_it_replaces_the_file_its_log_and_what_a_killed_writer_left(store, file):
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE old AS SELECT 1")
    logs = [
        file.with_name(name) for name in ("analytics.duckdb.wal", "analytics.duckdb.next", "analytics.duckdb.next.wal")
    ]
    for leftover in logs:
        leftover.write_bytes(b"left by a killed process")
    publish(store, 1)
    refresh_duckdb_file(store, file)
    assert {name for (name,) in read(file, "SHOW TABLES")} == set(NAMES)
    assert [leftover for leftover in logs if leftover.exists()] == []


def test_a_mart_that_cannot_be_read_leaves_the_file_as_it_was(store, file):
    publish(store, 1)
    refresh_duckdb_file(store, file)
    second = publish(store, 2)
    target = store.root / "snapshots" / second.id / f"{NAMES[1]}.parquet"
    target.chmod(0o644)
    target.write_bytes(b"damaged")
    with pytest.raises(duckdb.Error):
        refresh_duckdb_file(store, file)
    assert generations(file) == dict.fromkeys(NAMES, 1)


READER = """
import sys, duckdb
held = duckdb.connect(sys.argv[1], read_only=True)
print(held.execute("SELECT generation, count(*) FROM dim_one GROUP BY ALL").fetchall(), flush=True)
sys.stdin.readline()
print(held.execute("SELECT generation, count(*) FROM fct_two GROUP BY ALL").fetchall(), flush=True)
"""


def test_a_reader_keeps_its_file_and_the_next_one_gets_the_new(store, file):
    publish(store, 1)
    refresh_duckdb_file(store, file)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout.readline() == f"[(1, {ROWS})]\n"
        publish(store, 2)
        refresh_duckdb_file(store, file)
        assert generations(file) == dict.fromkeys(NAMES, 2)
        output, _ = reader.communicate("\n", timeout=60)
        assert output == f"[(1, {ROWS})]\n"
        assert reader.returncode == 0
    finally:
        reader.kill()
        reader.communicate(timeout=60)


OPENER = """
import sys, duckdb
while not sys.stdin.closed:
    with duckdb.connect(sys.argv[1], read_only=True) as connection:
        print(*[connection.execute(f"SELECT max(generation) FROM {name}").fetchone()[0]
                for name in ("dim_one", "fct_two", "agg_three")], flush=True)
    if not sys.stdin.readline():
        break
"""


def test_whoever_opens_the_file_while_it_is_refreshed_reads_one_whole_generation(store, file):
    publish(store, 1)
    refresh_duckdb_file(store, file)
    reader = subprocess.Popen(
        [sys.executable, "-c", OPENER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        reader.stdin.write("\n" * 60)
        reader.stdin.close()
        reader.stdin = None
        for generation in range(2, 8):
            publish(store, generation)
            refresh_duckdb_file(store, file)
        output, _ = reader.communicate(timeout=120)
    finally:
        reader.kill()
        reader.communicate(timeout=60)
    assert reader.returncode == 0
    reads = [line.split() for line in output.splitlines()]
    assert len(reads) == 61
    assert all(len(set(read)) == 1 for read in reads)


def test_two_refreshes_take_turns_and_the_last_writes_what_is_served_by_then(store, file, monkeypatch):
    publish(store, 1)
    copying, go_on = Event(), Event()
    copy = bootstrap_duckdb._copy

    def held_up(connection, snapshot):
        copying.set()
        assert go_on.wait(60)
        copy(connection, snapshot)

    monkeypatch.setattr(bootstrap_duckdb, "_copy", held_up)
    threads = [Thread(target=refresh_duckdb_file, args=(store, file)) for _ in range(2)]
    threads[0].start()
    assert copying.wait(60)
    publish(store, 2)
    copying.clear()
    threads[1].start()
    assert not copying.wait(0.2), "the second began while the first was writing"
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert generations(file) == dict.fromkeys(NAMES, 2)
