import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import pytest

from backend import audit as audit_module
from backend.audit import FINGERPRINT, Written, audit_directory
from backend.checksum import file_sha256
from backend.errors import AuditFailed, LockHeld, NoSnapshot, PublishConflict, SnapshotCorrupt, SnapshotGone
from backend.manifest import Column, Manifest
from backend.snapshots import SnapshotStore

from .marts import NAMES, SPECS, generations, publish, write_mart


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "parquet")


READER = """
import pathlib, sys
from backend.snapshots import SnapshotStore
with SnapshotStore(pathlib.Path(sys.argv[1])).open(sys.argv[2]):
    print("reading", flush=True)
    sys.stdin.readline()
"""


def served(store):
    with store.open() as snapshot:
        return generations(snapshot)


def test_nothing_published_says_so(store):
    assert store.current_id() is None
    with pytest.raises(NoSnapshot, match="no snapshot"):
        store.open()


def test_a_published_build_is_served_whole_with_its_manifest(store):
    manifest = publish(store, 1)
    assert served(store) == dict.fromkeys(NAMES, 1)
    assert (store.root / "mart" / "dim_one.parquet").is_file()
    assert os.readlink(store.root / "mart") == f"snapshots/{manifest.id}"
    with store.open() as snapshot:
        snapshot.verify()
        assert snapshot.manifest == manifest == Manifest.read(snapshot.path / "manifest.json")
    assert manifest.parent is None
    assert publish(store, 2).parent == manifest.id
    assert list((store.root / "building").iterdir()) == []


def test_a_partial_build_publishes_a_whole_snapshot_of_links(store):
    first = publish(store, 1)
    second = publish(store, 2, only=("fct_two",))
    assert served(store) == {"dim_one": 1, "fct_two": 2, "agg_three": 1}
    snapshots = store.root / "snapshots"
    for name, same in (("dim_one", True), ("fct_two", False), ("agg_three", True)):
        files = [(snapshots / i / f"{name}.parquet").stat() for i in (first.id, second.id)]
        assert os.path.samestat(*files) is same
    assert second.marts["dim_one"] == first.marts["dim_one"]
    with store.open(first.id) as snapshot:
        assert generations(snapshot) == dict.fromkeys(NAMES, 1)


def damage(directory, how):
    target = directory / "fct_two.parquet"
    if how == "missing":
        target.unlink()
    elif how == "truncated":
        os.truncate(target, target.stat().st_size // 2)
    elif how == "a stray file":
        (directory / "tmp_fct_two.parquet").write_bytes(b"PAR1")
    else:
        select = {
            "sentinel": "NULL::INTEGER AS user_id, NULL::BIGINT AS generation, NULL::VARCHAR AS note",
            "column dropped": "1::INTEGER AS user_id, 1::BIGINT AS generation",
            "column retyped": "1::INTEGER AS user_id, 1::INTEGER AS generation, '' AS note",
            "columns reordered": "1::BIGINT AS generation, 1::INTEGER AS user_id, '' AS note",
        }[how]
        with duckdb.connect() as connection:
            connection.execute(f"COPY (SELECT {select}) TO '{target}' (FORMAT parquet)")


@pytest.mark.parametrize(
    "how",
    [
        "missing", "truncated", "a stray file", "sentinel",
        "column dropped", "column retyped", "columns reordered",
    ],
)  # fmt: skip
def test_the_audit_refuses_and_what_is_served_stays(store, how):
    before = publish(store, 1).id
    with store.build("bad", holder="test") as build:
        for name in NAMES:
            write_mart(build.path, name, 2)
        damage(build.path, how)
        with pytest.raises(AuditFailed, match="fct_two"):
            build.publish(SPECS)
    assert store.current_id() == before
    assert served(store) == dict.fromkeys(NAMES, 1)
    assert publish(store, 3).parent == before


def audit(directory, written):
    (spec,) = [spec for spec in SPECS if spec.name == "fct_two"]
    return audit_directory(directory, [spec], written=written, linked={}, built_at=datetime.now(UTC))


def test_no_byte_of_a_file_can_change_between_its_writing_and_its_audit(tmp_path):
    write_mart(tmp_path, "fct_two", 1)
    path = tmp_path / "fct_two.parquet"
    (content,) = duckdb.sql(f"SELECT {FINGERPRINT} FROM '{path}' AS t").fetchall()[0]
    written = {"fct_two": Written(content, file_sha256(path))}
    audit(tmp_path, written)
    good = path.read_bytes()
    unnoticed = 0
    for offset in range(0, len(good), 5):  # in all parts of the file
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1]) + good[offset + 1 :])
        with pytest.raises(AuditFailed, match="fct_two"):
            audit(tmp_path, written)
        with suppress(AuditFailed):
            audit(tmp_path, {"fct_two": replace(written["fct_two"], sha256=file_sha256(path))})
            unnoticed += 1
    # Control: rows read to the last one say nothing of what readers skip rows by.
    assert unnoticed > 0


def test_a_partial_build_refuses_a_parents_file_that_is_damaged(store):
    first = publish(store, 1)
    path = store.root / "snapshots" / first.id / "dim_one.parquet"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(AuditFailed, match="dim_one: the file taken over"):
        publish(store, 2, only=("fct_two",))
    assert store.current_id() == first.id
    assert publish(store, 3).parent == first.id
    assert served(store) == dict.fromkeys(NAMES, 3)


def test_a_partial_build_looks_only_into_files_that_may_have_changed(store, monkeypatch):
    publish(store, 1)
    hashed = []

    def noted(path):
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(audit_module, "file_sha256", noted)
    second = publish(store, 2, only=("fct_two",))
    assert hashed == ["fct_two.parquet"]
    os.utime(store.root / "snapshots" / second.id / "dim_one.parquet")  # as any write does, and any copy
    hashed.clear()
    third = publish(store, 3, only=("fct_two",))
    assert sorted(hashed) == ["dim_one.parquet", "fct_two.parquet"]
    assert third.marts["dim_one"] == second.marts["dim_one"]


def test_an_empty_mart_has_no_rows_and_is_fine(store):
    with store.build("empty", holder="test") as build:
        for name in NAMES:
            with duckdb.connect() as connection:
                connection.execute(
                    "COPY (SELECT 1::INTEGER AS user_id, 1::BIGINT AS generation, '' AS note LIMIT 0) "
                    f"TO '{build.path / name}.parquet' (FORMAT parquet)"
                )
        assert {mart.rows for mart in build.publish(SPECS).marts.values()} == {0}


def test_a_link_to_a_mart_with_another_declaration_is_refused(store):
    publish(store, 1)
    wider = replace(SPECS[0], columns=(*SPECS[0].columns, Column("extra", "INTEGER")))
    with store.build("partial", holder="test") as build:
        write_mart(build.path, "fct_two", 2)
        build.link(["dim_one", "agg_three"])
        with pytest.raises(AuditFailed, match="dim_one"):
            build.publish([wider, *SPECS[1:]])


@pytest.mark.parametrize("fails", [None, OSError(95, "no hard links here")])
def test_a_mart_that_is_not_there_is_not_taken_over(store, monkeypatch, fails):
    first = publish(store, 1)
    link = os.link

    def linked(*given):
        if fails:
            raise fails
        link(*given)

    monkeypatch.setattr("backend.snapshots.os.link", linked)
    (store.root / "mart" / "dim_one.parquet").unlink()
    with store.build("partial", holder="test") as build:
        for name in ("dim_one", "dim_nine"):
            with pytest.raises(SnapshotCorrupt, match=f"taking over {name} from snapshot {first.id}"):
                build.link([name])
        build.link(["fct_two", "agg_three"])
        write_mart(build.path, "dim_one", 2)
        build.publish(SPECS)
    assert served(store) == {"dim_one": 2, "fct_two": 1, "agg_three": 1}


def test_a_second_builder_is_told_who_holds_the_lock(store):
    with (
        store.build("run-1", holder="the nightly build"),
        pytest.raises(LockHeld, match="the nightly build"),
        store.build("run-2", holder="impatient"),
    ):
        pytest.fail("two builds at once")
    publish(store, 1)


def test_builders_that_wait_are_serialised(store):
    def work(generation):
        publish(store, generation)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain = store.manifests()
    assert len(chain) == 5
    assert [manifest.parent for manifest in chain] == [None, *(manifest.id for manifest in chain[:-1])]
    for manifest in chain:
        with store.open(manifest.id) as snapshot:
            assert len(set(generations(snapshot).values())) == 1


def test_a_rollback_serves_the_earlier_snapshot_and_the_next_build_goes_on(store):
    ids = [publish(store, generation).id for generation in (1, 2, 3)]
    store.rollback(ids[0], holder="test")
    assert served(store) == dict.fromkeys(NAMES, 1)
    newest = publish(store, 4)
    assert newest.parent == ids[0]
    assert newest.id > ids[2]


def test_a_rollback_to_a_missing_or_damaged_snapshot_changes_nothing(store):
    ids = [publish(store, generation).id for generation in (1, 2)]
    with pytest.raises(SnapshotGone):
        store.rollback("20200101T000000-000000-abcdef", holder="test")
    with pytest.raises(SnapshotGone):
        store.rollback("../../etc", holder="test")
    (store.root / "snapshots" / ids[0] / "fct_two.parquet").unlink()
    with pytest.raises(SnapshotCorrupt, match="fct_two"):
        store.rollback(ids[0], holder="test")
    assert store.current_id() == ids[1]


def test_a_build_that_was_overtaken_by_a_rollback_is_not_published(store):
    ids = [publish(store, generation).id for generation in (1, 2)]
    with store.build("slow", holder="test") as build:
        for name in NAMES:
            write_mart(build.path, name, 3)
        store.rollback(ids[0], holder="operator")
        with pytest.raises(PublishConflict, match="while run slow"):
            build.publish(SPECS)
    assert store.current_id() == ids[0]


def test_ids_keep_rising_when_the_clock_steps_back(store, monkeypatch):
    first = publish(store, 1)

    class Yesterday:
        @staticmethod
        def now(zone):
            return first.created_at.astimezone(zone).replace(year=2020)

        strptime = staticmethod(type(first.created_at).strptime)
        fromtimestamp = staticmethod(type(first.created_at).fromtimestamp)

    monkeypatch.setattr("backend.snapshots.datetime", Yesterday)
    assert publish(store, 2).id > first.id


def test_retention_keeps_the_newest_the_current_the_recent_and_the_held(store):
    ids = [publish(store, generation).id for generation in range(1, 7)]
    store.rollback(ids[0], holder="test")
    assert store.retain(keep=2, minutes=60) == []
    with store.open(ids[2]) as held:
        assert store.retain(keep=2, minutes=0) == [ids[1], ids[3]]
        assert generations(held) == dict.fromkeys(NAMES, 3)
        assert [manifest.id for manifest in store.manifests()] == [ids[0], ids[2], ids[4], ids[5]]
    assert store.retain(keep=2, minutes=0) == [ids[2]]
    with pytest.raises(SnapshotGone):
        store.open(ids[2])
    assert served(store) == dict.fromkeys(NAMES, 1)


def test_retention_spares_what_another_process_holds_through_a_read_only_mount(store):
    # A descriptor opened read-only is all that a ``:ro`` mount allows, and all that the shared lock needs.
    ids = [publish(store, generation).id for generation in (1, 2)]
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(store.root), ids[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout.readline() == "reading\n"
        deleted = store.retain(keep=1, minutes=0)
        reader.communicate("done\n")
    assert deleted == []
    assert store.retain(keep=1, minutes=0) == [ids[0]]


@pytest.mark.parametrize("target", ["/etc", "snapshots/nonsense", "../elsewhere"])
def test_a_pointer_that_points_elsewhere_is_not_followed(store, target):
    publish(store, 1)
    (store.root / "mart").unlink()
    (store.root / "mart").symlink_to(target)
    with pytest.raises(SnapshotCorrupt, match="expected snapshots/<id>"):
        store.open()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": 1}', None])
def test_a_broken_manifest_is_reported_and_a_full_build_mends_it(store, content):
    publish(store, 1)
    file = store.root / "mart" / "manifest.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(SnapshotCorrupt, match="manifest"):
        store.open()
    assert publish(store, 2).parent is None
    assert served(store) == dict.fromkeys(NAMES, 2)


def test_the_manifest_is_plain_json_that_others_can_read(store):
    publish(store, 1)
    data = json.loads((store.root / "mart" / "manifest.json").read_text())
    assert [mart["name"] for mart in data["marts"]] == list(NAMES)
    assert data["marts"][0]["columns"][0] == {"name": "user_id", "type": "INTEGER", "description": ""}
    assert data["created_at"].endswith("+00:00")


def test_an_indented_manifest_as_they_were_once_written_is_read(store):
    published = publish(store, 1)
    path = store.root / "mart" / "manifest.json"
    data = json.loads(path.read_text())
    del data["sha256"]
    rest = json.dumps(data, indent=1, ensure_ascii=False)
    path.chmod(0o644)
    path.write_text(rest.removesuffix("\n}") + f',\n "sha256": "{hashlib.sha256(rest.encode()).hexdigest()}"\n}}\n')
    assert Manifest.read(path) == published


class TestPlainDirectory:
    """Marts written by somebody else's pipeline: readable, with replacement detected after the fact."""

    @pytest.fixture
    def plain(self, store):
        (store.root / "mart").mkdir(parents=True)
        for name in NAMES:
            write_mart(store.root / "mart", name, 1)
        return store

    def test_is_readable(self, plain):
        with plain.open() as snapshot:
            assert not snapshot.immutable
            assert snapshot.id == plain.current_id()
            assert generations(snapshot) == dict.fromkeys(NAMES, 1)
            assert snapshot.manifest.marts["dim_one"].user_column == "user_id"

    def test_a_replaced_file_changes_the_id(self, plain):
        before = plain.current_id()
        write_mart(plain.root / "mart", "fct_two", 1)
        assert plain.current_id() != before

    def test_a_half_written_file_is_corrupt_not_served(self, plain):
        (plain.root / "mart" / "fct_two.parquet").write_bytes(b"PAR1 half")
        with pytest.raises(SnapshotCorrupt):
            plain.open()

    def test_is_never_overwritten_by_a_publish(self, plain):
        with pytest.raises(PublishConflict, match="plain directory"):
            publish(plain, 2)
        with plain.open() as snapshot:
            assert generations(snapshot) == dict.fromkeys(NAMES, 1)


def test_no_byte_of_a_manifest_can_change_unnoticed(store):
    publish(store, 1)
    path = store.root / "mart" / "manifest.json"
    path.chmod(0o644)
    good, manifest = path.read_bytes(), Manifest.read(path)
    refused = 0
    for offset in range(len(good)):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 4]) + good[offset + 1 :])
        try:
            assert Manifest.read(path) == manifest, "white space, or another way to write the same"
        except SnapshotCorrupt:
            refused += 1
    assert refused > 0.9 * len(good)
