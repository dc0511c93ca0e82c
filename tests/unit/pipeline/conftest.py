import json
import shutil

import pytest

from backend.errors import BuildFailed
from deploy.pipeline.build import Outcome
from deploy.source.generate import generate
from deploy.source.load import seed_embedded

from .driver import Place, Recording, cli

BUY = """
    INSERT INTO transactions
    SELECT max(transaction_id) + 1, {account}, NULL, 11, -12.34, 'EUR', 'one more', TIMESTAMPTZ '2025-12-31 12:00:00+00'
    FROM transactions;
    UPDATE accounts SET balance = balance - 12.34 WHERE account_id = {account};
    UPDATE accounts SET balance = balance + 12.34 WHERE kind = 'external'
        AND user_id = (SELECT user_id FROM accounts WHERE account_id = {account});
"""
"""A transaction with both its sides, as the application commits it."""


@pytest.fixture(scope="session")
def published(once, parsed):
    """One full build with the real dbt, over what a dead run left, with the phase-0 file kept fresh."""

    def make(root):
        place = Place(root, parsed)
        seed_embedded(place.source, generate(0.05))
        place.file.write_text("left by a run that was killed")
        place.file.with_name(place.file.name + ".wal").write_text("its log")
        with pytest.MonkeyPatch.context() as monkeypatch:
            place.enter(monkeypatch)
            monkeypatch.setenv("LEGACY_DUCKDB_PATH", str(place.legacy))
            Recording(root / "recording").record(monkeypatch)
            place.build()

    return Place(once("pipeline_published", make), parsed)


@pytest.fixture(scope="session")
def recording(published):
    return Recording(published.root / "recording")


@pytest.fixture(scope="session")
def widened(once, published):
    """dim_users asked for, on top of ``published``, after somebody bought something; with the real dbt."""

    def make(root):
        place = copied(published, root)
        place.alter(BUY.format(account=1))
        with pytest.MonkeyPatch.context() as monkeypatch:
            place.enter(monkeypatch)
            Recording(root / "recording").record(monkeypatch)
            outcome = place.build("dim_users")
        (root / "built.json").write_text(json.dumps(outcome.built))

    return Place(once("pipeline_widened", make), published.parsed)


@pytest.fixture(scope="session")
def refused(once, published):
    """A full build on top of ``published`` of a source with money from nowhere and a user without a name."""

    def make(root):
        place = copied(published, root)
        place.alter(
            "UPDATE accounts SET balance = balance + 0.01 WHERE account_id = 1;"
            "ALTER TABLE users ALTER COLUMN full_name DROP NOT NULL;"
            "UPDATE users SET full_name = NULL WHERE user_id = 2"
        )
        with pytest.MonkeyPatch.context() as monkeypatch:
            place.enter(monkeypatch)
            Recording(root / "recording").record(monkeypatch)
            outcome = Outcome()
            with pytest.raises(BuildFailed) as caught:
                place.build(outcome=outcome)
        assert outcome.snapshot is None
        (root / "message").write_text(caught.value.message)

    return Place(once("pipeline_refused", make), published.parsed)


@pytest.fixture(scope="session")
def phase_0(once, published):
    """A full build of the source of ``published`` by the command, without a snapshot store. Read only."""

    def make(root):
        place = Place(root, root / "target")
        shutil.copyfile(published.source, place.source)
        result = cli(place, "build", PARQUET_DIR=None)
        assert result.returncode == 0, result.stdout + result.stderr
        (root / "output").write_text(result.stdout)

    root = once("pipeline_phase_0", make)
    return Place(root, root / "target")


def copied(place, root):
    """The same source and store below ``root``, unserved by the driver's other files."""
    shutil.copyfile(place.source, root / "source.duckdb")
    shutil.copytree(place.store.root, root / "parquet", symlinks=True)
    return Place(root, place.parsed)


@pytest.fixture
def place(published, tmp_path, monkeypatch):
    """A place of the test's own with the source and the store of ``published``, entered."""
    place = copied(published, tmp_path)
    place.enter(monkeypatch)
    return place
