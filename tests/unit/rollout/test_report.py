from datetime import UTC, datetime, timedelta

import pytest

from deploy.pipeline.parity.report import Comparison, Content, Kind, Mart, Report
from deploy.rollout.report import Kept

CONTENT = Content(1, "abc", (("a", "INTEGER"),))
EQUAL = Comparison("old", "new", (Mart("fct", (), CONTENT, CONTENT),))
DIFFERENT = Comparison("old", "new", (Mart("fct", (Kind.CONTENT,), CONTENT, CONTENT),))


def kept(*comparisons, minutes=1, phase=1, reason=None):
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    return Kept(Report(at, at, comparisons, reason=reason), phase, "sha256:1")


def problem(report, *, phase=1, image="sha256:1"):
    return report.problem(phase=phase, image=image, max_age_minutes=60)


def test_a_fresh_report_that_says_equal_is_good_also_after_it_was_kept():
    report = kept(EQUAL)
    assert problem(report) is None
    assert Kept.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (kept(DIFFERENT), "says different"),
        (kept(EQUAL, reason="dbt failed"), "says unknown"),
        (kept(), "says unknown"),
        (kept(EQUAL, minutes=61), "minutes old, at most 60"),
        (kept(EQUAL, phase=0), "of phase 0"),
    ],
)
def test_any_other_is_not(report, why):
    assert why in problem(report)


def test_nor_is_one_of_another_pipeline():
    assert "another image" in problem(kept(EQUAL), image="sha256:2")
    assert "another image" in problem(kept(EQUAL), image=None)
