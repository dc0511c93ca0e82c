"""A user's part of a large mart, read as a file of its own: no byte of an answer tells."""

import os
import shutil
from contextlib import closing

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.duckdb import generation, row_groups
from backend.duckdb.row_groups import RowGroups
from backend.manifest import Column, MartSpec
from backend.quoting import parquet_file
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import bearer, open_api
from .marts import damage
from .test_kept_answers import shown
from .test_tables import MIXED

GROUP_ROWS = 2048
PER_USER = 700  # of most: a user's rows begin and end anywhere in a row group
ROWS = 20_000
COLUMNS = {name: column for name, column in MIXED.items() if name != "user_id"}
SCOPES = {
    "of_numbers": ("user_id", "INTEGER", f"i // {PER_USER} - 3"),
    "of_texts": ("who", "VARCHAR", f"(i // {PER_USER})::VARCHAR"),
    "of_nobody": ("user_id", "BIGINT", f"CASE WHEN i < 15000 THEN i // {PER_USER} END"),
    "unsorted": ("user_id", "INTEGER", "i % 5"),
    "of_dates": ("who", "DATE", f"DATE '2026-01-01' + (i // {PER_USER})::INTEGER"),
}


def written(path, scope, columns=COLUMNS, options="COMPRESSION zstd", generation=1):
    name, kind, value = scope
    values = ", ".join(f"({sql})::{kind} AS {column}" for column, (kind, sql) in columns.items())
    order = "" if "%" in value else f"ORDER BY {name}"
    with duckdb.connect() as connection:
        select = f"SELECT ({value})::{kind} AS {name}, {values} FROM range({ROWS}) t(i) {order}"
        options = f"FORMAT parquet, {options}, ROW_GROUP_SIZE {GROUP_ROWS}"
        params = [generation] if "generation" in columns else []
        connection.execute(f"COPY ({select}) TO '{path}' ({options})", params)


def spec(mart, scope):
    name, kind, _ = scope
    columns = Column(name, kind), *(Column(column, kind) for column, (kind, _) in COLUMNS.items())
    return MartSpec(mart, mart, "", columns, scope=name)


def publish(store, anew=tuple(SCOPES)):
    with store.build("run", holder="test", wait=30) as build:
        for mart in anew:
            written(build.path / f"{mart}.parquet", SCOPES[mart])
        build.link([mart for mart in SCOPES if mart not in anew])
        return build.publish([spec(mart, scope) for mart, scope in SCOPES.items()])


def path(mart):
    return f"/api/analytics/datasets/{mart}/query"


def noted(patch):
    """What is read of large marts, a list that grows."""
    made, of_user = [], RowGroups.of_user

    def noting(*given):
        made.append(of_user(*given))
        return made[-1]

    patch.setattr(RowGroups, "of_user", noting)
    return made


@pytest.fixture
def parts(monkeypatch):
    return noted(monkeypatch)


def wait_for_parts(api, made):
    """Until there is the session to read them in, which is that of the tables."""

    def asked():
        api.get(path("of_numbers"), headers=bearer(3))
        return made

    wait_for(asked, "a part is read", seconds=60, every=0.01)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An API that reads parts, and one that does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "_LARGE", 1000)
        store = SnapshotStore(tmp_path_factory.mktemp("row-groups") / "parquet")
        publish(store)
        # Too little for any table, and enough for there to be an instance.
        by_parts, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=1)
        whole, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
        with by_parts, whole:
            with pytest.MonkeyPatch.context() as noting:
                wait_for_parts(by_parts, noted(noting))
            yield by_parts, whole


orders = st.sampled_from(["n", "text.desc", "ratio,n", "at.desc.nullslast", "text,ratio.desc"])
conditions = st.lists(
    st.sampled_from([("n", "lt.1200"), ("text", "like.*7*"), ("missing", "is.null"), ("ratio", "gt.0")]), max_size=2
)
selects = st.sampled_from(["*", "n,text", "text,n.sum(),ratio.sum()", "count()"])
questions = st.fixed_dictionaries(
    {"select": selects},
    optional={
        "order": orders,
        "limit": st.sampled_from([0, 1, 7, 834, 2500]),
        "offset": st.sampled_from([3, 699]),
        "format": st.sampled_from(["arrow", "parquet", "csv"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    asked=st.tuples(st.sampled_from(list(SCOPES)), st.integers(-5, 30)),
    given_once=questions,
    where=conditions,
    everybody=st.sampled_from([False, False, False, True]),
)
def test_no_byte_tells_of_them(shared, asked, given_once, where, everybody):
    by_parts, whole = shared
    mart, user = asked
    headers = {**bearer(user, all_rows=everybody), "Prefer": "count=exact"}
    came, expected = (
        shown(api.get(path(mart), params=[*given_once.items(), *where], headers=headers), without=["etag"])
        for api in (by_parts, whole)
    )
    assert came == expected


@pytest.mark.parametrize("mart", SCOPES)
def test_only_of_marts_sorted_by_numbers_or_texts_parts_are_read(shared, parts, mart):
    by_parts, _ = shared
    answer = by_parts.get(path(mart), headers=bearer(3))
    assert answer.status_code == 200
    assert len(parts) == (mart in {"of_numbers", "of_texts"})
    for part in parts:
        assert part.size < 150_000, "of 20,000 rows"


def test_one_part_answers_all_queries_of_a_request_and_is_gone_after_it(shared, parts):
    by_parts, _ = shared
    queries = [{"dataset": "of_numbers", "limit": limit} for limit in (1, 2, 3)]
    before = len(os.listdir("/proc/self/fd"))
    answer = by_parts.post("/api/analytics/query", headers=bearer(3), json={"queries": queries})
    assert [result["row_count"] for result in answer.json()["results"]] == [1, 2, 3]
    assert len(parts) == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_may_see_all_rows_gets_no_part(shared, parts):
    by_parts, _ = shared
    answer = by_parts.get(path("of_numbers") + "?select=count()", headers=bearer(3, all_rows=True))
    assert answer.json()["rows"] == [{"count": ROWS}]
    assert parts == []


def test_what_fails_on_a_part_is_asked_of_the_file(shared, parts, monkeypatch):
    monkeypatch.setattr(row_groups, "_MAGIC", b"PAR?")
    came, expected = (shown(api.get(path("of_numbers"), headers=bearer(3)), without=["etag"]) for api in shared)
    assert came == expected
    assert len(parts) == 1


def test_a_part_of_many_bytes_is_not_made(shared, parts, monkeypatch):
    by_parts, _ = shared
    monkeypatch.setattr(row_groups, "_MOST_BYTES", 1000)
    assert by_parts.get(path("of_numbers"), headers=bearer(3)).status_code == 200
    assert parts == [None]


def test_a_part_of_a_file_that_was_damaged_meanwhile_is_no_answer(tmp_path, parts, monkeypatch):
    """The file is read where it lies, for want of memory; the snapshot before it is still good."""
    monkeypatch.setattr(generation, "_LARGE", 1000)
    store = SnapshotStore(tmp_path / "parquet")
    first, second = publish(store), publish(store)
    api, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=1, resident_memory=0)
    with api:
        wait_for_parts(api, parts)
        assert api.get(path("of_numbers"), headers=bearer(3)).json()["snapshot"] == second.id
        damage(store, second.id, "of_numbers")
        os.utime(store.root / "snapshots" / second.id / "of_numbers.parquet")
        answer = api.get(path("of_numbers"), headers=bearer(3))
        assert answer.status_code == 200
        assert (answer.json()["snapshot"], answer.json()["row_count"]) == (first.id, 100)


def test_a_mart_on_the_disk_that_a_snapshot_took_over_is_read_where_that_has_it(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(generation, "_LARGE", 1000)
    store = SnapshotStore(tmp_path / "parquet")
    publish(store)
    api, database = open_api(parquet_dir=store.root, kept_answers=0, table_memory=1, resident_memory=0)
    with api:
        wait_for_parts(api, parts)
        question = path("of_numbers") + f"?limit={PER_USER}"
        before = api.get(question, headers=bearer(3)).json()
        new = publish(store, ["of_texts"])
        monkeypatch.setattr(RowGroups, "read", lambda *_: pytest.fail("asked again what is known of it"))
        monkeypatch.setattr(generation, "_LARGE", ROWS)  # the one that is new has to be asked
        with database.connection() as connection:
            assert connection.snapshot == new.id
        shutil.rmtree(store.root / "snapshots" / before["snapshot"])
        parts.clear()
        after = api.get(question, headers=bearer(3)).json()
        assert parts[0] is not None
    assert after == before | {"snapshot": new.id, "last_refresh": after["last_refresh"]}
    assert len(after["rows"]) == PER_USER


# --- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        *(f"COMPRESSION {codec}" for codec in ("uncompressed", "snappy", "gzip", "zstd", "lz4_raw", "brotli")),
        "COMPRESSION zstd, PARQUET_VERSION v2",
        "COMPRESSION zstd, DICTIONARY_SIZE_LIMIT 1",
    ],
)
@pytest.mark.parametrize("columns", [COLUMNS, {"n": COLUMNS["n"], '"n.pair"': COLUMNS["pair"]}], ids=["many", "few"])
def test_a_part_has_all_rows_of_its_user_as_they_are(tmp_path, options, columns):
    file = tmp_path / "mart.parquet"
    written(file, SCOPES["of_numbers"], columns, options=options)
    groups = RowGroups.read(str(file), "user_id")
    with duckdb.connect() as connection:
        connection.execute("SET enable_external_file_cache = false")

        def rows(of, user):
            select = f"SELECT * FROM {of} WHERE user_id = ? ORDER BY file_row_number"
            cursor = connection.execute(select, [user])
            return cursor.description, [str(row) for row in cursor.fetchall()]  # a NaN equals nothing

        for user in (-4, -3, 0, 11, 25, 26):
            with closing(groups.of_user(str(file), user)) as part:
                found = rows(parquet_file(part.path), user)
                assert found == rows(parquet_file(file), user)
                assert len(found[1]) == {-4: 0, 25: 400, 26: 0}.get(user, PER_USER)
                ((read,),) = connection.execute(f"SELECT count(*) FROM {parquet_file(part.path)}").fetchall()
                assert read <= 2 * GROUP_ROWS


def test_a_file_of_others_that_says_more_of_itself_is_read_whole(tmp_path, monkeypatch):
    file = tmp_path / "mart.parquet"
    written(file, SCOPES["of_numbers"], {"n": COLUMNS["n"]}, options="KV_METADATA {of: 'all rows'}")
    assert RowGroups.read(str(file), "user_id") is None
    assert RowGroups.read(str(file), "nobody") is None
    written(file, SCOPES["of_numbers"], {"n": COLUMNS["n"]})
    assert RowGroups.read(str(file), "user_id") is not None
    row_groups._kind.cache_clear()
    monkeypatch.setattr(row_groups, "_ENCODINGS", ("PLAIN",))
    assert RowGroups.read(str(file), "user_id") is None
