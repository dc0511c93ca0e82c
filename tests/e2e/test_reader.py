"""The promise: every answer is complete, of one published snapshot, and of one whose tests passed. See README.md."""

import statistics
import time

import pytest

from .reader.clients import KINDS
from .reader.meanwhile import readers_of
from .stack import wait_for

READS = 1_000
PACE_SECONDS = 0.3  # between two reads of a client: whoever answers goes before whoever builds, and both are to get on
PATIENCE_SECONDS = 900  # a guard; on two idle cores a third of it is enough
pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


@pytest.fixture(scope="module", params=[1, 2], ids=["phase1", "phase2"])
def stack(request, start_stack):
    stack = start_stack(request.param)
    stack.stop_schedule()
    yield stack
    stack.down()  # before the next one starts


def assert_kept(findings, operations):
    """No failed read and no violation, and every kind of read was made."""
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)
    assert operations.unproven() == []
    assert set(findings.reads) == set(KINDS)
    assert findings.reads.total() >= READS


def test_every_answer_is_whole_and_of_one_tested_snapshot_while_builds_publish(stack):
    """Full and partial builds, and one that its tests refuse, under traffic; phase 1 has fewer of them."""
    publishes = 3 if stack.phase == 2 else 1
    with readers_of(stack, pace=PACE_SECONDS) as (readers, operations):
        findings = readers.findings
        deadline = time.monotonic() + PATIENCE_SECONDS
        operations.build()
        refused = operations.refused_build() if stack.phase == 2 else None
        while len(findings.snapshots) <= publishes or findings.reads.total() < READS:
            assert time.monotonic() < deadline, (findings.snapshots, findings.reads)
            operations.build()
        wait_for(lambda: findings.walks_across_a_publish, "a client's pages span a publish", seconds=120)
    assert_kept(findings, operations)
    assert len(findings.snapshots) > publishes
    assert refused is None or not refused.published


def test_a_rollback_under_load_is_seen_at_once_and_no_read_fails(stack):
    if stack.phase == 1:
        pytest.skip("phase 1 also rewrites the phase-0 file: tests/e2e/test_phase1.py")
    with readers_of(stack, pace=PACE_SECONDS) as (readers, operations):
        build = operations.build()
        rollbacks = [rollback for _ in range(3) for rollback in operations.back_and_forth()]
    findings = readers.findings
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)
    assert all(rollback.seen for rollback in rollbacks)
    assert statistics.median(rollback.seconds for rollback in rollbacks) < build.seconds / 3
