"""Rows that DuckDB writes as JSON are, to the byte, those that Python writes."""

import json
from decimal import Context, Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.analytics.text import json_object
from backend.datasets import describe

from .slow_path import as_wire, rows_to_json

BIG = 2**63 - 1
LONGEST = 10**38 - 1
EXACTLY = Context(prec=38)
MICROSECONDS = 10**17  # three thousand years in either direction: beyond, DuckDB rounds the text of one with a zone
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-BIG, BIG)
moments = st.one_of(st.integers(-MICROSECONDS, MICROSECONDS), st.sampled_from([0, -1, 1, 999, 86_399_999_999]))
moment = "CASE abs(v) WHEN 999 THEN CAST(if(v < 0, '-infinity', 'infinity') AS {0}) ELSE CAST({1} AS {0}) END"
# Type: (values, SQL that makes one of the type of the value ``v``).
KINDS = {
    "BIGINT": (integers, "v"),
    "HUGEINT": (integers, "CAST(v AS HUGEINT) * 9223372036854775807"),
    "BOOLEAN": (st.booleans(), "v"),
    "DOUBLE": (st.floats(), "v"),
    "FLOAT": (st.floats(width=32), "CAST(v AS FLOAT)"),
    "DECIMAL(4,2)": (st.integers(-9999, 9999).map(str), "CAST(CAST(v AS DECIMAL(18,0)) / 100 AS DECIMAL(4,2))"),
    "DECIMAL(38,38)": (
        st.integers(-LONGEST, LONGEST).map(lambda n: f"{Decimal(n).scaleb(-38, EXACTLY):f}"),
        "CAST(v AS DECIMAL(38,38))",
    ),
    "DECIMAL(4,4)": (st.integers(-9999, 9999).map(str), "CAST(CAST(v AS DECIMAL(18,4)) / 10000 AS DECIMAL(4,4))"),
    "UHUGEINT": (st.integers(0, BIG), "CAST(v AS UHUGEINT) * 9223372036854775807"),
    "BIGNUM": (st.integers(0, 10**60).map(str), "CAST(v AS BIGNUM)"),
    "DECIMAL(38,10)": (
        st.integers(-LONGEST, LONGEST).map(lambda n: str(Decimal(n).scaleb(-10, EXACTLY))),
        "CAST(v AS DECIMAL(38,10))",
    ),
    "VARCHAR": (texts, "v"),
    "JSON": (st.recursive(texts, st.lists, max_leaves=3).map(json.dumps), "CAST(v AS JSON)"),
    "BLOB": (texts, "encode(v)"),
    "UUID": (st.uuids().map(str), "CAST(v AS UUID)"),
    "DATE": (moments, moment.format("DATE", "make_timestamp(v)")),
    "TIMESTAMP": (moments, moment.format("TIMESTAMP", "make_timestamp(v)")),
    "TIMESTAMP WITH TIME ZONE": (moments, moment.format("TIMESTAMPTZ", "make_timestamptz(v)")),
    "TIMESTAMP_NS": (st.integers(-BIG // 2, BIG // 2), "make_timestamp_ns(v)"),
    "TIME": (st.integers(0, 86_399_999_999), "CAST(make_timestamp(v) AS TIME)"),
    "INTERVAL": (st.integers(-(10**15), 10**15), "to_microseconds(v) + to_months(v % 100) + to_days(v % 31)"),
}
names = st.lists(texts.filter(lambda text: text and "\0" not in text), min_size=3, max_size=3, unique_by=str.lower)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_document_is_what_python_would_write(connection, kind, data):
    values, sql = KINDS[kind]
    plain, many, deep = data.draw(names)
    drawn = data.draw(st.lists(st.one_of(values, st.none()), min_size=1, max_size=8))
    connection.register("drawn", pa.table({"n": range(len(drawn)), "v": drawn}))
    quoted = [name.replace('"', '""') for name in (plain, many, deep)]
    nested = "{'a': x, 'b \"c\"': [{'d': x}, NULL]}"
    connection.execute(
        f"""CREATE OR REPLACE TABLE made AS
            SELECT x AS "{quoted[0]}", list(x) OVER (ORDER BY n) AS "{quoted[1]}", {nested} AS "{quoted[2]}"
            FROM (SELECT n, {sql} AS x FROM drawn) ORDER BY n"""
    )
    columns = describe(connection, "made", {})
    wired = ", ".join(as_wire(f'"{name}"', column.sqltype) for name, column in zip(quoted, columns, strict=True))
    expected = rows_to_json(columns, connection.execute(f"SELECT {wired} FROM made").fetchall())
    documents = [row for (row,) in connection.execute(f"SELECT {json_object(columns)} FROM made").fetchall()]
    assert documents == expected
    assert [list(json.loads(document)) for document in documents] == [[plain, many, deep]] * len(drawn)
