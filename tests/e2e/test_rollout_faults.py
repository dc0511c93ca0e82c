"""What breaks or kills a move leaves the old phase serving, with clients reading through the gateway all the while."""

import os
import signal
import subprocess
import uuid
from functools import partial

import pytest

from backend import lockfile

from .rollout.live import assert_kept, more_reads, readers_through, settled
from .rollout.operator import Operator
from .stack import CHECKOUT, wait_for

pytestmark = pytest.mark.timeout(3_600)

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
    return settled(start_stack(1))


@pytest.fixture(scope="module")
def report(parquet):
    """The report of this image, as `make verify` writes it: for who needs one again within the hour."""
    operator = Operator(parquet)
    operator.succeeds("make verify")
    return report_of(operator).read_bytes()


@pytest.fixture(scope="module")
def broken(images):
    """By what is wrong with it, the variable that names an image, and the image."""
    found = {}
    for what, line in BROKEN.items():
        variable = what.split()[0]
        name = f"parquet-marts/broken:{CHECKOUT}-{uuid.uuid4().hex}"
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


def test_a_full_disk_ends_a_promotion_before_anything_has_changed(parquet, report, full_disk):
    operator = Operator(parquet)
    report_of(operator).write_bytes(report)
    with readers_through(parquet) as readers:
        assert_refused(operator, "seed failed", "No space left on device", PARQUET_HOST_DIR=str(full_disk))
    assert_kept(readers)


def test_whatever_breaks_a_promotion_the_old_phase_serves_on(parquet, report, broken):
    operator = Operator(parquet)
    refused = partial(assert_refused, operator)
    with readers_through(parquet) as readers:
        report_of(operator).unlink(missing_ok=True)
        refused("no report", "`make verify`")
        lossy = broken["loses a row"]
        refused("Parity: different", "fct_transactions: 1 in the old, 0 in the new", command="make verify", **lossy)
        refused("the last report says different", **lossy)
        report_of(operator).write_bytes(report)
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


def test_a_promotion_killed_at_every_step_in_turn_goes_on_and_so_does_a_rollback(parquet, report):
    operator = Operator(parquet)
    report_of(operator).write_bytes(report)

    def killed(step, *command, by=signal.SIGKILL):
        # What the killed tool had started ends by itself, and keeps the lock until then.
        wait_for(lambda: lockfile.holder(lock) is None, "the lock is free", seconds=300)
        code, output = operator.killed_at(step, *command, by=by)
        assert code != 0, output
        return output

    lock = lock_of(operator)
    with readers_through(parquet) as readers:
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
