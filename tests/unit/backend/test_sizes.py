"""Marts of many columns, of no rows, and of many."""

import csv
import io
import re
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backend.filepaths import REPO_ROOT
from deploy.pipeline.parity.compare import compare_mart

from .api import bearer
from .test_names import published, url

COLUMNS = 2000
KINDS = [pa.int64(), pa.string(), pa.list_(pa.int32()), pa.struct([("a b", pa.bool_())])]
VALUES = [1, "a", [1, None], {"a b": True}]


@pytest.mark.parametrize("count", [0, 3])
def test_two_thousand_columns_of_few_rows_or_none(count):
    rows = pa.table(
        {f"c {n}": pa.array([VALUES[n % 4], None, VALUES[n % 4]][:count], KINDS[n % 4]) for n in range(COLUMNS)}
    )
    with published("wide", rows) as clients:
        for client in clients:
            answer = client.get(url("wide"), params={"order": '"c 0"'}, headers=bearer(1)).json()
            assert [column["name"] for column in answer["columns"]] == rows.column_names
            assert answer["rows"] == (rows.take([0, 2, 1]) if count else rows).to_pylist()
            last = {"select": '"c 1999"', "c 1996": "eq.1"}
            assert len(client.get(url("wide"), params=last, headers=bearer(1)).json()["rows"]) == max(0, count - 1)
            for name in ("arrow", "parquet"):
                content = client.get(url("wide"), params={"format": name}, headers=bearer(1)).content
                came = pa.ipc.open_stream(content).read_all() if name == "arrow" else pq.read_table(io.BytesIO(content))
                assert came.to_pydict() == rows.to_pydict()
    with duckdb.connect() as connection:
        connection.register("went", rows)
        connection.register("came", came)
        assert compare_mart(connection, "wide", "went", "came").kinds == ()


def test_two_thousand_columns_as_text():
    """Which takes more memory than a query has by default."""
    rows = pa.table({f"c {n}": pa.array([n]) for n in range(COLUMNS)})
    with published("wide", rows, duckdb_memory_limit=1_500_000_000) as (client, _):
        text = client.get(url("wide"), params={"format": "csv"}, headers=bearer(1)).text
        assert list(csv.reader(io.StringIO(text))) == [rows.column_names, [str(n) for n in range(COLUMNS)]]


MANY = """
import json, pathlib, re, sys, duckdb
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore
from tests.unit.backend.api import bearer, open_api

root, rows = pathlib.Path(sys.argv[1]), int(sys.argv[2])
columns = {"user_id": "INTEGER", "n": "BIGINT", "amount": "DECIMAL(12,2)", "text": "VARCHAR"}
with SnapshotStore(root).build("run", holder="test") as build:
    (root / "many.parquet").rename(build.path / "many.parquet")
    build.publish([MartSpec("many", "Many", "", tuple(map(Column, columns, columns.values())))])
client, _ = open_api(parquet_dir=root, resident_memory=0, statement_timeout_seconds=600)
with client:
    for asked in (
        {"order": "amount.desc", "limit": 100},
        {"select": "count(),amount.sum(),n.max()"},
        {"select": "amount,count()", "order": "count.desc"},
        {"n": f"eq.{rows - 1}"},
    ):
        path = "/api/analytics/datasets/many/query"
        response = client.get(path, params=asked, headers={**bearer(all_rows=True), "Prefer": "count=exact"})
        assert response.status_code == 200, response.text
        print(json.dumps(response.json()["rows"][0]))
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def test_publishing_opening_and_asking_many_rows_takes_no_more_memory_than_few(tmp_path):
    """In a process for each, which reads the mart from the disk."""
    peaks = []
    for rows in (400_000, 4_000_000):
        root = tmp_path / str(rows)
        root.mkdir()
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.execute(
                f"""
                COPY (
                    SELECT (i % 100)::INTEGER AS user_id, i AS n, (i % 1000)::DECIMAL(12,2) AS amount,
                        hash(i)::VARCHAR AS text
                    FROM range({rows}) AS t(i)
                ) TO '{root}/many.parquet' (ROW_GROUP_SIZE 51200)
                """
            )
        result = subprocess.run(
            [sys.executable, "-c", MANY, root, str(rows)], cwd=REPO_ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        *found, peak = [line for line in result.stdout.splitlines() if re.match(r"[{\d]", line) and "event" not in line]
        largest, sums, group, last = found
        assert '"amount": 999.0' in largest
        assert f'"count": {rows}, "sum": {rows * 499.5}, "max": {rows - 1}' in sums
        assert f'"count": {rows // 1000}' in group
        assert f'"n": {rows - 1}' in last
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] * 1.25
