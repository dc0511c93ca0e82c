"""Rows kept beside their table as they are answered: whose they are depends on what is asked, no answer on them."""

import itertools

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.analytics import documents as documents_of
from backend.api.analytics import formats, sql
from backend.duckdb import table, tables
from backend.duckdb.table import Form
from backend.kept_rows import TooLarge, written
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import bearer, open_api
from .test_kept_answers import shown
from .test_metrics import samples
from .test_tables import MIXED, on_tables, settle

ROWS = 2500
COLUMNS = {name: column for name, column in MIXED.items() if name != "rowid"}
MARTS = {
    "plain": (ROWS, COLUMNS),
    "short": (700, COLUMNS),
    "empty": (0, COLUMNS),
    "numbered": (ROWS, MIXED),  # has a column of the name that DuckDB has for a row's position
}
SPECS = [
    MartSpec(name, name, "", tuple(Column(column, kind) for column, (kind, _) in columns.items()))
    for name, (_, columns) in MARTS.items()
]


def path(mart):
    return f"/api/analytics/datasets/{mart}/query"


def publish(store, generation, *, taking_over=()):
    with duckdb.connect() as connection, store.build(f"run-{generation}", holder="test", wait=30) as build:
        for name, (rows, columns) in MARTS.items():
            if name not in taking_over:
                values = ", ".join(f"({value})::{kind} AS {column}" for column, (kind, value) in columns.items())
                select = f"SELECT {values} FROM range({rows}) t(i)"
                connection.execute(f"COPY ({select}) TO '{build.path}/{name}.parquet'", [generation])
        build.link(taking_over)
        return build.publish(SPECS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two APIs on one store, of which one keeps rows, and the database of that one."""
    store = SnapshotStore(tmp_path_factory.mktemp("documents") / "parquet")
    publish(store, 1)
    keeping, database = open_api(parquet_dir=store.root, kept_answers=0)
    without, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
    with keeping, without:
        settle(database, set(MARTS))
        for name in MARTS:
            keeping.get(path(name), headers=bearer(1))
            keeping.get(f"{path(name)}?format=arrow", headers=bearer(1))
        for form in ("json", "columns"):
            kept(database, {"plain", "short", "empty"}, form)
        yield keeping, without, database


@pytest.fixture
def store(tmp_path):
    store = SnapshotStore(tmp_path / "parquet")
    publish(store, 1)
    return store


def documents(database, form="json"):
    with database.connection() as connection:
        return {name: dataset.kept[form] for name, dataset in connection.datasets.items() if form in dataset.kept}


def kept(database, names, form="json"):
    """Wait until just these are kept in that form, and give them."""
    wait_for(lambda: documents(database, form).keys() == names, f"{names} are kept", seconds=60, every=0.01)
    return documents(database, form)


def asked_of(monkeypatch, ask):
    """What ``ask`` gives, and how many answers were made of rows that are kept meanwhile."""
    asked, positions = [], documents_of.positions
    with monkeypatch.context() as patch:
        patch.setattr(documents_of, "positions", lambda *given: asked.append(positions(*given)) or asked[-1])
        return ask(), len(asked)


orders = st.lists(
    st.sampled_from(["n", "text.desc", "ratio", "at.desc.nullslast", "huge.asc"]), max_size=3, unique=True
)
conditions = st.lists(
    st.sampled_from(
        [("n", "lt.1200"), ("text", "like.*7*"), ("missing", "is.null"), ("ratio", "gt.0"), ("uid", "not.is.null")]
    ),
    max_size=2,
)
RENAMED = ",".join(f"m:{name}" if name == "n" else name for name in COLUMNS)
SWAPPED = ",".join({"n": "n:missing", "missing": "missing:n"}.get(name, name) for name in COLUMNS)
REORDERED = ",".join(reversed(COLUMNS))
selects = st.sampled_from(["*", ",".join(COLUMNS), RENAMED, SWAPPED, REORDERED, "n,text", "count()", "text,n.sum()"])


@settings(max_examples=100, deadline=None)
@given(
    mart=st.sampled_from(["plain", "short", "plain", "numbered", "empty"]),
    given_once=st.fixed_dictionaries(
        {"select": selects},
        optional={
            "order": orders.filter(len).map(",".join),
            "limit": st.sampled_from([0, 1, 7, 834, 2500]),
            "offset": st.sampled_from([3, 2499]),
            "format": st.sampled_from(["arrow", "parquet", "csv"]),
        },
    ),
    where=conditions,
    everybody=st.booleans(),
)
def test_no_byte_tells_of_them(shared, mart, given_once, where, everybody):
    keeping, without, _ = shared
    parameters = [*given_once.items(), *where]
    headers = {**bearer(1, all_rows=everybody), "Prefer": "count=exact"}
    # The tag and the cursors tell settings apart.
    came, expected = (
        shown(api.get(path(mart), params=parameters, headers=headers), without=["etag"]) for api in (keeping, without)
    )
    assert came == expected


@pytest.mark.parametrize("format_", ["arrow", "parquet"])
def test_exports_of_many_batches_are_the_same(tmp_path, monkeypatch, format_):
    store = SnapshotStore(tmp_path)
    columns = {
        "user_id": ("BIGINT", "i % 3"),
        "text": ("VARCHAR", "CASE WHEN i % 5 > 0 THEN 'row ' || i % 17 END"),
        "number": ("BIGINT", "i * 7919 % 150000"),
        "flag": ("BOOLEAN", "CASE WHEN i % 11 > 0 THEN i % 7 > 3 END"),
    }
    values = ", ".join(f"{value} AS {name}" for name, (_, value) in columns.items())
    with duckdb.connect() as connection, store.build("run", holder="test", wait=30) as build:
        connection.execute(f"COPY (SELECT {values} FROM range(150000) t(i)) TO '{build.path}/long.parquet'")
        build.publish([MartSpec("long", "", "", tuple(Column(name, kind) for name, (kind, _) in columns.items()))])
    keeping, database = open_api(parquet_dir=store.root, kept_answers=0)
    without, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
    with keeping, without:
        settle(database, {"long"})
        keeping.get(f"{path('long')}?format={format_}&limit=1", headers=bearer(1))
        kept(database, {"long"}, "columns")
        for parameters in (
            "",
            "offset=40000",
            "order=text,number.desc&limit=70000&offset=5",
            "number=gte.99&text=like.*7",
        ):
            answers = [(api, f"{path('long')}?format={format_}&{parameters}") for api in (keeping, without)]
            (came, count), (expected, _) = (
                asked_of(monkeypatch, lambda api=api, url=url: api.get(url, headers=bearer(1, all_rows=True)))
                for api, url in answers
            )
            assert count == 1
            assert shown(came, without=["etag"]) == shown(expected, without=["etag"])


@pytest.mark.parametrize(
    ("parameters", "made_of_them"),
    [
        ("", 1),
        ("select=*&order=n&n=lt.100&limit=7", 1),
        (f"select={','.join(COLUMNS)}", 1),
        (f"select={RENAMED}", 0),
        (f"select={SWAPPED}", 0),
        (f"select={REORDERED}", 0),
        ("select=n,text", 0),
        ("select=count()", 0),
        ("format=csv", 0),
        ("format=arrow", 1),
        ("format=parquet&order=n&n=lt.100", 1),
        (f"format=arrow&select={RENAMED}", 0),
    ],
)
def test_whole_rows_are_made_of_them(shared, monkeypatch, parameters, made_of_them):
    keeping, _, _ = shared
    answer, count = asked_of(monkeypatch, lambda: keeping.get(f"{path('plain')}?{parameters}", headers=bearer(1)))
    assert (answer.status_code, count) == (200, made_of_them)


def test_each_page_says_what_its_snapshot_does(store, monkeypatch):
    client, database = open_api(parquet_dir=store.root, kept_answers=0)

    def generations():
        answers = [client.get(path(name), headers=bearer(1)).json() for name in ("plain", "short")]
        return [{row["generation"] for row in answer["rows"]} for answer in answers]

    with client:
        for generation in (1, 2, 3):
            if generation > 1:
                publish(store, generation, taking_over=["short"])
            settle(database, set(MARTS))
            for made_of_them in (0, 2) if generation == 1 else (1, 2):
                answers, count = asked_of(monkeypatch, generations)
                assert answers == [{generation}, {1}]
                assert count >= made_of_them  # all, where the new file's are kept by then
                before = kept(database, {"plain", "short"})["short"]
        assert documents(database)["short"] is before, "of a file that was taken over they are still there"


def test_only_what_they_answer_has_them_kept(store):
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        settle(database, set(MARTS))
        for _ in range(3):
            client.get(f"{path('plain')}?select=n&order=ratio", headers=bearer(1))
            client.get(f"{path('plain')}?format=csv", headers=bearer(1))
        assert database._generations.tables._step() is False
        assert documents(database) == {}
        client.get(path("short"), headers=bearer(1))
        (found,) = kept(database, {"short"}).values()
        assert found.count == MARTS["short"][0]
        by_themselves = sum(table.size for table in database._generations.tables._tables.values())
        assert samples(client, "analytics_table_bytes") == {(): by_themselves + found.size}
        assert found.size > 100_000


def test_they_keep_to_the_room_that_there_is(store, monkeypatch):
    """Those asked for most first, and what turned out too large is not written again and again."""
    tried = []
    counted = Form(sql.all_documents, lambda columns, rows, room: tried.append(room) or written(columns, rows, room))
    monkeypatch.setitem(formats.FORMS, "json", counted)
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        settle(database, set(MARTS))
        for name in ("plain", "short"):
            client.get(path(name), headers=bearer(1))
        sizes = {name: found.size for name, found in kept(database, {"plain", "short"}).items()}
        of_tables = database.status().table_bytes - sum(sizes.values())
    tried.clear()
    room = of_tables + sizes["plain"] + 1000
    client, database = open_api(parquet_dir=store.root, kept_answers=0, table_memory=room)
    with client:
        settle(database, set(MARTS))
        client.get(path("short"), headers=bearer(1))
        kept(database, {"short"})
        for _ in range(9):
            client.get(path("plain"), headers=bearer(1))
        kept(database, {"plain"})
        assert database.status().table_bytes <= room
        attempts = len(tried)
        assert attempts <= 4
        for _ in range(3):
            client.get(path("plain"), headers=bearer(1))
        assert database._generations.tables._step() is False
        assert len(tried) == attempts


def test_they_come_before_tables_that_are_asked_for_less(store, monkeypatch):
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        settle(database, set(MARTS))
        client.get(path("plain"), headers=bearer(1))
        size = kept(database, {"plain"})["plain"].size
        room = database.status().table_bytes - 1  # for all but one of these
        # What they will take is known from the first of them.
        monkeypatch.setattr(table, "_BATCH_ROWS", 100)
        found = database._generations.tables
        found._keep(next(mart for mart in found._wanted if mart.name == "plain"), "json", 1)
        assert 0.9 * size < found._kept["plain", "json"][1] < 1.1 * size
    client, database = open_api(parquet_dir=store.root, kept_answers=0, table_memory=room)
    with client:
        settle(database, set(MARTS))
        for _ in range(4):
            client.get(path("plain"), headers=bearer(1))
        kept(database, {"plain"})
        assert "plain" in on_tables(database) < set(MARTS)
        assert database.status().table_bytes <= room
        for name, _ in itertools.product(MARTS, range(16)):
            client.get(f"{path(name)}?select=n&order=ratio", headers=bearer(1))
        settle(database, set(MARTS))
        assert documents(database) == {}


def test_what_fails_late_ends_neither_the_tables_nor_the_answers(store):
    """What DuckDB says of rows after the first ones comes as another error."""
    late = Form(
        lambda _, relation: f"SELECT if(i < 90000, 'x', error('late')) FROM range(100000) t(i) -- {relation}", written
    )
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    database.keep_rows({"json": late})
    with client:
        settle(database, set(MARTS))
        client.get(path("plain"), headers=bearer(1))
        wait_for(
            lambda: ("plain", "json") in database._generations.tables._kept, "it was tried", seconds=60, every=0.01
        )
        publish(store, 2)
        assert client.get(path("plain"), headers=bearer(1)).json()["rows"][0]["generation"] == 2
        settle(database, set(MARTS))


def test_rows_that_are_not_all_are_not_kept(store):
    """Positions would be those of others."""
    some = Form(lambda columns, relation: f"{sql.all_documents(columns, relation)} LIMIT 5", written)
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    database.keep_rows({"json": some})
    with client:
        settle(database, set(MARTS))
        client.get(path("plain"), headers=bearer(1))
        wait_for(
            lambda: ("plain", "json") in database._generations.tables._kept, "it was tried", seconds=60, every=0.01
        )
        assert documents(database) == {}


def test_a_step_that_fails_is_the_last_of_none(store, monkeypatch):
    monkeypatch.setattr(tables, "_REST_SECONDS", 0)
    left, chosen = [3], tables.Tables._chosen

    def failing(self, *given):
        left[0] -= 1
        return chosen(self, *given) if left[0] < 0 else 1 / 0

    monkeypatch.setattr(tables.Tables, "_chosen", failing)
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    with client:
        client.get(path("plain"), headers=bearer(1))
        wait_for(lambda: database._generations.tables.look() or left[0] < 0, "it goes on", seconds=60, every=0.01)
        settle(database, set(MARTS))


def test_rows_that_can_t_be_written_are_asked_of_the_table(store, monkeypatch):
    said = []
    monkeypatch.setattr(tables.log, "warning", lambda *given, **_: said.append(given))
    client, database = open_api(parquet_dir=store.root, kept_answers=0)
    failing = Form(lambda _, relation: f"SELECT error('no room') FROM {relation}", written)
    database.keep_rows({"json": failing})
    with client:
        settle(database, set(MARTS))
        first = client.get(path("plain"), headers=bearer(1)).json()
        wait_for(lambda: said, "it was tried", seconds=60, every=0.01)
        assert [client.get(path("plain"), headers=bearer(1)).json() for _ in range(5)] == [first] * 5
        assert database._generations.tables._step() is False
        assert said == [("rows_not_in_memory",)]
        assert documents(database) == {}
        assert client.get("/health/ready").json()["status"] == "ready"


def test_pages_of_written_rows():
    batches = [pa.record_batch({"row": rows}) for rows in (["{},", '{"ü":1},'], [], ['{"b":"\U0001f642"},'])]
    reader = pa.RecordBatchReader.from_batches(
        pa.schema({"row": pa.string()}), [batch.cast(pa.schema({"row": pa.string()})) for batch in batches]
    )
    found = written((), reader, 10_000)
    assert found.count == 3
    assert found.page(pa.array([2, 0, 0, 1]), rising=False).tobytes().decode() == '{"b":"\U0001f642"},{},{},{"ü":1}'
    assert found.page(pa.array([0, 2, 1]), rising=False).tobytes().decode() == '{},{"b":"\U0001f642"},{"ü":1}'
    assert found.page(pa.array([0, 2]), rising=True).tobytes().decode() == '{},{"b":"\U0001f642"}'
    assert found.page(pa.array([1, 2]), rising=True).tobytes().decode() == '{"ü":1},{"b":"\U0001f642"}'
    assert found.page(pa.array([7, 1, 8])[1:2], rising=True).tobytes().decode() == '{"ü":1}'
    for rising in (True, False):
        assert found.page(pa.array([], pa.int64()), rising=rising) == b""


def test_what_is_larger_than_the_room_is_given_up_early():
    asked = []

    def batches():
        for number in range(1000):
            asked.append(number)
            yield pa.record_batch({"row": ["x" * 99] * 10})

    with pytest.raises(TooLarge) as raised:
        written((), pa.RecordBatchReader.from_batches(pa.schema({"row": pa.string()}), batches()), 5000)
    assert 5000 < raised.value.size < 8000
    assert raised.value.size == raised.value.rows * (99 + 8)
    assert len(asked) < 20
