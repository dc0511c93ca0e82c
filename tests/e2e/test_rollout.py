"""The rollout on a live stack: clients read through the gateway, traffic writes to the source, builds run."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from backend import lockfile
from backend.filepaths import REPO_ROOT

from .reader.clients import Readers
from .reader.meanwhile import target, traffic
from .reader.queries import ALL_ROWS, BATCHES, SINGLE, WALKS, Read
from .reader.report import percentile
from .rollout.builder import builds_of
from .rollout.operator import Operator, instructions
from .stack import wait_for

OUTPUT = REPO_ROOT / "tests" / "e2e" / "output"
CLIENTS, PACE_SECONDS = 16, 0.2  # 50 requests a second and more, wherever an answer takes less than a tenth of one
SCALE = "0.1"  # of the source: what is measured here is the way, not the amount
IDLE_READS = 300
pytestmark = pytest.mark.timeout(3_600)


def light_round(user, chance):
    """One of everything, in an order of its own: many small requests rather than few large ones."""
    batch = "the bank's books" if user == ALL_ROWS else "one user's books"
    walks = () if user == ALL_ROWS else WALKS["one user"]
    reads = [
        Read("listing", user),
        Read("dataset", user, (SINGLE[0],)),
        *(Read("rows", user, (query,)) for query in SINGLE),
        Read("batch", user, BATCHES[batch], batch),
        *(Read("page", user, (query,)) for query in walks),
    ]
    chance.shuffle(reads)
    return iter(reads)


@contextmanager
def readers_through(stack):
    """Clients whose every answer is judged by itself: no phase or store is known to them."""
    asked = replace(target(stack), source=None, across_phases=True)
    with traffic(stack), Readers(asked, clients=CLIENTS, pace=PACE_SECONDS, rounds=light_round) as readers:
        yield readers


def more_reads(readers, reads=IDLE_READS):
    enough = readers.findings.reads.total() + reads
    wait_for(lambda: readers.findings.reads.total() >= enough, f"{reads} more reads", seconds=600)


def assert_kept(readers):
    """No request failed, and no answer was wrong."""
    findings = readers.findings
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)


def settled(stack):
    """Nothing builds by itself any more: in phase 0 a build locks the API out."""
    stack.stop_schedule()
    wait_for(lambda: unfinished_runs(stack) == 0, "the first run has ended", seconds=400)
    return stack


@pytest.fixture(scope="module")
def old(start_stack):
    """A stack in phase 0."""
    return settled(start_stack(0, settings={"SOURCE_SCALE": SCALE}))


def unfinished_runs(stack):
    runs = stack.graphql("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
    return sum(run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") for run in runs)


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


# --- what goes wrong --------------------------------------------------------------------------------------------------
MACRO = "/opt/dagster/app/dbt/macros/materializations/mart_external.sql"
BROKEN = {
    "BACKEND_IMAGE won't start": 'CMD ["no-such-program"]',
    "BACKEND_IMAGE never gets healthy": 'CMD ["sleep", "infinity"]',
    "PIPELINE_IMAGE loses a row": f"RUN sed -i 's/(select . from {{{{ rows }}}})/(from {{{{ rows }}}} offset 1)/' "
    f"{MACRO} && grep -q 'offset 1' {MACRO}",
    "PIPELINE_IMAGE starts no Dagster": "RUN rm /opt/dagster/app/deploy/pipeline/entrypoint.py",
}
STEPS = (
    "storage", "seed", "rehearse", "pause-builds", "catch-up", "compare", "start-backend", "retire-backend",
    "resume-builds", "confirm",
)  # fmt: skip


@pytest.fixture(scope="module")
def parquet(start_stack):
    """A stack in phase 1."""
    return settled(start_stack(1, settings={"SOURCE_SCALE": SCALE}))


@pytest.fixture(scope="module")
def broken(images):
    """By what is wrong with it, the variable that names an image, and the image."""
    found = {}
    for what, line in BROKEN.items():
        variable = what.split()[0]
        name = f"parquet-marts/broken:{uuid.uuid4().hex}"
        recipe = f"FROM {os.environ[variable]}\nUSER 0:0\n{line}\nUSER 10001:10001\n"
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", name, "-"], input=recipe, text=True, check=True, timeout=120
        )
        found[what.removeprefix(variable).strip()] = {variable: name}
    yield found
    for image in found.values():
        subprocess.run(["docker", "image", "rm", *image.values()], check=False, timeout=60)


@pytest.fixture
def full_disk(tmp_path):
    """A file system without room for another file."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=6", "full", tmp_path], check=True, timeout=10)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True, timeout=10)


def whole_in_phase(operator, phase):
    """All of the phase is there, and nothing of a move is left."""
    status = operator.run("make status").stdout
    assert f"Phase: {phase}\n" in status, status
    assert "Unfinished" not in status, status
    containers = operator.stack.engine.containers.list(all=True, filters={"name": f"{operator.stack.project}-rollout-"})
    assert containers == [], status


def served_from_the_volume(stack):
    """Whether there is one backend, and it is of phase 1."""
    (backend,) = stack.backends()
    return [mount["Type"] for mount in backend.attrs["Mounts"] if mount["Destination"] == "/app/data"] == ["volume"]


def report_of(operator):
    """Where the parity report lies."""
    return operator.directory / operator.stack.project / "parity.json"


def lock_of(operator):
    """The file that the one who changes the stack holds."""
    return operator.directory / operator.stack.project / "lock"


def assert_refused(operator, *says, command="make promote PHASE=2", **environment):
    """The command fails and says why; all of phase 1 is as it was."""
    done = operator.run(command, **environment)
    assert done.returncode != 0, done.stdout
    for text in says:
        assert text in done.stdout, done.stdout
    whole_in_phase(operator, 1)


def test_a_full_disk_ends_a_promotion_before_anything_has_changed(parquet, full_disk):
    operator = Operator(parquet)
    with readers_through(parquet) as readers:
        operator.succeeds("make verify")
        assert_refused(operator, "seed failed", "No space left on device", PARQUET_HOST_DIR=str(full_disk))
    assert_kept(readers)


def test_whatever_breaks_a_promotion_the_old_phase_serves_on(parquet, broken):
    operator = Operator(parquet)
    refused = partial(assert_refused, operator)
    with readers_through(parquet) as readers:
        report_of(operator).unlink(missing_ok=True)
        refused("no report", "`make verify`")
        lossy = broken["loses a row"]
        refused("Parity: different", "fct_transactions: 1 in the old, 0 in the new", command="make verify", **lossy)
        refused("the last report says different", **lossy)
        operator.succeeds("make verify")
        refused("the last report is of another image", **lossy)
        before = operator.journal()
        assert "1. storage: " in operator.succeeds("make promote PHASE=2 DRY_RUN=1")
        assert operator.journal() == before
        with lockfile.held(lock_of(operator), "Ada's rollout", wait=0):
            refused("Ada's rollout")
            refused("Ada's rollout", command="make rollback")
        assert operator.watched(looks=3) == 0
        refused("minutes old, at most", ROLLOUT_PARITY_MAX_AGE_MINUTES="0.001")
        refused("rehearse failed", "no-such-program", "undoing", **broken["won't start"])
        refused("rehearse failed", "not healthy", **broken["never gets healthy"], ROLLOUT_WAIT_SECONDS="10")
        # After the traffic has moved: the whole way back, but for Dagster, which this image starts in no phase.
        no_dagster = broken["starts no Dagster"]
        operator.succeeds("make verify", **no_dagster)
        done = operator.run("make promote PHASE=2", **no_dagster)
        assert done.returncode != 0, done.stdout
        assert "resume-builds failed" in done.stdout, done.stdout
        assert "undoing" in done.stdout, done.stdout
        assert served_from_the_volume(parquet)
        operator.succeeds("make rollback")
        whole_in_phase(operator, 1)
        more_reads(readers)
    assert_kept(readers)
    assert parquet.build("dim_users")


def test_a_promotion_killed_at_every_step_in_turn_goes_on_and_so_does_a_rollback(parquet):
    operator = Operator(parquet)

    def killed(step, *command, by=signal.SIGKILL):
        # What the killed tool had started ends by itself, and keeps the lock until then.
        wait_for(lambda: lockfile.holder(lock) is None, "the lock is free", seconds=300)
        code, output = operator.killed_at(step, *command, by=by)
        assert code != 0, output
        return output

    lock = lock_of(operator)
    with readers_through(parquet) as readers:
        operator.succeeds("make verify")
        assert "undoing" in killed("catch-up", "promote", "--phase", "2", by=signal.SIGINT)
        whole_in_phase(operator, 1)
        # Halfway up, and back.
        killed("start-backend", "promote", "--phase", "2")
        wait_for(lambda: lockfile.holder(lock) is None, "the lock is free", seconds=300)
        operator.succeeds("make rollback")
        whole_in_phase(operator, 1)
        # Halfway up, again and again, each time one step further.
        for step in STEPS:
            killed(step, "promote", "--phase", "2")
        wait_for(lambda: lockfile.holder(lock) is None, "the lock is free", seconds=300)
        operator.succeeds("make promote PHASE=2")
        whole_in_phase(operator, 2)
        # Halfway down, and on.
        killed("start-backend", "rollback")
        wait_for(lambda: lockfile.holder(lock) is None, "the lock is free", seconds=300)
        operator.succeeds("make rollback")
        whole_in_phase(operator, 1)
        more_reads(readers)
    assert_kept(readers)
    assert parquet.build("dim_users")
