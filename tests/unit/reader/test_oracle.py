"""The oracle knows a snapshot to the digit, and copies none that is not what its manifest says."""

import hashlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.reader.judge import Judge
from tests.e2e.reader.oracle import HostDirectory
from tests.e2e.reader.queries import Query, Read

SNAPSHOT = "20260101T000000-000000-abcdef"
TABLE = pa.table(
    {
        "user_id": pa.array([1, 1, 2, 2], pa.int32()),
        "posted_at": [datetime(2026, 1, day, 8, 30, 0, 120_000, UTC) for day in (1, 2, 3, 4)],
        "posted_on": [date(2026, 1, day) for day in (1, 2, 3, 4)],
        "amount": pa.array([Decimal("1.50"), Decimal("2.00"), Decimal("1.50"), Decimal("-3.10")], pa.decimal128(12, 2)),
        "rate": [0.1, None, 1e-7, 2.0],
        "path": [["a"], [], ["b", "c"], ["d"]],
    }
)
TYPES = ["INTEGER", "TIMESTAMP WITH TIME ZONE", "DATE", "DECIMAL(12,2)", "DOUBLE", "VARCHAR[]"]
COLUMNS = [{"name": n, "type": t, "description": ""} for n, t in zip(TABLE.column_names, TYPES, strict=True)]
ROWS = (
    b'[{"user_id":1,"posted_at":"2026-01-01T08:30:00.12+00:00","posted_on":"2026-01-01","amount":1.50,"rate":0.1,"path":["a"]},'
    b'{"user_id":1,"posted_at":"2026-01-02T08:30:00.12+00:00","posted_on":"2026-01-02","amount":2.00,"rate":null,"path":[]},'
    b'{"user_id":2,"posted_at":"2026-01-03T08:30:00.12+00:00","posted_on":"2026-01-03","amount":1.50,"rate":1e-7,"path":["b","c"]}]'
)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "snapshots" / SNAPSHOT
    path.mkdir(parents=True)
    pq.write_table(TABLE, path / "money.parquet")
    write_manifest(path)
    return path


def write_manifest(path, **values):
    content = (path / "money.parquet").read_bytes()
    mart = {
        "name": "money", "label": "Money", "description": "Money.", "columns": COLUMNS, "rows": TABLE.num_rows,
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    manifest = {"id": SNAPSHOT, "created_at": "2026-01-01T00:00:00+00:00", "marts": [{**mart, **values}]}
    (path / "manifest.json").write_text(json.dumps(manifest))


def body(rows=ROWS, following='"cursor"', columns=None, refreshed="2026-01-01T00:00:00+00:00", snapshot=SNAPSHOT):
    columns = columns or [{"name": c["name"], "type": c["type"]} for c in COLUMNS]
    count = len(json.loads(rows))
    return (
        b'{"dataset":"money","columns":%s,"rows":%s,"row_count":%d,"next":%s,"last_refresh":"%s","snapshot":"%s"}'
        % (json.dumps(columns).encode(), rows, count, following.encode(), refreshed.encode(), snapshot.encode())
    )


def verdict(directory, answer, query=None, user=0, header=SNAPSHOT):
    judge = Judge(HostDirectory(directory.parents[1]), None)
    return judge.judge(Read("rows", user, (query or Query("money", limit=3),)), header, answer).violations


def test_the_answer_of_the_snapshot_is_right(directory):
    assert verdict(directory, body()) == ()


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        (b"1.50", b"1.5"),
        (b"2.00", b"2.01"),
        (b"2.00", b'"2.00"'),
        (b"1e-7", b"1.1e-7"),
        (b"08:30:00.12+", b"08:30:00.120+"),
        (b'["b","c"]', b'["c","b"]'),
        (b"null", b'"NULL"'),
    ],
)
def test_one_digit_that_differs_is_wrong(directory, told, instead):
    assert len(verdict(directory, body(ROWS.replace(told, instead, 1)))) == 1


def test_rows_that_are_missing_or_in_another_order_are_wrong(directory):
    rows = json.loads(ROWS, parse_float=str)
    assert verdict(directory, body(ROWS[: ROWS.index(b',{"user_id":2')] + b"]"))
    assert verdict(directory, body(json.dumps([rows[1], rows[0], rows[2]]).encode()))


def test_an_answer_that_hides_its_next_page_is_wrong(directory):
    assert verdict(directory, body(following="null"))


def test_a_moment_or_a_snapshot_that_was_not_published_is_wrong(directory):
    assert verdict(directory, body(refreshed="2026-01-01T00:00:01+00:00"))
    other = SNAPSHOT.replace("abcdef", "abcdee")
    assert "no published snapshot" in verdict(directory, body(snapshot=other), header=other)[0]


def test_half_an_answer_is_wrong(directory):
    assert "not an answer" in verdict(directory, body()[:-20])[0]


def test_filters_order_ties_and_pages_are_those_of_the_contract(directory):
    rows = json.loads(ROWS, parse_float=lambda digits: digits)
    ordered = Query("money", order=("amount.desc",), limit=1, offset=1)
    assert verdict(directory, body(ROWS[: ROWS.index(b',{"user_id"')] + b"]"), ordered) == ()
    assert verdict(directory, body(b"[" + ROWS[ROWS.index(b'{"user_id":2') :]), ordered), rows


def test_of_a_user_there_are_the_users_rows(directory):
    mine = body(ROWS[: ROWS.index(b',{"user_id":2')] + b"]", following="null")
    assert verdict(directory, mine, user=1) == ()
    assert verdict(directory, body(), user=1)


@pytest.mark.parametrize("value", [{"rows": 5}, {"sha256": "0" * 64}, {"bytes": 1}])
def test_a_file_that_is_not_what_its_manifest_says_is_never_copied(directory, value):
    write_manifest(directory, **value)
    assert "not what its manifest says" in verdict(directory, body())[0]
