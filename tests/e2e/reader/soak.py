"""``make soak MINUTES=n``: clients read a stack of their own for so long, while all that can happen to it does."""

import json
import os
import sys
import time

import pytest

from backend.filepaths import REPO_ROOT
from tests.e2e.stack import wait_for

from . import report
from .meanwhile import readers_of

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
OUTPUT = REPO_ROOT / "tests" / "e2e" / "output"
IDLE_READS = 300  # after each build, to compare with
PACE_SECONDS = float(os.environ.get("SOAK_PACE", "0.01"))  # of each client, between an answer and its next question
BACK_AND_FORTH = 20  # rollbacks of the data and of that, in each round


@pytest.mark.timeout(MINUTES * 60 + 1_800)
def test_soak(start_stack, capsys):
    stack = start_stack(2)
    stack.stop_schedule()
    with readers_of(stack, pace=PACE_SECONDS) as (readers, operations):
        began = time.monotonic()
        try:
            while time.monotonic() < began + MINUTES * 60:
                one_round(operations)
        finally:
            found = report.summary(operations, minutes=(time.monotonic() - began) / 60)
            OUTPUT.mkdir(exist_ok=True)
            (OUTPUT / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
            (OUTPUT / "soak.md").write_text(report.markdown(found))
            with capsys.disabled():
                sys.stdout.write("\n" + report.markdown(found))
    assert (found["failed reads"], found["violations"]) == (0, 0)
    assert (readers.findings.failed, readers.findings.violated) == (0, 0), "found while the clients ended"


def one_round(operations):
    """Two builds, one that its tests refuse, and rollbacks."""
    for build in (operations.build, operations.build, operations.refused_build):
        build()
        idle(operations.findings)
    for _ in range(BACK_AND_FORTH):
        operations.back_and_forth()


def idle(findings):
    enough = findings.reads.total() + IDLE_READS
    wait_for(lambda: findings.reads.total() >= enough, "clients read while nothing is built", seconds=300)
