import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from tests.bench.answers import canonical, first_difference
from tests.bench.peers import from_json

COLUMNS = {
    "id": "BIGINT",
    "amount": "DECIMAL(12,2)",
    "day": "DATE",
    "at": "TIMESTAMP WITH TIME ZONE",
    "text": "VARCHAR",
}
ROWS = [
    {
        "id": number,
        "amount": Decimal("12.30"),
        "day": date(2025, 1, 2),
        "at": datetime(2025, 1, 2, 3, tzinfo=UTC),
        "text": "é",
    }
    for number in range(3)
]
EXPECTED = canonical(ROWS, COLUMNS)


def changed(number, **values):
    return canonical([row | values if row["id"] == number else row for row in ROWS], COLUMNS)


def difference(found, *, ordered=True):
    return first_difference(EXPECTED, found, ordered=ordered)


@pytest.mark.parametrize(
    "same",
    [
        {"amount": 12.3},
        {"amount": "12.30"},
        {"amount": Decimal("12.3000")},
        {"day": "2025-01-02"},
        {"day": "2025-01-02T00:00:00"},
        {"at": "2025-01-02T03:00:00Z"},
        {"at": "2025-01-02 03:00:00.000000 UTC"},
        {"at": datetime(2025, 1, 2, 4, tzinfo=timezone(timedelta(hours=1)))},
    ],
    ids=str,
)
def test_the_same_value_written_otherwise_is_no_difference(same):
    assert difference(changed(1, **same)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"amount": Decimal("12.31")},
        {"amount": 12},
        {"amount": None},
        {"amount": "12,30"},
        {"day": "2025-01-02T00:00:01"},
        {"at": "2025-01-02T03:00:00"},
        {"at": "2025-01-02T03:00:00.000001Z"},
        {"text": "e"},
        {"text": None},
        {"text": ""},
        {"id": 1.5},
        {"id": True},
    ],
    ids=str,
)
def test_one_changed_cell_is_a_difference_and_its_row_is_named(other):
    assert difference(changed(1, **other)).startswith("row 1 of 3 and 3: expected ('1', '12.3'")


def test_the_digits_of_a_decimal_survive_json():
    (row,) = from_json(b'[{"amount": 12345678901234567890.10}]')
    assert canonical([row], {"amount": "DECIMAL(38,2)"}) == [("12345678901234567890.1",)]
    assert canonical(json.loads('[{"amount": 12345678901234567890.10}]'), {"amount": "DECIMAL(38,2)"}) != [
        ("12345678901234567890.1",)
    ]


def test_a_missing_row_is_a_difference():
    assert difference(EXPECTED[:2]).startswith("row 2 of 3 and 2: expected ('2',")
    assert difference(EXPECTED[1:], ordered=False).startswith("row 0 of 3 and 2: expected ('0',")


def test_a_row_too_many_is_a_difference():
    assert difference([*EXPECTED, EXPECTED[2]]).startswith("row 3 of 3 and 4: expected None, found ('2',")
    assert difference([*EXPECTED, EXPECTED[0]], ordered=False) is not None


def test_another_order_is_a_difference_where_the_order_was_asked_for():
    reordered = [EXPECTED[1], EXPECTED[0], EXPECTED[2]]
    assert difference(reordered).startswith("row 0")
    assert difference(reordered, ordered=False) is None


def test_a_column_that_is_left_out_is_null():
    without = [{name: value for name, value in row.items() if name != "text"} for row in ROWS]
    assert difference(canonical(without, COLUMNS)) is not None
    assert canonical(without, COLUMNS) == canonical([row | {"text": None} for row in ROWS], COLUMNS)


def test_a_column_that_nobody_asked_for_is_refused():
    with pytest.raises(ValueError, match="nobody asked for: rowid"):
        canonical([ROWS[0] | {"rowid": 1}], COLUMNS)
