"""One store takes over what another one serves: what moves the marts from a volume to a bind mount and back."""

import errno
import os
import shutil

import pytest

from backend.errors import NoSnapshot, SnapshotCorrupt
from backend.snapshots import SnapshotStore

from .marts import NAMES, generations, publish


@pytest.fixture
def old(tmp_path):
    return SnapshotStore(tmp_path / "old")


@pytest.fixture
def new(tmp_path):
    return SnapshotStore(tmp_path / "new")


def inodes(store):
    """Of all files of all snapshots."""
    return {path: path.stat().st_ino for path in (store.root / "snapshots").glob("*/*.parquet")}


def served(store):
    with store.open() as snapshot:
        snapshot.verify()
        return snapshot.id, generations(snapshot)


def test_all_snapshots_come_with_their_ids_and_manifests_and_the_same_one_is_served(old, new):
    for generation in (1, 2, 3):
        publish(old, generation)
    first, second, third = old.ids()
    old.rollback(second, holder="test")
    assert new.take_over(old, holder="test").id == second
    assert new.ids() == [first, second, third]
    assert new.manifests() == old.manifests()
    assert served(new) == served(old)
    assert not list((new.root / "building").iterdir())


def test_what_snapshots_share_lies_there_once(old, new):
    publish(old, 1)
    publish(old, 2, only=("fct_two",))
    new.take_over(old, holder="test")
    assert len(set(inodes(new).values())) == len(NAMES) + 1
    publish(old, 3, only=("fct_two",))
    new.take_over(old, holder="test")
    assert len(set(inodes(new).values())) == len(NAMES) + 2
    assert len(inodes(new)) == 3 * len(NAMES)


def test_again_it_copies_only_what_is_new_and_never_what_is_there(old, new):
    publish(old, 1)
    new.take_over(old, holder="test")
    before = inodes(new)
    publish(old, 2)
    new.take_over(old, holder="test")
    new.take_over(old, holder="test")
    assert new.ids() == old.ids()
    assert before.items() <= inodes(new).items()
    assert served(new) == served(old)


def test_there_and_back_the_older_store_catches_up(old, new):
    publish(old, 1)
    new.take_over(old, holder="test")
    publish(new, 2)
    assert old.take_over(new, holder="test").id == new.current_id()
    assert served(old) == served(new)
    assert publish(old, 3).id > new.current_id()


def test_an_empty_store_gives_nothing_and_changes_nothing(old, new):
    publish(new, 1)
    before = served(new)
    with pytest.raises(NoSnapshot):
        new.take_over(old, holder="test")
    assert served(new) == before


def test_a_damaged_current_snapshot_is_refused_and_what_was_served_stays(old, new):
    publish(old, 1)
    new.take_over(old, holder="test")
    before = served(new)
    damaged = old.root / "snapshots" / publish(old, 2).id / "fct_two.parquet"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"X")
    with pytest.raises(SnapshotCorrupt, match=r"fct_two\.parquet"):
        new.take_over(old, holder="test")
    assert served(new) == before
    assert len(new.ids()) == 1


def test_an_older_one_that_is_damaged_is_left_behind(old, new):
    publish(old, 1)
    publish(old, 2)
    lost, current = old.ids()
    (old.root / "snapshots" / lost / "dim_one.parquet").unlink()
    with pytest.raises(SnapshotCorrupt):
        old.rollback(lost, holder="test")
    assert new.take_over(old, holder="test").id == current
    assert new.ids() == [current]


def test_a_damaged_file_here_is_not_shared(old, new):
    publish(old, 1)
    new.take_over(old, holder="test")
    damaged = new.root / "snapshots" / new.ids()[0] / "dim_one.parquet"
    damaged.chmod(0o644)
    damaged.write_bytes(b"rotten")
    publish(old, 2, only=("fct_two",))
    new.take_over(old, holder="test")
    assert served(new) == served(old)


def test_a_full_disk_changes_nothing_and_the_next_try_ends_what_was_begun(old, new, monkeypatch):
    for generation in (1, 2):
        publish(old, generation)
    new.take_over(old, holder="test")
    before = served(new)
    publish(old, 3)
    copy = shutil.copyfile

    def full(source, target):
        if "agg_three" in os.fspath(target):
            raise OSError(errno.ENOSPC, "No space left on device", target)
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        new.take_over(old, holder="test")
    assert served(new) == before
    assert len(new.ids()) == 2
    assert not list((new.root / "building").iterdir())
    monkeypatch.undo()
    new.take_over(old, holder="test")
    assert served(new) == served(old)


def test_a_plain_directory_of_somebody_elses_is_refused(old, new):
    publish(old, 1)
    pointer = old.root / "mart"
    pointer.unlink()
    shutil.copytree(old.root / "snapshots" / old.ids()[0], pointer)
    with pytest.raises(SnapshotCorrupt, match="plain directory"):
        new.take_over(old, holder="test")
    assert new.ids() == []
