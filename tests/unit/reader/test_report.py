from types import SimpleNamespace

import pytest

from tests.e2e.reader.clients import Findings, Rollback, Timing
from tests.e2e.reader.meanwhile import Build, Operations
from tests.e2e.reader.queries import Query, Read
from tests.e2e.reader.report import markdown, percentile, summary

READ = Read("rows", 1, (Query("dim_users"),))


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (75, 3), (95, 4), (99, 4)])
def test_percentiles_are_measurements(percent, expected):
    assert percentile([4, 1, 3, 2], percent) == expected


def test_no_measurement_has_no_percentile():
    with pytest.raises(ValueError, match="no measurement"):
        percentile([], 50)


@pytest.fixture
def operations():
    findings = Findings()
    for at, seconds in ((1.0, 0.010), (2.0, 0.030), (3.0, 0.010)):
        findings.answered(READ, "1", Timing(at, seconds))
    stack = SimpleNamespace(finished=lambda run_id: run_id, manifest=lambda _: {"run_id": "SUCCESS"})
    made = Operations(stack, findings, builds=[Build((), published=True, began=1.5, ended=2.5)])
    made.exec_seconds.append(0.1)
    return made


def test_answers_during_a_build_are_told_apart(operations):
    latency = summary(operations, minutes=1)["latency in ms"]
    assert (latency["idle"]["reads"], latency["idle"]["p99"]) == (2, 10.0)
    assert (latency["during builds"]["reads"], latency["during builds"]["p99"]) == (1, 30.0)
    assert latency["ratio"]["p99"] == 3.0


def test_answers_during_a_rollback_are_neither(operations):
    rollback = Rollback("1", began=2.9, seen=3.1)
    operations.findings.rollbacks.append(rollback)
    found = summary(operations, minutes=1)
    assert found["latency in ms"]["idle"]["reads"] == 1
    assert found["seconds from a rollback's command to the first answer"]["p50"] == 0.2


def test_a_rollback_is_seen_by_who_asked_after_its_command(operations):
    rollback = Rollback("1", began=4.0)
    operations.findings.rollbacks.append(rollback)
    operations.findings.answered(READ, "1", Timing(4.2, 0.3))
    assert rollback.seen is None, "that one was asked when the snapshot was served the last time"
    operations.findings.answered(READ, "2", Timing(4.4, 0.1))
    operations.findings.answered(READ, "1", Timing(4.6, 0.1))
    operations.findings.answered(READ, "1", Timing(4.5, 0.1))
    assert rollback.seen == 4.5


def test_what_went_wrong_is_in_the_report(operations):
    operations.findings.failure(READ, "503 no")
    operations.findings.violations(READ, ("a row came twice",))
    found = summary(operations, minutes=1)
    assert (found["failed reads"], found["violations"]) == (1, 1)
    assert "503 no" in markdown(found)
    assert "a row came twice" in markdown(found)


def test_a_snapshot_of_a_run_that_failed_is_a_violation(operations):
    operations.stack.manifest = lambda _: {"run_id": "FAILURE"}
    found = summary(operations, minutes=1)
    assert found["violations"] == 1
    assert "VIOLATION 1 is of no run that succeeded" in markdown(found)
