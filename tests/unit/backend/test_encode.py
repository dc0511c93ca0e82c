import json
import os
import subprocess
import sys

import duckdb
import pytest

from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore

from .api import bearer, open_api

# Column: (SQL of the value, type shown, JSON text).
CASES = {
    "yes": ("true", "BOOLEAN", "true"),
    "tiny": ("(-128)::TINYINT", "TINYINT", "-128"),
    "big": ("9223372036854775807::BIGINT", "BIGINT", "9223372036854775807"),
    "ubig": ("18446744073709551615::UBIGINT", "UBIGINT", "18446744073709551615"),
    "money": ("1.10::DECIMAL(12,2)", "DECIMAL(12,2)", "1.10"),
    "cents": ("(-0.01)::DECIMAL(4,2)", "DECIMAL(4,2)", "-0.01"),
    "wide": (
        "1234567890123456789012345678.9012345678::DECIMAL(38,10)",
        "DECIMAL(38,10)",
        "1234567890123456789012345678.9012345678",
    ),
    "tenth": ("0.1::DOUBLE", "DOUBLE", "0.1"),
    "tenth_single": ("0.1::FLOAT", "FLOAT", "0.1"),
    "huge_single": ("1e20::FLOAT", "FLOAT", "1e+20"),
    "nan": ("'NaN'::DOUBLE", "DOUBLE", '"NaN"'),
    "inf": ("'Infinity'::DOUBLE", "DOUBLE", '"Infinity"'),
    "minus_inf": ("'-Infinity'::FLOAT", "FLOAT", '"-Infinity"'),
    "text": ("'ü \"🙂\" ' || chr(10)", "VARCHAR", json.dumps('ü "🙂" \n', ensure_ascii=False)),
    "document": ("'{\"a\": 1}'::JSON", "JSON", json.dumps('{"a": 1}')),
    "colour": ("'red'::ENUM('red', 'blue')", "VARCHAR", '"red"'),
    "bits": ("'101'::BIT", "VARCHAR", '"101"'),
    "bytes": ("'\\x00\\xFF'::BLOB", "BLOB", '"AP8="'),
    "uuid": ("UUID '550e8400-e29b-41d4-a716-446655440000'", "UUID", '"550e8400-e29b-41d4-a716-446655440000"'),
    "day": ("DATE '2024-02-29'", "DATE", '"2024-02-29"'),
    "day_bc": ("DATE '0044-03-15 (BC)'", "DATE", '"0044-03-15 BC"'),
    "day_never": ("DATE 'infinity'", "DATE", '"infinity"'),
    "local": ("TIMESTAMP '2024-02-29 23:59:59.5'", "TIMESTAMP", '"2024-02-29T23:59:59.5"'),
    "local_s": ("TIMESTAMP_S '2024-02-29 23:59:59'", "TIMESTAMP", '"2024-02-29T23:59:59"'),
    "local_ms": ("TIMESTAMP_MS '2024-02-29 23:59:59.5'", "TIMESTAMP", '"2024-02-29T23:59:59.5"'),
    "local_ns": (
        "TIMESTAMP_NS '2024-02-29 23:59:59.123456789'",
        "TIMESTAMP_NS",
        '"2024-02-29T23:59:59.123456789"',
    ),
    "local_bc": ("TIMESTAMP '0044-03-15 (BC) 12:00:00'", "TIMESTAMP", '"0044-03-15T12:00:00 BC"'),
    "instant": (
        "TIMESTAMPTZ '2024-02-29 23:59:59.5+02'",
        "TIMESTAMP WITH TIME ZONE",
        '"2024-02-29T21:59:59.5+00:00"',
    ),
    "instant_bc": (
        "TIMESTAMPTZ '0044-03-15 (BC) 12:00:00+00'",
        "TIMESTAMP WITH TIME ZONE",
        '"0044-03-15T12:00:00+00:00 BC"',
    ),
    "instant_never": ("TIMESTAMPTZ '-infinity'", "TIMESTAMP WITH TIME ZONE", '"-infinity"'),
    "clock": ("TIME '12:34:56.5'", "TIME", '"12:34:56.5"'),
    "list": ("[1, NULL, 3]", "INTEGER[]", "[1,null,3]"),
    "array": ("[1.5, 2.25]::DECIMAL(4,2)[2]", "DECIMAL(4,2)[]", "[1.50,2.25]"),
    "struct": (
        "{'a': 1.50::DECIMAL(4,2), 'the \"day\"': DATE '2024-02-29', 'n': ['NaN'::DOUBLE, 1.5]}",
        'STRUCT(a DECIMAL(4,2), "the ""day""" DATE, n DOUBLE[])',
        '{"a":1.50,"the \\"day\\"":"2024-02-29","n":["NaN",1.5]}',
    ),
    "map": (
        "MAP {DATE '2024-02-29': TIMESTAMPTZ '2024-02-29 12:00:00+00'}",
        "MAP(DATE, TIMESTAMP WITH TIME ZONE)",
        '{"2024-02-29":"2024-02-29T12:00:00+00:00"}',
    ),
    "deep": (
        "[{'m': MAP {1: [TIMESTAMP '2024-02-29 12:00:00', NULL]}}, NULL]",
        "STRUCT(m MAP(INTEGER, TIMESTAMP[]))[]",
        '[{"m":{"1":["2024-02-29T12:00:00",null]}},null]',
    ),
}
# Types of which Parquet keeps some values only, such as these: other people's files have them, snapshots don't.
IN_PART = {
    "clock_utc": ("TIMETZ '12:34:56+00'", "TIME WITH TIME ZONE", '"12:34:56+00:00"'),
    "span": (
        "INTERVAL '1 year 2 months 3 days 04:05:06.789'",
        "INTERVAL",
        '"P1Y2M3DT4H5M6.789S"',
    ),
    "span_short": ("INTERVAL '0.05 seconds'", "INTERVAL", '"PT0.05S"'),
    "span_hours": ("INTERVAL '100 hours'", "INTERVAL", '"PT100H"'),
    "span_days": ("INTERVAL '10 days'", "INTERVAL", '"P10D"'),
    "span_none": ("INTERVAL '0 days'", "INTERVAL", '"PT0S"'),
}
FILE_ONLY = {
    "hugeint": ("12345678901234567890123456789012345678::HUGEINT", "HUGEINT", "12345678901234567890123456789012345678"),
    "uhugeint": ("18446744073709551616::UHUGEINT", "UHUGEINT", "18446744073709551616"),
    "bignum": (f"'{'9' * 60}'::BIGNUM", "BIGNUM", "9" * 60),
    "span_back": ("INTERVAL '-1 year -2 days -00:00:01.5'", "INTERVAL", '"P-1Y-2DT-1.5S"'),
    "span_fine": ("INTERVAL '1.000001 seconds'", "INTERVAL", '"PT1.000001S"'),
    "clock_east": ("TIMETZ '12:34:56+05:30'", "TIME WITH TIME ZONE", '"12:34:56+05:30"'),
    "clock_fine": ("'12:34:56.123456789'::TIME_NS", "TIME_NS", '"12:34:56.123456789"'),
    "either": ("union_value(n := 1)::UNION(n INTEGER, s VARCHAR)", "UNION(n INTEGER, s VARCHAR)", '"1"'),
    "eithers": ("[union_value(n := 1)]", "UNION(n INTEGER)[]", '["1"]'),
    "anything": ("[1, 2]::VARIANT", "VARIANT", '"[1, 2]"'),
    "point": ("'POINT (1 2)'::GEOMETRY", "GEOMETRY", '"POINT (1 2)"'),
    "enum_within": ("{'a b': 'x'::ENUM('x')}", 'STRUCT("a b" VARCHAR)', '{"a b":"x"}'),
}
ON_PLAIN = {**CASES, **IN_PART}
ON_FILE = {**ON_PLAIN, **FILE_ONLY}


def select(cases):
    values = ", ".join(f"{sql} AS {name}" for name, (sql, _, _) in cases.items())
    nothing = ", ".join(["2", *["NULL"] * len(cases)])
    return f"SELECT 1 AS user_id, {values} UNION ALL SELECT {nothing}"


def write(path, cases):
    # Whoever has a VARIANT has such a file.
    with duckdb.connect(str(path), config={"storage_compatibility_version": "latest"}) as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        connection.execute(f"CREATE TABLE types AS {select(cases)}")


def client_on_file(tmp_path):
    write(tmp_path / "types.duckdb", ON_FILE)
    return open_api(duckdb_path=tmp_path / "types.duckdb")[0]


def client_on_snapshot(tmp_path):
    store = SnapshotStore(tmp_path / "parquet")
    with duckdb.connect() as connection, store.build("run", holder="test") as build:
        path = build.path / "types.parquet"
        connection.execute(f"COPY ({select(CASES)}) TO '{path}'")
        rows = connection.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
        build.publish([MartSpec("types", "Types", "", tuple(Column(row[0], row[1]) for row in rows))])
    return open_api(parquet_dir=store.root)[0]


def client_on_plain(tmp_path):
    """On a directory that somebody else's pipeline writes."""
    (tmp_path / "parquet" / "mart").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({select(ON_PLAIN)}) TO '{tmp_path}/parquet/mart/types.parquet'")
    return open_api(parquet_dir=tmp_path / "parquet")[0]


SOURCES = [(client_on_file, ON_FILE), (client_on_snapshot, CASES), (client_on_plain, ON_PLAIN)]
every_source = pytest.mark.parametrize(("client_on", "cases"), SOURCES)


def columns_and_row(client, user=1):
    response = client.get("/api/analytics/datasets/types/query", headers=bearer(user))
    answer = response.json()
    types = {column["name"]: column["type"] for column in answer["columns"]}
    return types, response.text.partition('"rows":[')[2].partition('],"row_count"')[0]


@every_source
def test_every_type_is_the_same_json_on_every_source(tmp_path, client_on, cases):
    client = client_on(tmp_path)
    types, row = columns_and_row(client)
    assert types == {"user_id": "INTEGER", **{name: kind for name, (_, kind, _) in cases.items()}}
    assert row == "{" + ",".join(['"user_id":1', *(f'"{name}":{text}' for name, (_, _, text) in cases.items())]) + "}"
    _, nothing = columns_and_row(client, user=2)
    assert json.loads(nothing) == {"user_id": 2, **dict.fromkeys(cases)}


@every_source
def test_rows_can_be_ordered_by_any_column(tmp_path, client_on, cases):
    client = client_on(tmp_path)
    for name in cases:
        response = client.get(
            f"/api/analytics/datasets/types/query?select=user_id&order={name}", headers=bearer(all_rows=True)
        )
        assert [row["user_id"] for row in response.json()["rows"]] == [1, 2]


@every_source
def test_a_value_finds_its_own_row(tmp_path, client_on, cases):
    """Filtering by what came out, written as text, for every type that has a literal; the others say they have none."""
    client = client_on(tmp_path)
    without = {"bytes", "list", "array", "struct", "map", "deep", *IN_PART, *FILE_ONLY} - {"hugeint", "uhugeint"}
    without |= {name for name in CASES if name.endswith(("_bc", "_never"))}
    for name, (_, _, text) in cases.items():
        value = json.loads(text, parse_float=str, parse_int=str)
        value = text if isinstance(value, bool) else value
        response = client.get(
            "/api/analytics/datasets/types/query",
            params={"select": "user_id", name: f"eq.{value}"},
            headers=bearer(all_rows=True),
        )
        if name in without:
            assert response.status_code == 400
        else:
            assert response.json()["rows"] == [{"user_id": 1}], name


def test_order_is_by_value_though_text_is_shown(tmp_path):
    with duckdb.connect(str(tmp_path / "types.duckdb")) as connection:
        connection.execute("CREATE TABLE types (user_id INTEGER, single FLOAT, day DATE, span INTERVAL)")
        for values in (
            "10, '2024-01-01', '10 days'",
            "9, '0044-03-15 (BC)', '9 days'",
            "-1, '0400-01-01 (BC)', '1 hour'",
        ):
            connection.execute(f"INSERT INTO types VALUES (1, {values})")
    client, _ = open_api(duckdb_path=tmp_path / "types.duckdb")
    for name in ("single", "day", "span"):
        response = client.get(f"/api/analytics/datasets/types/query?order={name}", headers=bearer(1))
        assert [row["single"] for row in response.json()["rows"]] == [-1, 9, 10]


ELSEWHERE = """
import pathlib, sys
from backend.config import Settings
from backend.duckdb.client import Database
path = pathlib.Path(sys.argv[1])
database = Database(Settings(), **{sys.argv[2]: path, sys.argv[3]: None})
with database.connection() as connection:
    print(connection.execute("SELECT instant::VARCHAR FROM types WHERE user_id = 1").fetchall()[0][0])
"""


@pytest.mark.parametrize("source", ["file", "snapshot"])
def test_a_server_in_another_time_zone_answers_in_utc(tmp_path, source):
    if source == "file":
        client_on_file(tmp_path)
        arguments = [tmp_path / "types.duckdb", "duckdb_path", "parquet_dir"]
    else:
        client_on_snapshot(tmp_path)
        arguments = [tmp_path / "parquet", "parquet_dir", "duckdb_path"]
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, arguments)],
        env={**os.environ, "TZ": "America/New_York"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "2024-02-29 21:59:59.5+00"


def test_a_number_of_39_digits_is_json_as_well(tmp_path):
    write(tmp_path / "types.duckdb", {"huge": (f"{2**127 - 1}::HUGEINT", None, None)})
    client, _ = open_api(duckdb_path=tmp_path / "types.duckdb")
    assert columns_and_row(client)[1] == f'{{"user_id":1,"huge":{2**127 - 1}}}'
