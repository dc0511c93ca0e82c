"""Marts as tables in memory: not a byte of an answer tells, whatever is published, dropped or broken meanwhile."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.analytics import sql
from backend.config import Settings
from backend.duckdb import table, tables
from backend.duckdb.client import Database
from backend.duckdb.table import BLOCK_BYTES
from backend.duckdb.verified import VerifiedFiles
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import QUERY, assert_error, bearer, open_api
from .listening import listening
from .marts import CATEGORIES, TRANSACTIONS, damage, write_parquet
from .test_kept_answers import shown
from .test_metrics import samples

MIXED_ROWS = 2500
MIXED = {
    "user_id": ("INTEGER", "i % 3"),
    "n": ("BIGINT", "i * 7 % 2500"),
    "rowid": ("INTEGER", "i % 100"),
    "missing": ("INTEGER", "CASE WHEN i % 7 > 2 THEN i END"),
    "ratio": ("DOUBLE", "CASE i % 50 WHEN 0 THEN 'nan' WHEN 1 THEN -0.0 ELSE sin(i) * pow(10, i % 30 - 15) END"),
    "single": ("FLOAT", "sin(i)"),
    "huge": ("DECIMAL(38,0)", "CASE WHEN i % 3 = 0 THEN 5 ELSE 4 * 10::DECIMAL(38,0) ^ 37 + i END"),
    "text": ("VARCHAR", "CASE WHEN i % 5 > 0 THEN 'row ' || i % 17 || ' ü\n🙂' END"),
    "at": ("TIMESTAMP WITH TIME ZONE", "make_timestamptz(i * 1000003)"),
    "day": ("DATE", "CASE WHEN i % 5 > 0 THEN DATE '2024-01-01' + (i % 900)::INTEGER END"),
    "late": ("TIMESTAMP", "CASE i % 50 WHEN 0 THEN 'infinity'::TIMESTAMP ELSE make_timestamp(i) END"),
    "ns": ("TIMESTAMP_NS", "make_timestamp_ns(i * 1000000007)"),
    "uid": ("UUID", "md5(i::VARCHAR)::UUID"),
    "raw": ("BLOB", "encode(i::VARCHAR)"),
    "tags": ("VARCHAR[]", "CASE WHEN i % 4 > 0 THEN ['a', NULL, 'b' || i] END"),
    "numbers": ("INTEGER[]", "CASE WHEN i % 4 > 0 THEN [i, NULL, CASE WHEN i % 3 > 0 THEN i END] END"),
    "pair": (
        "STRUCT(a INTEGER, b DATE)",
        "CASE WHEN i % 3 > 0 THEN {'a': CASE WHEN i % 2 > 0 THEN i END, 'b': DATE '2024-01-01' + i::INTEGER} END",
    ),
    "counts": ("MAP(VARCHAR, INTEGER)", "MAP {'k' || i % 3: i}"),
    "generation": ("INTEGER", "?::INTEGER"),
}
SPECS = (
    CATEGORIES,
    TRANSACTIONS,
    MartSpec("mixed", "Mixed", "", tuple(Column(name, kind) for name, (kind, _) in MIXED.items())),
)
NAMES = {spec.name for spec in SPECS}


def write_mixed(directory, generation):
    columns = ", ".join(f"({value})::{kind} AS {name}" for name, (kind, value) in MIXED.items())
    select = f"SELECT {columns} FROM range({MIXED_ROWS}) t(i)"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select}) TO '{directory}/mixed.parquet' (ROW_GROUP_SIZE 2048)", [generation])


def publish(store, generation, *, taking_over=()):
    """All three marts, or a partial build that takes over some of the parent's."""
    with store.build(f"run-{generation}", holder="test", wait=30) as build:
        write_parquet(build.path, generation)
        write_mixed(build.path, generation)
        for name in taking_over:
            (build.path / f"{name}.parquet").unlink()
        build.link(taking_over)
        return build.publish(SPECS)


@pytest.fixture
def store(tmp_path):
    store = SnapshotStore(tmp_path / "parquet")
    publish(store, 1)
    return store


@pytest.fixture
def api(store):
    """The API, and what it reads; opened before logs are looked at, which it configures."""
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        yield client, database


@pytest.fixture
def made(monkeypatch):
    """Marts that a table was made of so far, one after the other."""
    names, make = [], tables._table

    def counted(instance, mart, file):
        names.append(mart.name)
        return make(instance, mart, file)

    monkeypatch.setattr(tables, "_table", counted)
    return names


def on_tables(database, snapshot=None):
    with database.connection(snapshot) as connection:
        return {name for name, dataset in connection.datasets.items() if dataset.table}


def settle(database, names=NAMES):
    """Wait until just these are tables."""
    wait_for(lambda: on_tables(database) == names, f"{names} are tables", seconds=60, every=0.01)


def held(database):
    """Bytes of tables that the instance has, and how many databases: what the operating system would notice."""
    with database.connection() as connection:
        cursor = connection._tables.cursor
        ((count,),) = cursor.execute("SELECT count(*) FROM duckdb_databases() WHERE NOT internal").fetchall()
        return table.held(cursor), count - 1


# --- answers ----------------------------------------------------------------------------------------------------------
MIXED_QUERY = "/api/analytics/datasets/mixed/query"
asked = st.sampled_from(
    [
        ("/api/analytics/datasets", ""),
        ("/api/analytics/datasets/fct_transactions", ""),
        (QUERY, "limit=7&offset=3"),
        (QUERY, "order=amount.desc&limit=50"),
        (MIXED_QUERY, "limit=2200"),
        (MIXED_QUERY, "limit=5&offset=2046"),
        (MIXED_QUERY, "order=text.desc.nullslast&limit=20&select=text,n,ratio"),
        (MIXED_QUERY, "select=rowid,ratio.sum(),ratio.avg(),single.sum(),count()&ratio=lt.1"),
        (MIXED_QUERY, "select=ratio.min(),ratio.max(),n.sum(),uid.min(),at.max()"),
        (MIXED_QUERY, "select=month:at.trunc(month),text,count()&order=count.desc,text&limit=30"),
        (MIXED_QUERY, "select=huge.sum()"),
        (MIXED_QUERY, "text=like.*7*&n=gte.100&at=lt.1970-01-01T01:00:00Z"),
        (MIXED_QUERY, "pair=is.null"),
        *[(MIXED_QUERY, f"format={name}") for name in ("csv", "arrow", "parquet")],
        *[(MIXED_QUERY, f"order=single&format={name}&limit=2400") for name in ("csv", "arrow", "parquet")],
        (MIXED_QUERY, "nope=eq.1"),
    ]
)
steps = st.lists(
    st.one_of(
        asked,
        asked,
        asked,
        st.sampled_from(["publish", "settle"]),
        st.sets(st.sampled_from(sorted(NAMES)), min_size=1, max_size=2).map(lambda names: ("take over", names)),
        st.integers(0, 5).map(lambda back: ("back", back)),
        st.tuples(st.just("pinned"), st.integers(0, 5), asked),
    ),
    min_size=5,
    max_size=12,
)


@settings(max_examples=6, deadline=None)
@given(steps=steps)
def test_whatever_is_published_and_asked_no_byte_tells_of_tables(tmp_path_factory, steps):
    store = SnapshotStore(tmp_path_factory.mktemp("tables") / "parquet")
    ids, generations = [publish(store, 0).id], itertools.count(1)
    with_tables, database = open_api(parquet_dir=store.root, kept_answers=0)
    without, other = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)

    def compare(path, parameters, snapshot=None):
        url = f"{path}?{parameters}{f'&snapshot={snapshot}' if snapshot else ''}"
        for caller in (bearer(1), bearer(2, all_rows=True)):
            headers = {**caller, "Prefer": "count=exact"}
            # The tag and the cursors tell settings apart.
            came, expected = (shown(api.get(url, headers=headers), without=["etag"]) for api in (with_tables, without))
            assert came == expected

    with with_tables, without:
        for step in ["settle", *steps]:
            if step == "publish":
                ids.append(publish(store, next(generations)).id)
            elif step == "settle":
                settle(database)
            elif step[0] == "take over":
                ids.append(publish(store, next(generations), taking_over=step[1]).id)
            elif step[0] == "back":
                store.rollback(ids[-1 - step[1] % len(ids)], holder="test")
            elif step[0] == "pinned":
                compare(*step[2], snapshot=ids[-1 - step[1] % len(ids)])
            else:
                compare(*step)
        assert on_tables(other) == set()


def test_all_pages_are_those_of_the_file(store):
    """Whose snapshot is replaced, and its tables dropped, after the first."""
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    without, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
    with client, without:
        settle(database)
        whole = without.get(f"{MIXED_QUERY}?select=n&limit=2500", headers=bearer(1)).json()["rows"]
        page = client.get(f"{MIXED_QUERY}?select=n&limit=500", headers=bearer(1)).json()
        rows = page["rows"]
        publish(store, 2)
        settle(database)
        while page["next"]:
            page = client.get(f"{MIXED_QUERY}?cursor={page['next']}", headers=bearer(1)).json()
            rows += page["rows"]
    assert rows == whole


@pytest.mark.parametrize(
    "parameters", ["select=n,day,late,at", "select=month:day.trunc(month),day.max(),late.min(),last:late.max()"]
)
def test_moments_are_written_as_those_of_the_file(store, parameters):
    """Also where a table knows that it has none that are written in another way."""
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    without, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
    with client, without:
        settle(database)
        with database.connection() as connection:
            bounded = {column.name for column in connection.datasets["mixed"].columns if column.bounded}
        came, expected = (
            api.get(f"{MIXED_QUERY}?{parameters}&limit=2500", headers=bearer(1)).json() for api in (client, without)
        )
    assert bounded == {"at", "day"}
    assert came["rows"] == expected["rows"]


def test_rows_of_many_row_groups_keep_their_order(tmp_path):
    """Read by two threads, each a part."""
    store, rows = SnapshotStore(tmp_path), 400_000
    with duckdb.connect() as connection, store.build("run", holder="test", wait=30) as build:
        select = f"SELECT 'row ' || i % 17 AS text, i * 7919 % {rows} AS number FROM range({rows}) t(i)"
        connection.execute(f"COPY ({select}) TO '{build.path}/numbers.parquet' (ROW_GROUP_SIZE 20480)")
        build.publish([MartSpec("numbers", "", "", (Column("text", "VARCHAR"), Column("number", "BIGINT")))])
    client, database = open_api(parquet_dir=store.root)
    with client:
        settle(database, {"numbers"})
        assert 0 < database.status().table_bytes < 5_000_000, "compressed; it has 10 MB otherwise"
        path = "/api/analytics/datasets/numbers/query?select=number&format=csv"
        numbers = client.get(path, headers=bearer(1)).text.split()[1:]
        assert numbers == [str(i * 7919 % rows) for i in range(rows)]
        with database.connection() as connection:
            on = connection.datasets["numbers"]
            others = f"SELECT count(*) FROM {on.relation} WHERE number <> {on.position} * 7919 % {rows}"
            assert connection.execute(others, on=on).fetchall() == [(0,)]


# --- a snapshot is switched -------------------------------------------------------------------------------------------
def test_nobody_waits_for_a_table(store, monkeypatch):
    go, make = threading.Event(), tables._table
    monkeypatch.setattr(tables, "_table", lambda *given: go.wait(60) and make(*given))
    client, database = open_api(parquet_dir=store.root)
    with client:
        for generation in (1, 2, 3):
            answer = client.get(QUERY, headers=bearer(1)).json()
            assert answer["rows"][0]["generation"] == generation
            assert on_tables(database) == set()
            publish(store, generation + 1)
        go.set()
        settle(database)


def test_marts_that_are_taken_over_are_tables_at_once(store, made):
    client, database = open_api(parquet_dir=store.root)
    with client:
        client.get(QUERY, headers=bearer(1))
        settle(database)
        made.clear()
        publish(store, 2, taking_over=["mixed", "dim_categories"])
        assert client.get(QUERY, headers=bearer(1)).json()["rows"][0]["generation"] == 2
        assert on_tables(database) >= {"mixed", "dim_categories"}
        settle(database)
        assert made == ["fct_transactions"]


def test_what_is_asked_for_most_comes_first(store, made, monkeypatch):
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        for path, times in ((MIXED_QUERY, 9), (QUERY, 3)):
            for _ in range(times):
                client.get(path, headers=bearer(1))
        settle(database)
        made.clear()
        publish(store, 2)
        client.get(QUERY, headers=bearer(1))
        settle(database)
        assert made == ["mixed", "fct_transactions", "dim_categories"]


def test_tables_go_with_the_last_snapshot_that_has_their_file(store):
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    settle(database)
    size, count = held(database)
    assert count == 3
    assert database.status().table_bytes == size
    with database.connection() as slow:
        publish(store, 2, taking_over=["mixed"])
        wait_for(lambda: held(database)[1] == 5, "new tables are made beside the old", seconds=60, every=0.01)
        settle(database)
        assert {name for name, dataset in slow.datasets.items() if dataset.table} == NAMES
        dataset = slow.datasets["fct_transactions"]
        rows = slow.execute(f"SELECT any_value(generation) FROM {dataset.relation}", on=dataset)
        assert rows.fetchall() == [(1,)]
    wait_for(lambda: held(database) == (size, 3), "the old ones are dropped", seconds=60, every=0.01)
    database.close()
    assert database.status().tables == database.status().table_bytes == 0


def test_who_reads_a_table_that_is_dropped_reads_on(store, monkeypatch):
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    settle(database)
    with database.connection() as slow:
        dataset = slow.datasets["mixed"]
        reader = slow.execute(f"SELECT n FROM {dataset.relation}", on=dataset).to_arrow_reader(2048)
        first = next(reader)
        for sha256 in slow._tables.tables:
            database._generations.tables._drop(sha256)
        assert database.status().tables == 0
        numbers = [n for batch in (first, *reader) for n in batch.to_pydict()["n"]]
        assert numbers == [i * 7 % MIXED_ROWS for i in range(MIXED_ROWS)]
    database.close()


# --- budget -----------------------------------------------------------------------------------------------------------
def test_there_is_room_for_so_much_and_what_is_asked_for_most_has_it(store, made):
    everything = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    settle(everything)
    size = everything.status().table_bytes // len(NAMES)  # each a block of DuckDB's
    everything.close()
    client, database = open_api(parquet_dir=store.root, kept_answers=0, table_memory=2 * size)
    with client:

        def ask(*names, times):
            for name, _ in itertools.product(names, range(times)):
                answer = client.get(f"/api/analytics/datasets/{name}/query?limit=1", headers=bearer(1))
                assert answer.json()["row_count"] == 1
                assert database.status().table_bytes <= 2 * size

        ask("mixed", "fct_transactions", times=4)
        settle(database, {"mixed", "fct_transactions"})
        assert held(database) == (2 * size, 2)
        ask("dim_categories", "mixed", times=20)
        settle(database, {"dim_categories", "mixed"})
        made.clear()
        ask("fct_transactions", *NAMES, times=8)
        assert database._generations.tables._step() is False
        assert made == []
        assert on_tables(database) == {"dim_categories", "mixed"}


def test_no_table_is_made_that_there_is_no_room_for(store, made):
    """However small its file is, it takes a block of DuckDB's."""
    client, database = open_api(parquet_dir=store.root, table_memory=3 * BLOCK_BYTES - 1)
    with client:
        wait_for(lambda: len(on_tables(database)) == 2, "two are tables", seconds=60, every=0.01)
        assert database._generations.tables._step() is False
        assert len(made) == 2


@pytest.mark.parametrize("limits", [{"table_memory": 0}, {"resident_memory": 0}])
def test_without_room_there_is_none(store, made, limits):
    """Also of marts that are read from the disk for want of memory: a table takes more of it."""
    client, database = open_api(parquet_dir=store.root, **limits)
    with client:
        assert client.get(QUERY, headers=bearer(1)).status_code == 200
        assert database._generations.tables._step() is False
        assert made == []


def test_the_tables_and_the_queries_on_them_keep_to_their_memory(store):
    database = Database(
        Settings(duckdb_memory_limit="336MiB", table_memory="96MiB"), parquet_dir=store.root, duckdb_path=None
    )
    settle(database)
    limit = "SELECT current_setting('memory_limit')"
    with database.connection() as connection:
        on = connection.datasets["mixed"]
        assert connection.execute(limit).fetchall() == [("48.0 MiB",)]
        assert connection.execute(limit, on=on).fetchall() == [("144.0 MiB",)]
        for statement in ("SELECT * FROM read_text('/etc/passwd')", "SET memory_limit = '100GB'"):
            with pytest.raises(duckdb.Error):
                connection.execute(statement, on=on)
    database.close()


# --- failures ---------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["statement", "session"])
def fail(request, monkeypatch):
    """``fail(error)``: each statement on a table raises it, or each session for one, until ``fail(None)``."""
    errors = [None]

    def raised(by):
        if errors[0] is not None and request.param == by:
            raise errors[0]

    class Cursor:
        def __init__(self, cursor):
            self._cursor = cursor

        def __getattr__(self, name):
            return getattr(self._cursor, name)

        def execute(self, *statement):
            raised("statement")
            return self._cursor.execute(*statement)

    class Session(tables.Session):
        def __init__(self, *given):
            *others, opened = given
            super().__init__(*others, lambda: raised("session") or Cursor(opened()))

    monkeypatch.setattr(tables, "Session", Session)
    return lambda error: errors.__setitem__(0, error)


FATAL = [duckdb.FatalException("database has been invalidated"), duckdb.InternalException("assertion failed")]
PASSING = [duckdb.OutOfMemoryException("failed to allocate"), duckdb.CatalogException("there is no such database")]


@pytest.mark.parametrize("path", [MIXED_QUERY, f"{QUERY}?format=csv", "/api/analytics/datasets"])
@pytest.mark.parametrize("error", [*FATAL, *PASSING])
def test_what_fails_on_a_table_is_answered_from_the_file(api, fail, caplog, error, path):
    client, database = api
    settle(database)
    expected = shown(client.get(path, headers=bearer(1)))
    fail(error)
    assert [shown(client.get(path, headers=bearer(1))) for _ in range(3)] == [expected] * 3
    assert database.status().generations_open == 1
    fatal = error in FATAL
    assert database.status().tables == (0 if fatal else len(NAMES))
    assert caplog.text.count("'event': 'tables_discarded'") == fatal


@pytest.mark.parametrize("error", FATAL)
def test_an_instance_that_failed_for_good_is_replaced_after_a_while(store, fail, error):
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    settle(database)
    with database.connection() as other:
        fail(error)
        with pytest.raises(type(error)), database.connection() as connection:
            connection.execute("SELECT 1", on=connection.datasets["mixed"])
        status = database.status()
        assert (status.tables, status.table_bytes, status.generations_open) == (0, 0, 1)
        assert database._generations.tables._step() is False
        fail(None)
        rows = other.execute(f"SELECT 1 FROM {other.datasets['mixed'].relation}", on=other.datasets["mixed"])
        assert len(rows.fetchall()) == MIXED_ROWS
    database._generations.tables._rest_until = 0
    database._generations.tables.look()
    settle(database)
    database.close()


@pytest.mark.parametrize("error", [*FATAL, *PASSING])
def test_a_mart_that_no_table_can_be_made_of_stays_on_its_file(api, monkeypatch, caplog, error):
    monkeypatch.setattr(tables, "_REST_SECONDS", 0)
    make = tables._table

    def failing(instance, mart, file):
        table = make(instance, mart, file)
        if mart.name == "mixed":
            raise error
        return table

    monkeypatch.setattr(tables, "_table", failing)
    client, database = api
    said = "'event': 'mart_not_in_memory'"
    client.get(MIXED_QUERY, headers=bearer(1))
    wait_for(lambda: said in caplog.text, "it was tried", seconds=60, every=0.01)
    settle(database, NAMES - {"mixed"})
    for _ in range(9):
        assert client.get(MIXED_QUERY, headers=bearer(1)).status_code == 200
    assert database._generations.tables._step() is False
    assert held(database)[1] == 2
    assert caplog.text.count(said) == 1
    assert client.get("/health/ready").json()["status"] == "ready"


def test_a_table_that_is_not_the_mart_is_none(api, monkeypatch, caplog):
    borrow = VerifiedFiles.borrow

    def another(files, sha256):
        files.release([borrow(files, sha256)])
        return borrow(files, min(files.in_memory()))

    monkeypatch.setattr(VerifiedFiles, "borrow", another)
    _, database = api
    wait_for(
        lambda: database.check() and caplog.text.count("mart_not_in_memory") == 2, "two others", seconds=60, every=0.01
    )
    assert len(on_tables(database)) == 1
    assert held(database)[1] == 1


def test_damage_of_the_files_changes_nothing(store):
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        settle(database)
        before = shown(client.get(MIXED_QUERY, headers=bearer(1)))
        damage(store, store.current_id(), "mixed")
        database._generations.scrub()
        assert client.get("/health/ready").json()["status"] == "degraded"
        assert shown(client.get(MIXED_QUERY, headers=bearer(1))) == before
        assert on_tables(database) == NAMES


# --- time -------------------------------------------------------------------------------------------------------------
def endless(query, _):
    return f"SELECT sum(i)::VARCHAR FROM {query.dataset.relation}, range(1000000000) t(i)", []


def test_a_query_of_a_table_that_takes_too_long_is_stopped(store, monkeypatch):
    client, database = open_api(parquet_dir=store.root, statement_timeout_seconds=0.3)
    with client:
        settle(database)
        with monkeypatch.context() as patch:
            patch.setattr(sql, "documents", endless)
            assert_error(client.get(MIXED_QUERY, headers=bearer(1)), 504, "statement_timeout")
        assert "analytics_queries_running 0.0" in client.get("/metrics").text
        assert database.status().tables == len(NAMES)


def test_a_client_that_goes_away_ends_its_query_of_a_table(store, monkeypatch):
    with listening(store, statement_timeout_seconds=3600, concurrent_queries=1) as api:
        settle(api.database)
        with monkeypatch.context() as patch:
            patch.setattr(sql, "documents", endless)
            connection = api.begin(MIXED_QUERY)
            api.wait_for_queries(running=1, waiting=0)
        connection.close()
        api.wait_for_queries(running=0, waiting=0)
        assert api.get(MIXED_QUERY).status_code == 200


def test_an_interrupt_hits_the_session_on_the_tables_and_no_other(store):
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    settle(database)
    statement = "SELECT sum(i % 7) FROM range(?) t(i)"
    started = threading.Event()

    def work(connection):
        started.set()
        return connection.execute(statement, [200_000_000], on=connection.datasets["mixed"]).fetchall()

    with database.connection() as other, ThreadPoolExecutor(1) as pool:
        unhurt = pool.submit(database.read, work)
        assert started.wait(60)
        threading.Timer(0.2, other.interrupt).start()
        with pytest.raises(duckdb.InterruptException):
            other.execute(statement, [10**10], on=other.datasets["mixed"])
        assert not unhurt.done()
        assert unhurt.result() == [(599_999_994,)]
    database.close()


def test_the_metrics_tell_of_tables(store):
    client, database = open_api(parquet_dir=store.root)
    with client:
        settle(database)
        assert samples(client, "analytics_tables") == {(): len(NAMES)}
        assert samples(client, "analytics_table_bytes") == {(): held(database)[0]}
