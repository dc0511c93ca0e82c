import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deploy.pipeline.parity.report import HEADINGS, Comparison, Content, Kind, Mart, Report, Row, Verdict

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ONE = Content(1, "ab", (("user_id", "INTEGER"), ('a "name" é', "STRUCT(x VARCHAR)")))
EQUAL = Mart("dim_users", (), ONE, ONE)
OTHER = Mart(
    "dim_accounts",
    (Kind.ROW_COUNT, Kind.CONTENT),
    ONE,
    replace(ONE, rows=2),
    differing=1,
    rows=(Row(1, 2, {"user_id": "1", "note": None}),),
)
ABSENT = Mart("fct_budgets", (Kind.ABSENT,), ONE, None)
SAME, DIFFERENT = Comparison("a", "b", (EQUAL,)), Comparison("a", "b", (EQUAL, OTHER, ABSENT))
LEFT_OUT = Comparison("c", "d", reason="there is none")


def report(*comparisons, reason=None):
    return Report(MOMENT, MOMENT, comparisons, {"users": "40:1"}, reason)


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        (report(SAME), Verdict.EQUAL, 0),
        (report(SAME, LEFT_OUT), Verdict.EQUAL, 0),
        (report(SAME, DIFFERENT), Verdict.DIFFERENT, 1),
        (report(DIFFERENT, reason="then it broke"), Verdict.DIFFERENT, 1),
        (report(SAME, reason="then it broke"), Verdict.UNKNOWN, 2),
        (report(LEFT_OUT), Verdict.UNKNOWN, 2),
        (report(), Verdict.UNKNOWN, 2),
    ],
)
def test_equal_is_only_what_was_compared_to_the_end(found, verdict, code):
    assert (found.verdict, found.exit_code) == (verdict, code)
    assert json.loads(found.to_json())["verdict"] == verdict


def test_nothing_compared_is_not_equal():
    assert report(Comparison("a", "b")).verdict == Verdict.UNKNOWN


def test_it_comes_back_from_json_as_it_was():
    whole = report(SAME, DIFFERENT, LEFT_OUT, reason="why")
    assert Report.from_json(whole.to_json()) == whole
    verdicts = [comparison["verdict"] for comparison in json.loads(whole.to_json())["comparisons"]]
    assert verdicts == ["equal", "different", "left out"]


@pytest.mark.parametrize("text", ["", "Traceback", "[]", "{}", '{"started_at": 1}'])
def test_what_is_no_report_is_refused(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Report.from_json(text)


def test_the_table_has_a_row_for_each_mart_and_for_what_was_left_out():
    table = report(DIFFERENT, LEFT_OUT).table()
    assert table == [
        ("a / b", "dim_users", "equal", "1", "1", ""),
        ("a / b", "dim_accounts", "row count, content", "1", "2", "1"),
        ("a / b", "fct_budgets", "absent", "1", "", ""),
        ("c / d", "", "left out: there is none", "", "", ""),
    ]
    assert {len(row) for row in table} == {len(HEADINGS)}
