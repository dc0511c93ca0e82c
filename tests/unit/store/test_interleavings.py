"""Any interleaving of publish, rollback, retention and reading keeps the store's promises."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backend.errors import AuditFailed, SnapshotGone
from backend.snapshots import SnapshotStore

from .marts import NAMES, SPECS, generations, publish, write_mart


class Interleavings(RuleBasedStateMachine):
    """The model: what each snapshot ever published holds, which one is served, and who still reads what."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = SnapshotStore(self.root)
        self.contents = {}
        self.current = None
        self.readers = []
        self.generation = 0

    @initialize()
    def first_build(self):
        self.full_build()

    def published(self, manifest, contents):
        assert not self.contents or manifest.id > max(self.contents)
        self.contents[manifest.id] = contents
        self.current = manifest.id

    @rule()
    def full_build(self):
        self.generation += 1
        self.published(publish(self.store, self.generation), dict.fromkeys(NAMES, self.generation))

    @rule(only=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2))
    def partial_build(self, only):
        self.generation += 1
        expected = {**self.contents[self.current], **dict.fromkeys(only, self.generation)}
        self.published(publish(self.store, self.generation, only=tuple(sorted(only))), expected)

    @rule(written=st.sets(st.sampled_from(NAMES), max_size=2))
    def failed_build(self, written):
        with suppress(AuditFailed), self.store.build("fails", holder="test") as build:
            for name in written:
                write_mart(build.path, name, -1)
            build.publish(SPECS)

    @rule(data=st.data())
    def rollback(self, data):
        target = data.draw(st.sampled_from(sorted(self.contents)))
        try:
            self.store.rollback(target, holder="test")
            self.current = target
        except SnapshotGone:
            assert target not in {manifest.id for manifest in self.store.manifests()}

    @rule(keep=st.integers(1, 3))
    def retention(self, keep):
        held = {reader.id for reader in self.readers}
        there = [manifest.id for manifest in self.store.manifests()]
        deleted = self.store.retain(keep=keep, minutes=0)
        assert self.current not in deleted
        assert not held & set(deleted)
        assert not set(there[-keep:]) & set(deleted)
        left = {manifest.id for manifest in self.store.manifests()}
        assert left == {*there[-keep:], self.current} | (held & set(there))

    @rule()
    def open_reader(self):
        self.readers.append(self.store.open())
        assert self.readers[-1].id == self.current

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close_reader(self, data):
        self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1))).close()

    @invariant()
    def every_reader_reads_its_own_snapshot_whole(self):
        for reader in self.readers:
            assert generations(reader) == self.contents[reader.id]

    @invariant()
    def what_is_served_is_whole(self):
        if self.current:
            with self.store.open() as snapshot:
                snapshot.verify()
                assert snapshot.id == self.current
                assert generations(snapshot) == self.contents[snapshot.id]

    def teardown(self):
        for reader in self.readers:
            reader.close()
        shutil.rmtree(self.root)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
