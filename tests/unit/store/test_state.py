"""What a build leaves for the next one is published, kept and deleted with its snapshot."""

import shutil

import pytest

from backend.errors import AuditFailed, SnapshotCorrupt
from backend.snapshots import SnapshotStore

from .marts import NAMES, SPECS, publish, served_file, write_mart


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path)


def left_by_the_last(store):
    """What a build that begins now goes on from; None where it begins anew."""
    with store.build("next", holder="test") as build:
        return (build.workspace / "deep" / "state").read_text() if build.restore_state() else None


def test_the_next_build_goes_on_from_its_parents(store):
    assert left_by_the_last(store) is None
    first = publish(store, 1, state="one")
    publish(store, 2, state="two")
    assert left_by_the_last(store) == "two"
    store.rollback(first.id, holder="test")
    assert left_by_the_last(store) == "one"
    publish(store, 3)
    assert left_by_the_last(store) is None
    assert not store.workspace.exists()


def test_what_a_build_does_with_it_changes_no_snapshot(store):
    publish(store, 1, state="one")
    with store.build("next", holder="test") as build:
        build.restore_state()
        (build.workspace / "deep" / "state").write_text("changed, and then the build failed")
    assert left_by_the_last(store) == "one"


def test_a_build_that_is_refused_leaves_the_one_before(store):
    publish(store, 1, state="one")
    with store.build("bad", holder="test") as build:
        (build.workspace / "state").write_text("of a bad one")
        write_mart(build.path, NAMES[0], 2)
        with pytest.raises(AuditFailed):
            build.publish(SPECS, state=[build.workspace / "state"])
    assert left_by_the_last(store) == "one"


def test_it_goes_with_its_snapshot(store):
    publish(store, 1, state="one")
    publish(store, 2, state="two")
    store.retain(keep=1, minutes=0)
    assert [path.read_text() for path in store.root.rglob("state") if path.is_file()] == ["two"]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("other")])
def test_one_that_is_damaged_is_never_gone_on_from(store, damage):
    publish(store, 1, state="one")
    path = served_file(store, "state/deep/state")
    path.chmod(0o644)
    damage(path)
    with (
        store.build("next", holder="test") as build,
        pytest.raises(SnapshotCorrupt, match="state/deep/state, which incremental models"),
    ):
        build.restore_state()


def test_another_store_takes_it_over(store, tmp_path):
    publish(store, 1, state="one")
    other = SnapshotStore(tmp_path / "other")
    other.take_over(store, holder="test")
    shutil.rmtree(store.root / "snapshots")
    assert left_by_the_last(other) == "one"


def test_a_damaged_one_is_not_taken_over(store, tmp_path):
    publish(store, 1, state="one")
    path = served_file(store, "state/deep/state")
    path.chmod(0o644)
    path.write_text("other")
    other = SnapshotStore(tmp_path / "other")
    with pytest.raises(SnapshotCorrupt, match="is not the file that was published"):
        other.take_over(store, holder="test")
    assert other.current_id() is None
