"""Answers in every format: the same rows as JSON has, to the digit, whoever reads them."""

import csv
import io
import itertools
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.api import negotiation
from backend.api.analytics.formats import BATCH_ROWS, columnar
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore

from .api import QUERY, assert_error, bearer, open_api
from .listening import listening
from .marts import ROWS_PER_USER, USERS, publish
from .test_encode import client_on_snapshot, every_source

TYPES = "/api/analytics/datasets/types/query"
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
ARROW = MEDIA_TYPES["arrow"]


def table(response):
    if response.headers["content-type"] == MEDIA_TYPES["parquet"]:
        return pq.read_table(io.BytesIO(response.content))
    return pa.ipc.open_stream(response.content).read_all()


def rows(response):
    """What they are read as, in whichever format, by names of columns: transaction ids, that is."""
    if "json" in response.headers["content-type"]:
        return [row["transaction_id"] for row in response.json()["rows"]]
    if "csv" in response.headers["content-type"]:
        return [int(row["transaction_id"]) for row in csv.DictReader(io.StringIO(response.text, newline=""))]
    return table(response)["transaction_id"].to_pylist()


# --- types ------------------------------------------------------------------------------------------------------------
@every_source
def test_csv_has_the_text_that_json_has(tmp_path, client_on, cases):
    client = client_on(tmp_path)
    response = client.get(TYPES, params={"format": "csv"}, headers=bearer(1))
    header, *lines = csv.reader(io.StringIO(response.text, newline=""))
    assert header == ["user_id", *cases]
    for name, cell in dict(zip(header[1:], lines[0][1:], strict=True)).items():
        text = cases[name][2]
        assert cell == (json.loads(text) if text.startswith('"') else text), name
    nothing = client.get(TYPES, params={"format": "csv"}, headers=bearer(2)).text
    assert nothing.splitlines()[1] == "2" + "," * len(cases)


@every_source
@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_every_value_comes_back_exactly(tmp_path, client_on, cases, name):
    client = client_on(tmp_path)
    answers = [client.get(TYPES, params={"format": name}, headers=bearer(user)) for user in (1, 2)]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("exported", pa.concat_tables(table(answer) for answer in answers))
        for column, (sql, _, _) in cases.items():
            statement = f'SELECT CAST("{column}" AS VARCHAR), CAST({sql} AS VARCHAR) FROM exported ORDER BY user_id'
            (came, was), (nothing, _) = connection.execute(statement).fetchall()
            assert (came, nothing) == (was, None), column


def test_types_are_those_of_the_columns(tmp_path):
    exported = table(client_on_snapshot(tmp_path).get(TYPES, params={"format": "parquet"}, headers=bearer(1)))
    types = {field.name: str(field.type) for field in exported.schema}
    assert types["money"] == "decimal128(12, 2)"
    assert types["big"] == "int64"
    assert types["ubig"] == "uint64"
    assert types["day"] == "date32[day]"
    assert types["local"] == "timestamp[us]"
    assert types["instant"] == "timestamp[us, tz=UTC]"
    assert types["text"] == types["uuid"] == types["colour"] == "string"


def test_sums_of_whole_numbers_survive():
    """HUGEINT is what DuckDB adds them up to; readers know decimals."""
    hugeint = duckdb.sqltypes.HUGEINT
    with duckdb.connect() as connection:
        statement = f"SELECT {columnar('sum(x)', hugeint)} FROM (SELECT 9223372036854775807 AS x FROM range(9))"
        exported = connection.execute(statement).to_arrow_table()
    assert exported.column(0).to_pylist() == [Decimal(9223372036854775807 * 9)]


# --- readers ----------------------------------------------------------------------------------------------------------
LEDGER = {
    "id": ("BIGINT", [2**53 + 1, 2, 3]),
    "amount": ("DECIMAL(18,4)", [Decimal("12345678901234.5678"), Decimal("0.1000"), None]),
    "booked_on": ("DATE", [date(2024, 2, 29), None, date(1999, 12, 31)]),
    "booked_at": (
        "TIMESTAMP WITH TIME ZONE",
        [datetime(2024, 2, 29, 23, 59, 59, 500000, UTC), datetime(2024, 3, 1, tzinfo=UTC), None],
    ),
    "note": ("VARCHAR", ['a, "b"\r\nü', "", None]),
}
LEDGER_ROWS = [list(row) for row in zip(*(values for _, values in LEDGER.values()), strict=True)]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """An API that listens, with the dataset ``ledger``."""
    store = SnapshotStore(tmp_path_factory.mktemp("ledger"))
    with duckdb.connect() as connection, store.build("run", holder="test") as build:
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in LEDGER.items())
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE ledger ({columns})")
        connection.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", LEDGER_ROWS)
        connection.execute(f"COPY ledger TO '{build.path}/ledger.parquet'")
        build.publish([MartSpec("ledger", "Ledger", "", tuple(Column(n, kind) for n, (kind, _) in LEDGER.items()))])
    with listening(store) as api:
        yield lambda name: f"{api.url}/api/analytics/datasets/ledger/query?format={name}", api


def as_python(frame):
    """A pandas frame's rows with what is missing as None."""
    return [[None if pd.isna(value) else value for value in row] for row in frame.itertuples(index=False)]


def test_pandas_reads_each_format(ledger):
    url, api = ledger
    frame = pd.read_csv(
        url("csv"),
        storage_options=bearer(1),
        dtype={"note": object},
        converters={"amount": lambda text: Decimal(text) if text else None},
        parse_dates=["booked_at"],
        date_format="ISO8601",
        keep_default_na=False,
        na_values={"booked_on": [""], "booked_at": [""]},
    )
    assert frame["id"].dtype == "int64"
    assert str(frame["booked_at"].dtype).endswith("UTC]")
    found = as_python(frame.assign(booked_on=frame["booked_on"].map(date.fromisoformat, na_action="ignore")))
    assert found[:2] == LEDGER_ROWS[:2]
    assert found[2] == [*LEDGER_ROWS[2][:4], ""]  # pandas can't tell an empty text from none in CSV
    answer = api.get("/api/analytics/datasets/ledger/query")
    parsed = pd.DataFrame(json.loads(answer.text, parse_float=Decimal)["rows"]).astype({"amount": object})
    assert list(parsed["id"]) == LEDGER["id"][1]
    assert list(parsed["amount"])[:2] == LEDGER["amount"][1][:2]
    for name, read in (("parquet", pd.read_parquet), ("arrow", lambda file: pa.ipc.open_stream(file).read_pandas())):
        frame = read(io.BytesIO(api.get(url(name).removeprefix(api.url)).content))
        assert as_python(frame) == LEDGER_ROWS
        assert frame["id"].dtype == "int64"
        assert str(frame["booked_at"].dtype).endswith("UTC]")


def test_polars_reads_each_format(ledger):
    url, api = ledger
    schema = {
        "id": pl.Int64,
        "amount": pl.Decimal(18, 4),
        "booked_on": pl.Date,
        "booked_at": pl.Datetime("us", "UTC"),
        "note": pl.String,
    }
    for name, read in (
        ("csv", lambda file: pl.read_csv(file, schema_overrides=schema)),
        ("parquet", pl.read_parquet),
        ("arrow", pl.read_ipc_stream),
    ):
        frame = read(io.BytesIO(api.get(url(name).removeprefix(api.url)).content))
        assert dict(frame.schema) == schema, name
        assert [list(row) for row in frame.rows()] == LEDGER_ROWS, name
    answer = api.get(url("json").removeprefix(api.url))
    assert pl.DataFrame(answer.json()["rows"])["id"].to_list() == LEDGER["id"][1]


def test_duckdb_reads_each_format(ledger, tmp_path):
    url, api = ledger
    types = {name: kind for name, (kind, _) in LEDGER.items()}
    row = ", ".join(f"{name} {kind}" for name, kind in types.items())
    relations = {
        "csv": f"read_csv('{tmp_path}/csv', columns = {types}, allow_quoted_nulls = false)",
        "parquet": f"read_parquet('{tmp_path}/parquet')",
        "arrow": "stream",
        "json": f"(SELECT unnest(rows, recursive := true) FROM read_json('{tmp_path}/json', "
        f"columns = {{'rows': 'STRUCT({row})[]'}}))",
    }
    for name, relation in relations.items():
        (tmp_path / name).write_bytes(api.get(url(name).removeprefix(api.url)).content)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if name == "arrow":
                connection.register("stream", pa.ipc.open_stream((tmp_path / name).read_bytes()))
            result = connection.execute(f"SELECT * FROM {relation}")
            assert [str(field[1]) for field in result.description] == list(types.values()), name
            found = [list(row) for row in result.fetchall()]
        if name == "json":  # whose numbers with a point DuckDB reads as doubles
            assert found[0][1] == pytest.approx(LEDGER_ROWS[0][1])
            found[0][1] = LEDGER_ROWS[0][1]
        assert found == LEDGER_ROWS, name


# --- which ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json, text/plain, */*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("Text/CSV ; q=0.3", "csv"),
        ("text/*", "csv"),
        (ARROW, "arrow"),
        (MEDIA_TYPES["parquet"], "parquet"),
        ("application/*", "json"),
        ("text/csv;q=0.5, application/json;q=0.4", "csv"),
        (f"{ARROW}, text/csv", "csv"),
        (f"*/*, text/csv;q=0, application/json;q=0, {ARROW};q=0.9", "parquet"),
        ("application/json;q=0, */*;q=0.001", "csv"),
        ("text/csv;charset=utf-8", "csv"),
        ("text/csv;q=nonsense, application/json;q=0.1", "json"),
    ],
)
def test_accept_chooses_the_format(client, accept, expected):
    headers = bearer(1) | ({} if accept is None else {"Accept": accept})
    client.headers.pop("accept", None)
    assert client.get(QUERY, headers=headers).headers["content-type"] == MEDIA_TYPES[expected]


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "nonsense"])
def test_a_client_that_takes_nothing_that_there_is(client, accept):
    error = assert_error(client.get(QUERY, headers=bearer(1) | {"Accept": accept}), 406, "not_acceptable")
    assert "text/csv" in error["message"]
    assert client.get(f"{QUERY}?format=json", headers=bearer(1) | {"Accept": accept}).status_code == 200


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_the_parameter_wins(client, name):
    response = client.get(f"{QUERY}?format={name}", headers=bearer(1) | {"Accept": "text/csv, text/html"})
    assert response.headers["content-type"] == MEDIA_TYPES[name]


@pytest.mark.parametrize("parameters", ["format=xml", "format=", "format=CSV", "format=csv&format=json"])
def test_a_format_that_there_is_not(client, parameters):
    error = assert_error(client.get(f"{QUERY}?{parameters}", headers=bearer(1)), 400, "invalid_parameter")
    assert error["message"].startswith("parameter 'format': expected one of json, csv, arrow, parquet")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("br", None),
        ("identity", None),
        ("identity;q=0.5, gzip;q=0.4", None),
        ("identity;q=0.5, gzip;q=0.6", "gzip"),
        ("gzip;q=0", None),
    ],
)
def test_accept_encoding_chooses_the_coding(accept, expected):
    assert negotiation.encoding(accept, ("zstd", "gzip")) == expected


# --- rows -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
@pytest.mark.parametrize("parameters", ["", "order=amount.desc", "offset=7&limit=5", "order=amount&offset=7&limit=5"])
def test_the_rows_are_those_of_json(any_client, name, parameters):
    whole = "limit" not in parameters
    expected = any_client.get(f"{QUERY}?{parameters}{'&limit=1000' if whole else ''}", headers=bearer(2))
    response = any_client.get(f"{QUERY}?{parameters}&format={name}", headers=bearer(2))
    assert rows(response) == rows(expected)
    assert response.headers["x-row-count"] == str(len(rows(expected))) == ("40" if whole else "5")
    assert response.headers.get("x-snapshot-id") == expected.json()["snapshot"]
    refreshed = datetime.fromisoformat(expected.json()["last_refresh"]).replace(microsecond=0)
    assert parsedate_to_datetime(response.headers["last-modified"]) == refreshed


@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
@pytest.mark.parametrize("parameters", ["select=user_id,amount&amount=eq.-1", "offset=1000"])
def test_no_rows_are_an_answer_too(client, name, parameters):
    response = client.get(f"{QUERY}?{parameters}&format={name}", headers=bearer(1))
    assert response.headers["x-row-count"] == "0"
    if name == "csv":
        assert len(response.text.splitlines()) == 1
    else:
        assert table(response).num_rows == 0
        assert table(response).schema.field("amount").type == pa.decimal128(12, 2)


@pytest.mark.parametrize("name", ["csv", "arrow", "parquet"])
def test_pages_follow_the_link_and_stay_on_their_snapshot(store, client, name):
    response = client.get(f"{QUERY}?limit=17&format={name}&order=amount", headers=bearer(1))
    snapshot, found = store.current_id(), rows(response)
    generations = itertools.count(2)
    while "link" in response.headers:
        publish(store, next(generations))
        following, relation = response.headers["link"].split("; ")
        assert relation == 'rel="next"'
        by_cursor = client.get(QUERY, params={"cursor": response.headers["x-next-cursor"]}, headers=bearer(1))
        response = client.get(following[1:-1], headers=bearer(1))
        assert response.headers["content-type"] == MEDIA_TYPES[name]
        assert rows(by_cursor) == rows(response)
        found += rows(response)
    assert "x-next-cursor" not in response.headers
    assert response.headers["x-snapshot-id"] == snapshot
    assert found == rows(client.get(f"{QUERY}?limit=1000&order=amount&snapshot={snapshot}", headers=bearer(1)))


def test_as_many_rows_as_an_export_may_have(store):
    client, _ = open_api(parquet_dir=store.root, max_limit=10, max_export_rows=30)
    response = client.get(f"{QUERY}?format=csv", headers=bearer(1))
    assert len(rows(response)) == 30
    assert "link" in response.headers
    error = assert_error(client.get(f"{QUERY}?format=csv&limit=31", headers=bearer(1)), 400, "invalid_parameter")
    assert "from 0 to 30" in error["message"]
    assert_error(client.get(f"{QUERY}?limit=30", headers=bearer(1)), 400, "invalid_parameter")


def test_a_dataset_of_many_batches_comes_in_its_order(tmp_path):
    many = BATCH_ROWS * 3 + 1
    store = SnapshotStore(tmp_path)
    with duckdb.connect() as connection, store.build("run", holder="test") as build:
        select = f"SELECT hash(i) % 1000 AS key, i AS transaction_id FROM range({many}) t(i)"
        connection.execute(f"COPY ({select}) TO '{build.path}/many.parquet' (ROW_GROUP_SIZE 2048)")
        build.publish([MartSpec("many", "Many", "", (Column("key", "UBIGINT"), Column("transaction_id", "BIGINT")))])
    client, _ = open_api(parquet_dir=tmp_path)
    path = "/api/analytics/datasets/many/query"
    for offset in (0, BATCH_ROWS, BATCH_ROWS + 5):
        response = client.get(f"{path}?format=csv&offset={offset}&limit={BATCH_ROWS * 2}", headers=bearer(1))
        expected = list(range(many))[offset : offset + BATCH_ROWS * 2]
        assert rows(response) == expected
        assert response.headers["x-row-count"] == str(len(expected))


def test_exports_show_the_callers_rows_only(any_client):
    for name, user in itertools.product(["csv", "arrow", "parquet"], USERS):
        response = any_client.get(f"{QUERY}?format={name}", headers=bearer(user))
        assert {row // 1000 for row in rows(response)} == {user}
        assert response.headers["x-row-count"] == str(ROWS_PER_USER)


def test_a_download_has_a_name(store, client, duckdb_file):
    response = client.get(f"{QUERY}?format=parquet", headers=bearer(1))
    name = f"fct_transactions_{store.current_id()}.parquet"
    assert response.headers["content-disposition"] == f"attachment; filename*=utf-8''{name}"
    on_file, _ = open_api(duckdb_path=duckdb_file)
    response = on_file.get(f"{QUERY}?format=csv", headers=bearer(1))
    assert response.headers["content-disposition"].endswith(".csv")


def test_errors_are_envelopes_in_every_format(client):
    for name in MEDIA_TYPES:
        assert_error(client.get(f"{QUERY}?nope=eq.1&format={name}", headers=bearer(1)), 400, "invalid_parameter")
        assert_error(client.get(f"{QUERY}?snapshot=gone&format={name}", headers=bearer(1)), 410, "snapshot_gone")
        assert_error(client.get(f"{QUERY}?format={name}"), 401, "unauthorized")


def test_csv_tells_nothing_from_empty(ledger):
    _, api = ledger
    text = api.get("/api/analytics/datasets/ledger/query?select=note,amount&format=csv").text
    assert text == 'note,amount\r\n"a, ""b""\r\nü",12345678901234.5678\r\n"",0.1000\r\n,\r\n'


def test_where_an_arrow_stream_is_null_there_is_nothing(tmp_path):
    """Neither what was in the memory before, nor rows of others, which are read to be left out."""
    store = SnapshotStore(tmp_path)
    columns = {
        "user_id": "i % 50",
        "number": "CASE WHEN i % 3 > 0 THEN i END",
        "numbers": "CASE WHEN i % 3 > 0 THEN [i] END",
    }
    select = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    with duckdb.connect() as connection, store.build("run", holder="test", wait=30) as build:
        path = f"{build.path}/nulls.parquet"
        connection.execute(f"COPY (SELECT {select} FROM range(20000) t(i)) TO '{path}' (ROW_GROUP_SIZE 2048)")
        kinds = [("user_id", "BIGINT"), ("number", "BIGINT"), ("numbers", "BIGINT[]")]
        build.publish([MartSpec("nulls", "", "", tuple(Column(*kind) for kind in kinds))])
    client, _ = open_api(parquet_dir=store.root)
    with client:
        answer = client.get("/api/analytics/datasets/nulls/query?format=arrow", headers=bearer(7))
    for batch in pa.ipc.open_stream(answer.content):
        number = batch.column("number")
        stored = pa.Array.from_buffers(pa.int64(), len(number), [None, number.buffers()[1]])
        hidden = {value for value, shown in zip(stored.to_pylist(), number.to_pylist(), strict=True) if shown is None}
        assert hidden == {0}
