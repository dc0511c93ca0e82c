"""A publisher killed at every step leaves the old or the new snapshot, whole; the next build cleans up."""

import os
import signal

import pytest

from backend.snapshots import SnapshotStore
from tests.forked import PROCESSES

from .marts import NAMES, generations, publish

# Everything through which the store and shutil change a disk. The publisher below dies by SIGKILL right before the
# n-th of these calls; one run without a limit counts how many there are.
CALLS = ("mkdir", "rename", "replace", "link", "symlink", "unlink", "rmdir", "fsync", "ftruncate", "pwrite", "chmod")


def publisher(root, limit, only, state, said):
    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    store = SnapshotStore(root)
    publish(store, 2, only=only, state=state)
    store.retain(keep=1, minutes=0)
    said.send(calls)


def run_publisher(root, limit, only, state):
    """Exit code, and how many calls there were: None of one that was killed."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=publisher, args=(root, limit, only, state, theirs))
    process.start()
    theirs.close()
    process.join()
    with ours:
        return process.exitcode, ours.recv() if process.exitcode == 0 else None


@pytest.mark.parametrize(
    ("only", "state"), [(NAMES, None), (("fct_two",), None), (NAMES, "new")], ids=["full", "partial", "with a state"]
)
def test_a_publisher_killed_at_any_step_leaves_the_old_or_the_new_snapshot(tmp_path, only, state):
    rehearsal = tmp_path / "rehearsal"
    publish(SnapshotStore(rehearsal), 0)
    publish(SnapshotStore(rehearsal), 1)
    code, steps = run_publisher(rehearsal, 0, only, state)
    assert code == 0
    assert steps > 15

    old = dict.fromkeys(NAMES, 1)
    new = {**old, **dict.fromkeys(only, 2)}
    outcomes = []
    for step in range(1, steps + 1):
        store = SnapshotStore(tmp_path / f"step-{step}")
        publish(store, 0)
        before = publish(store, 1, state="old" if state else None).id
        assert run_publisher(store.root, step, only, state) == (-signal.SIGKILL, None)
        with store.open() as snapshot:
            snapshot.verify()
            found = generations(snapshot)
        assert found == (old if snapshot.id == before else new), f"step {step}"
        if state:
            with store.build("next", holder="test", wait=30) as build:
                assert build.restore_state(), f"step {step}"
                left = (build.workspace / "deep" / "state").read_text()
            assert left == ("old" if snapshot.id == before else "new"), f"step {step}"
        outcomes.append(snapshot.id == before)

        after = publish(store, 3)
        assert list((store.root / "building").iterdir()) == [], f"step {step}"
        assert not (store.root / ".mart.next").exists()
        assert not store.workspace.exists(), f"step {step}"
        with store.open() as snapshot:
            assert snapshot.id == after.id > before
            assert generations(snapshot) == dict.fromkeys(NAMES, 3)
        store.retain(keep=1, minutes=0)
        assert [manifest.id for manifest in store.manifests()] == [after.id]
    # Control: the kills fell on both sides of the one moment that matters, and it happened once.
    assert outcomes == sorted(outcomes, reverse=True)
    assert {True, False} == set(outcomes)


def test_a_killed_builder_leaves_no_lock(tmp_path):
    store = SnapshotStore(tmp_path)
    publish(store, 1)
    child = os.fork()
    if child == 0:
        with store.build("doomed", holder="doomed"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [path.name for path in (tmp_path / "building").iterdir()] == ["doomed"]
    publish(store, 2)
    assert list((tmp_path / "building").iterdir()) == []
