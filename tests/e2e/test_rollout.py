"""The runbook on a live stack: clients read through the gateway, traffic writes to the source, builds run."""

import json
import sys
import time

import pytest

from backend.filepaths import REPO_ROOT

from .reader.report import percentile
from .rollout.builder import builds_of
from .rollout.live import assert_kept, more_reads, readers_through, settled
from .rollout.operator import Operator, instructions

OUTPUT = REPO_ROOT / "tests" / "e2e" / "output"
pytestmark = pytest.mark.timeout(3_600)


@pytest.fixture(scope="module")
def old(start_stack):
    """A stack in phase 0."""
    return settled(start_stack(0))


def test_the_runbook_up_down_and_up_again_without_a_failed_request(old, capsys):
    operator = Operator(old)
    book = instructions()
    up, down, for_good = ([i for i in book if i.part == part] for part in ("Up", "Down", "For good"))
    assert len(up) + len(down) + len(for_good) == len(book)
    again = [instruction for instruction in up if "promote" in instruction.command]  # the reports are fresh still
    moves = []
    with readers_through(old) as readers, builds_of(old) as builder:
        more_reads(readers)
        for instruction in (*up, *down, *again):
            before_move(instruction, old, builder)
            began = time.monotonic()
            operator.follow(instruction)
            if "promote" in instruction.command or "rollback" in instruction.command:
                old.phase = served_phase(operator)
                moves.append((f"to phase {old.phase}", began, time.monotonic()))
                if old.phase:
                    builder.go_on()
                more_reads(readers, 100)
        assert operator.run("make finalize", answer="n\n").returncode != 0
        assert f"{old.project}_duckdb_data" in {volume.name for volume in old.engine.volumes.list()}
        for instruction in for_good:
            operator.follow(instruction)
        more_reads(readers, 100)
        builder.last_one()
    report(capsys, readers.findings, moves, builder.ended)
    assert_kept(readers)
    assert [move for move, *_ in moves] == [f"to phase {phase}" for phase in (1, 2, 1, 0, 1, 2)]
    assert builder.ended["SUCCESS"] >= len(moves) / 2, builder.ended
    assert None in readers.findings.snapshots
    # A cursor ends where phase 0 made it, or answers it; from volume to bind mount and back it goes on.
    phase_0_answers = [(0, moves[0][2]), (moves[3][1], moves[4][2])]
    for at, snapshot in readers.findings.walks_ended:
        assert snapshot is None or any(began <= at <= ended for began, ended in phase_0_answers), (at, snapshot, moves)
    with old.api(all_rows=True) as api:
        assert len(api.get("/api/analytics/datasets").json()["datasets"]) == 11
    volumes = {volume.name for volume in old.engine.volumes.list()}
    assert f"{old.project}_duckdb_data" not in volumes


def before_move(instruction, stack, builder):
    """A build is under way when a move begins; the last one, when it leads to phase 0."""
    if not stack.phase:
        return
    if "promote" in instruction.command or "rollback" in instruction.command:
        builder.go_on()
    if stack.phase == 1 and "rollback" in instruction.command:
        builder.last_one()


def served_phase(operator):
    done = operator.run("make status")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Phase: ")]
    return int(line.removeprefix("Phase: "))


def report(capsys, findings, moves, builds):
    """Figures for people; nothing is asserted of them."""

    def milliseconds(belongs):
        return [timing.seconds * 1_000 for timing in findings.timings if belongs(timing.at)]

    idle = percentile(milliseconds(lambda at: not any(began <= at <= ended for _, began, ended in moves)), 99)
    during = [milliseconds(lambda at, b=began, e=ended: b <= at <= e) for _, began, ended in moves]
    whole = max(t.at for t in findings.timings) - min(t.at for t in findings.timings)
    found = {
        "reads": findings.reads.total(),
        "reads per second": round(findings.reads.total() / whole, 1),
        "failed": findings.failed,
        "wrong": findings.violated,
        "builds": dict(builds),
        "p99 without a move, in ms": round(idle, 1),
        "moves": [
            {
                "move": move,
                "seconds, preflight included": round(ended - began, 1),
                "reads": len(reads),
                "p99, as ratio": round(percentile(reads, 99) / idle, 2),
            }
            for (move, began, ended), reads in zip(moves, during, strict=True)
        ],
    }
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "rollout.json").write_text(json.dumps(found, indent=1) + "\n")
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(found)}\n")
