"""Datasets and columns of any name, with values of any type: what is published comes back, from either source.

Or it is refused, by its name, before anything is published: ``tests/unit/store/test_names.py`` has which.
"""

import csv
import io
import json
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.errors import AuditFailed
from backend.manifest import Column, MartSpec
from backend.quoting import literal
from backend.scripts.bootstrap_duckdb import refresh_duckdb_file
from backend.snapshots import SnapshotStore
from deploy.pipeline.parity.compare import compare_mart
from tests.unit.pipeline.test_parity_canonical import columns

from .api import bearer, open_api
from .listening import listening

DATASETS = ["Sales", "net income", "a.b", "100%", "a?b", "o'\"brien", "🙂", "e\u0301", "a/b", "..", "select"]
PARAMETERS = ["select", "order", "limit", "offset", "snapshot", "cursor", "format", "dataset"]
AWKWARD = [
    "table", "count", "sum", "not", "or", "and", "null", "A b", "a.b", "a/b", "a,b", "a:b", "(x)", "*", "100%", "+",
    "&", "=", "#", 'say "x"', '"', "'", "\\", "\n", "\t", " ", " before", "after ", "🙂", "é", "e\u0301", "1st", "t",
    "v0", "item0", "key", "rowid", "ROWID", "file_row_number", "filename", "__proto__", "n" * 300, "", "a\0",
]  # fmt: skip
names = st.sampled_from(PARAMETERS) | st.sampled_from(AWKWARD) | st.text(max_size=12)
# The test client decodes paths twice: test_a_percent_sign_in_a_path_is_one goes without it.
datasets = st.sampled_from(DATASETS) | st.text(max_size=12).filter(lambda name: unquote(name) == name)


def in_select(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def in_filter(name):
    return in_select(name) if name in PARAMETERS or name.startswith('"') else name


def url(dataset):
    return f"/api/analytics/datasets/{quote(dataset, safe='')}/query"


def publish(store, dataset, rows):
    """Publish the table of Arrow. Raises AuditFailed."""
    with duckdb.connect() as connection, store.build("run", holder="test") as build:
        connection.register("rows", rows)
        with suppress(duckdb.Error):  # of a name that the audit refuses
            path = literal(f"{build.path}/{dataset}.parquet")
            connection.execute(f"COPY rows TO {path} (FORMAT parquet, ROW_GROUP_SIZE 2048)")
        types = [str(field[1]) for field in connection.execute("FROM rows").description]
        build.publish([MartSpec(dataset, "", "", tuple(map(Column, rows.column_names, types)))])


@contextmanager
def served(store, **settings):
    """The API on the snapshot, and on the file that phase 1 writes from it."""
    file = store.root / "analytics.duckdb"
    refresh_duckdb_file(store, file)
    sources = {"parquet_dir": store.root}, {"duckdb_path": file}
    on_snapshot, on_file = (open_api(**source, **settings)[0] for source in sources)
    with on_snapshot, on_file:
        yield on_snapshot, on_file


@contextmanager
def published(dataset, rows, **settings):
    with TemporaryDirectory() as directory:
        store = SnapshotStore(Path(directory))
        publish(store, dataset, rows)
        with served(store, **settings) as clients:
            yield clients


def numbered(count):
    """A column to tell rows by, in an order that no sort gives."""
    return pa.array([number * 7 % count for number in range(count)], pa.int64())


def assert_can_be_asked_for(client, dataset, name, count):
    """In each parameter, and in a body; its values are the numbers below ``count``."""
    asked = {"select": f"{in_select(name)},n:count()", "order": f"{in_select(name)}.desc", in_filter(name): "gt.0"}
    response = client.get(url(dataset), params=asked, headers=bearer(1))
    assert response.status_code == 200, response.text
    assert [row[name] for row in response.json()["rows"]] == list(range(count - 1, 0, -1))
    body = {"queries": [{"dataset": dataset, "select": in_select(name), in_filter(name): ["gt.0", "lt.2"]}]}
    response = client.post("/api/analytics/query", json=body, headers=bearer(1))
    assert [result["rows"] for result in response.json()["results"]] == [[{name: 1}]]


def assert_comes_back(client, dataset, rows):
    """In every format, whole and in pages."""
    (key, *others), count = rows.column_names, rows.num_rows

    def ask(**asked):
        response = client.get(url(dataset), params=asked, headers=bearer(1))
        assert response.status_code == 200, (asked, response.text)
        return response

    answer = ask().json()
    assert [column["name"] for column in answer["columns"]] == rows.column_names
    assert [list(row) for row in answer["rows"]] == [rows.column_names] * count
    assert [row[key] for row in answer["rows"]] == rows[key].to_pylist()
    pages = [ask(limit=1)]
    while cursor := pages[-1].json()["next"]:
        pages.append(ask(cursor=cursor))
    assert [row for page in pages for row in page.json()["rows"]] == answer["rows"]
    header, *lines = csv.reader(io.StringIO(ask(format="csv").text, newline=""))
    assert header == rows.column_names
    assert [int(line[0]) for line in lines] == rows[key].to_pylist()
    first = ask(format="csv", limit=1)
    assert client.get(first.links["next"]["url"], headers=bearer(1)).text.count("\r\n") == 2
    for exported in (
        pa.ipc.open_stream(ask(format="arrow").content).read_all(),
        pq.read_table(io.BytesIO(ask(format="parquet").content)),
    ):
        assert exported.column_names == rows.column_names
        with duckdb.connect() as connection:
            for name in others:
                connection.register("came", exported.select([key, name]))
                connection.register("went", rows.select([key, name]))
                assert compare_mart(connection, "rows", "went", "came").kinds == ()


def no_minus_zero(column):
    """-0.0 is shown as 0.0, and so it is in Parquet at times: ``deploy/decisions/0012-query-grammar.md``."""
    return "-0.0" not in str(column.to_pylist())


@settings(max_examples=20, deadline=None)
@given(
    dataset=datasets,
    named=st.lists(names, min_size=1, max_size=3, unique=True),
    column=columns().filter(no_minus_zero),
)
@example(
    dataset="Sales",
    named=["v0", "counts"],  # as the variable by which the API goes through a MAP
    column=pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
)
def test_what_is_published_comes_back_exactly_or_is_refused(dataset, named, column):
    rows = pa.table([numbered(len(column)), *[column] * (len(named) - 1)], names=named)
    with TemporaryDirectory() as directory:
        store = SnapshotStore(Path(directory))
        try:
            publish(store, dataset, rows)
        except AuditFailed as error:
            refused = error.message
        else:
            refused = None
        if refused:
            assert any(f"{name!r}: " in refused for name in [dataset, *named])
            assert store.current_id() is None
            return
        with served(store) as clients:
            for client in clients:
                assert_comes_back(client, dataset, rows)
                assert_can_be_asked_for(client, dataset, named[0], rows.num_rows)
            one, other = (client.get(url(dataset), headers=bearer(1)).json() for client in clients)
            assert [one["columns"], one["rows"]] == [other["columns"], other["rows"]]


def test_columns_of_any_name_can_be_asked_for():
    found = [*PARAMETERS, *(name for name in AWKWARD if name not in ("", "a\0", "ROWID"))]
    rows = pa.table({name: numbered(4) for name in found})
    with published("Sales", rows) as clients:
        for client in clients:
            assert_comes_back(client, "Sales", rows)
            for name in found:
                assert_can_be_asked_for(client, "Sales", name, 4)


def test_pages_are_whole_where_a_column_is_called_like_the_row_number():
    """The column says nothing of the rows' order, and all its values are one."""
    count = 5000
    rows = pa.table({"n": numbered(count), "ROWID": pa.array([1] * count), "File_Row_Number": pa.array([1] * count)})
    with published("Sales", rows) as clients:
        for client in clients:
            found, asked = [], {"limit": 997, "order": "ROWID.desc"}
            while asked:
                answer = client.get(url("Sales"), params=asked, headers=bearer(1)).json()
                found += [row["n"] for row in answer["rows"]]
                asked = answer["next"] and {"cursor": answer["next"]}
            assert found == rows["n"].to_pylist()


@pytest.mark.parametrize("name", ["user_id", "USER_ID", "User_Id"])
def test_rows_are_their_users_however_the_column_is_written(name):
    rows = pa.table({name: pa.array([1, 2, 1]), "n": pa.array([10, 20, 30])})
    with published("Sales", rows) as clients:
        for client in clients:
            for user, own in ((1, [10, 30]), (2, [20]), (3, [])):
                answer = client.get(url("Sales"), headers=bearer(user)).json()
                assert [row["n"] for row in answer["rows"]] == own
                described = client.get("/api/analytics/datasets/Sales", headers=bearer(user)).json()
                assert described["row_count"] == len(own)


def test_a_download_is_called_like_its_dataset_and_counted_under_it():
    with published("o'\"brien 🙂", pa.table({"n": numbered(3)})) as clients:
        for client in clients:
            response = client.get(url("o'\"brien 🙂"), params={"format": "csv"}, headers=bearer(1))
            assert response.headers["content-disposition"].startswith(
                "attachment; filename*=utf-8''o%27%22brien%20%F0%9F%99%82_"
            )
            assert 'dataset="o\'\\"brien 🙂"' in client.get("/metrics").text


def test_a_percent_sign_in_a_path_is_one(tmp_path):
    store = SnapshotStore(tmp_path)
    publish(store, "a%2Fb %25", pa.table({"n": numbered(3)}))
    with listening(store) as api:
        first = api.get(url("a%2Fb %25"), params={"format": "csv", "limit": 2})
        assert first.text.split() == ["n", "0", "1"]
        assert api.get(first.links["next"]["url"]).text.split() == ["n", "2"]


def test_an_unknown_dataset_is_told_what_there_is():
    with published("net income", pa.table({"n": numbered(3)})) as clients:
        for client in clients:
            response = client.get(url("net outcome"), headers=bearer(1))
            assert response.status_code == 404
            assert json.loads(response.text)["error"]["hint"] == "there are: net income"


@pytest.mark.parametrize("settings", [{}, {"resident_memory": 0}, {"plain": True}])
def test_a_store_may_lie_where_its_path_looks_like_a_pattern(tmp_path, settings):
    store = SnapshotStore(tmp_path / "[a] k=7*")
    publish(store, "net income", pa.table({"n": numbered(3)}))
    if settings.pop("plain", False):
        files = (store.root / "mart").resolve()
        (store.root / "mart").unlink()
        files.rename(store.root / "mart")
    with open_api(parquet_dir=store.root, **settings)[0] as client:
        answer = client.get(url("net income"), headers=bearer(1)).json()
        assert answer["columns"] == [{"name": "n", "type": "BIGINT"}]
        assert [row["n"] for row in answer["rows"]] == [0, 1, 2]
