import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import duckdb
import pytest

from backend import tally
from backend.errors import AuditFailed, BuildFailed, LockHeld
from backend.snapshots import SnapshotStore
from deploy.pipeline.build import Outcome, stale_marts
from deploy.pipeline.project import DbtProject
from tests.marts import MARTS

from .driver import Place

# A purchase changes accounts and transactions; these read neither.
UNTOUCHED = {"dim_categories", "dim_merchants", "fct_budgets"}

UNEXPLAINED_BALANCES = """
    WITH movements AS (
        SELECT account_id, amount FROM fct_transactions
        UNION ALL
        SELECT external.account_id, -amount FROM fct_transactions AS spent
        JOIN dim_accounts AS external ON external.user_id = spent.user_id AND external.kind = 'external'
        UNION ALL
        SELECT account_id, amount FROM fct_transfers
    )
    SELECT account_id FROM dim_accounts AS accounts
    WHERE balance - opening_balance
        <> (SELECT coalesce(sum(amount), 0) FROM movements WHERE movements.account_id = accounts.account_id)
"""


def inodes(store: SnapshotStore, snapshot_id):
    with store.open(snapshot_id) as snapshot:
        return {name: snapshot.file(name).stat().st_ino for name in snapshot.manifest.marts}


def linked(store: SnapshotStore):
    """The marts that the current snapshot shares with its parent, and those it does not."""
    with store.open() as snapshot:
        parent, current = (inodes(store, i) for i in (snapshot.manifest.parent, snapshot.id))
    shared = {name for name in current if parent[name] == current[name]}
    return shared, current.keys() - shared


def assert_untouched(place: Place, published: Place):
    assert place.store.current_id() == published.store.current_id()
    assert [m.id for m in place.store.manifests()] == [m.id for m in published.store.manifests()]
    assert place.left_over() == []


# --- with the real dbt ------------------------------------------------------------------------------------------------


def test_a_full_build_publishes_every_mart_and_what_it_was_built_from(published):
    with published.store.open() as snapshot:
        snapshot.verify()
        manifest = snapshot.manifest
    assert manifest.marts.keys() == MARTS
    assert manifest.parent is None
    assert {mart.name: mart.spec for mart in manifest.marts.values()} == {s.name: s for s in published.project.specs}
    tables = {"users", "accounts", "categories", "merchants", "transactions", "transfers", "budgets"}
    assert manifest.source.keys() == tables
    with duckdb.connect(str(published.source), read_only=True) as source:
        for table, fingerprint in manifest.source.items():
            ((rows,),) = source.execute(f"SELECT count(*) FROM {table}").fetchall()
            assert fingerprint.startswith(f"{rows}:"), table
            assert rows > 0
    assert manifest.marts["fct_transactions"].rows == int(manifest.source["transactions"].split(":")[0])
    assert published.left_over() == [], "the build file of this run, or of the killed one before it"


def test_the_phase_0_file_has_the_same_rows_order_types_and_comments(published):
    with published.store.open() as snapshot, duckdb.connect(str(published.legacy), read_only=True) as legacy:
        for mart in snapshot.manifest.marts.values():
            table, parquet = legacy.table(mart.name), legacy.read_parquet(str(snapshot.file(mart.name)))
            assert table.columns == parquet.columns
            assert [str(t) for t in table.types] == [column.type for column in mart.columns]
            assert table.fetchall() == parquet.fetchall(), mart.name
        comments = legacy.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'main'"
        ).fetchall()
        assert dict(comments) == {mart.name: mart.description for mart in snapshot.manifest.marts.values()}
        comments = legacy.execute("SELECT table_name, column_name, comment FROM duckdb_columns()").fetchall()
        assert {tuple(comment) for comment in comments} >= {
            (mart.name, column.name, column.description)
            for mart in snapshot.manifest.marts.values()
            for column in mart.columns
        }


def test_a_partial_build_rebuilds_whatever_the_changed_tables_feed(widened):
    shared, rebuilt = linked(widened.store)
    assert shared == UNTOUCHED
    assert rebuilt == MARTS - UNTOUCHED
    assert set(json.loads((widened.root / "built.json").read_text())) == rebuilt
    assert widened.left_over() == []


def test_marts_of_a_partial_build_agree_with_each_other(widened, published):
    balances = "SELECT sum(balance), sum(opening_balance) FROM dim_accounts"
    ((balance, opening),) = widened.served(balances)
    assert balance == opening != 0
    assert widened.served(UNEXPLAINED_BALANCES) == []
    totals = "SELECT (SELECT sum(net) FROM agg_monthly_cashflow), (SELECT sum(amount) FROM fct_transactions)"
    ((aggregated, detailed),) = widened.served(totals)
    assert aggregated == detailed == published.served(totals)[0][0] - Decimal("12.34")
    bought = "SELECT count(*) FROM fct_transactions WHERE description = 'one more'"
    assert [place.served(bought) for place in (published, widened)] == [[(0,)], [(1,)]]
    last = "SELECT max_by(closing_balance, day) FROM agg_daily_balance WHERE account_id = 1"
    assert widened.served(last) == widened.served("SELECT balance FROM dim_accounts WHERE account_id = 1")


def test_failing_tests_and_models_are_named_and_nothing_is_published(refused, published):
    message = (refused.root / "message").read_text()
    assert "test assert_sum_of_balances_is_constant: fail: Got 1 result" in message
    assert "model dim_users: error:" in message
    assert "NOT NULL constraint failed: dim_users" in message
    assert "assert_transfers_have_two_sides" not in message, "that one passed"
    assert_untouched(refused, published)


def test_a_source_that_cannot_be_read_is_named(place, published):
    place.source.unlink()
    with pytest.raises(BuildFailed, match=r"ended with code 2\n(.*\n)*.*Cannot open database") as caught:
        place.build()
    assert str(place.source) in caught.value.message
    assert "Traceback" not in caught.value.message
    assert_untouched(place, published)


KILLED_WITH_DBT = """
from tests.unit.pipeline.driver import *
Place(Path({root!r}), Path({parsed!r})).build()
"""


def test_the_lock_outlives_a_killed_build_as_long_as_its_dbt(place, recording, monkeypatch):
    script = KILLED_WITH_DBT.format(root=str(place.root), parsed=str(place.parsed))
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    orphan = None
    try:
        assert any("Running with dbt" in line for line in parent.stdout), "dbt was never started"
        with open(f"/proc/{parent.pid}/task/{parent.pid}/children") as children:
            orphan = os.pidfd_open(int(children.read().split()[0]))
        signal.pidfd_send_signal(orphan, signal.SIGSTOP)
        parent.kill()
        parent.wait(timeout=60)

        recording.replay(monkeypatch)
        monkeypatch.setenv("BUILD_LOCK_WAIT_SECONDS", "0")
        with pytest.raises(LockHeld, match="a test"):
            place.build()
    finally:
        parent.kill()
        if orphan is not None:
            signal.pidfd_send_signal(orphan, signal.SIGKILL)
            os.close(orphan)
        parent.stdout.read()  # ends with the last process that had it
        parent.stdout.close()
        parent.wait(timeout=60)
    monkeypatch.setenv("BUILD_LOCK_WAIT_SECONDS", "60")  # the kernel closes an ended process's files one by one
    assert place.build().snapshot.id == place.store.current_id()
    assert place.left_over() == []


# --- with what dbt did then -------------------------------------------------------------------------------------------


def test_a_partial_build_of_an_unchanged_source_links_all_other_marts(place, recording, monkeypatch):
    recording.replay(monkeypatch)
    before = place.store.current_id()
    outcome = place.build("dim_users")
    assert outcome.built == ["dim_users"]
    assert outcome.snapshot.parent == before
    assert outcome.snapshot.marts.keys() == MARTS
    assert linked(place.store) == (MARTS - {"dim_users"}, {"dim_users"})
    with place.store.open() as snapshot:
        snapshot.verify()


def test_a_partial_build_without_a_parent_builds_everything(place, recording, monkeypatch):
    recording.replay(monkeypatch)
    (place.store.root / "mart").unlink()
    assert set(place.build("dim_users").built) == MARTS


@pytest.mark.parametrize("served", [True, False])
def test_an_unknown_mart_is_refused_before_anything_is_run(place, monkeypatch, served):
    if not served:
        monkeypatch.delenv("PARQUET_DIR")
    with pytest.raises(BuildFailed, match="no mart is called dim_userz"):
        place.build("dim_users", "dim_userz")
    assert place.left_over() == []


def test_a_stray_file_is_refused_by_the_audit(place, published, recording, monkeypatch):
    recording.replay(monkeypatch, and_then=lambda directory: (directory / "stray.parquet").write_bytes(b"PAR1"))
    with pytest.raises(AuditFailed, match=r"stray\.parquet: no mart is declared by this name"):
        place.build()
    assert_untouched(place, published)


def test_a_file_that_is_not_what_dbt_meant_to_write_is_refused(place, published, recording, monkeypatch):
    def lose_a_row(directory):
        target = directory / "dim_users.parquet"
        duckdb.sql(f"COPY (FROM '{target}' LIMIT 9) TO '{target}' (USE_TMP_FILE true)")

    recording.replay(monkeypatch, and_then=lose_a_row)
    with pytest.raises(AuditFailed, match="dim_users: its content has fingerprint"):
        place.build()
    assert_untouched(place, published)


def test_a_build_that_may_not_wait_is_told_who_builds(place, recording, monkeypatch):
    recording.replay(monkeypatch)
    monkeypatch.setenv("BUILD_LOCK_WAIT_SECONDS", "0")
    with place.store.build("other", holder="Dagster run 42"), pytest.raises(LockHeld, match="Dagster run 42"):
        place.build()
    assert place.build().snapshot


def test_old_snapshots_go_and_as_many_as_set_stay(place, recording, monkeypatch):
    recording.replay(monkeypatch)
    monkeypatch.setenv("SNAPSHOTS_KEEP", "2")
    monkeypatch.setenv("SNAPSHOTS_KEEP_MINUTES", "0")
    ids = [place.build().snapshot.id for _ in range(3)]
    assert [manifest.id for manifest in place.store.manifests()] == ids[1:]


def test_old_snapshots_that_cannot_be_deleted_are_no_failure_of_the_build(place, recording, monkeypatch, caplog):
    recording.replay(monkeypatch)

    def retain(*_, **__):
        raise LockHeld("held by an operator", hint="wait")

    monkeypatch.setattr(SnapshotStore, "retain", retain)
    assert place.build().snapshot.id == place.store.current_id()
    assert "deleting old snapshots" in caplog.text
    assert "held by an operator" in caplog.text


def test_a_phase_0_file_that_cannot_be_written_fails_the_run_and_not_what_is_served(place, recording, monkeypatch):
    recording.replay(monkeypatch)
    legacy = place.root / "missing" / "analytics.duckdb"
    monkeypatch.setenv("LEGACY_DUCKDB_PATH", str(legacy))
    outcome = Outcome()
    with pytest.raises(BuildFailed, match="is served, but writing its marts to") as caught:
        place.build(outcome=outcome)
    assert str(legacy) in caught.value.message
    assert outcome.snapshot.id == place.store.current_id()


# --- what is counted --------------------------------------------------------------------------------------------------


def test_what_became_of_a_build_is_counted(published, widened, refused):
    once = {"started": 1, "published": 1, "test_failed": 0, "audit_refused": 0, "failed": 0}
    assert tally.read(published.store.root) == once
    assert tally.read(widened.store.root) == {**once, "started": 2, "published": 2}
    assert tally.read(refused.store.root) == {**once, "started": 2, "test_failed": 1}


def test_what_fails_otherwise_is_counted_as_such(place, recording, monkeypatch):
    before = tally.read(place.store.root)
    recording.replay(monkeypatch, and_then=lambda directory: (directory / "stray.parquet").write_bytes(b"PAR1"))
    with pytest.raises(AuditFailed):
        place.build()
    after = {**before, "started": before["started"] + 1, "audit_refused": 1}
    assert tally.read(place.store.root) == after

    def broken(*_):
        raise OSError("no space left")

    recording.replay(monkeypatch, and_then=broken)
    with pytest.raises(OSError, match="no space left"):
        place.build()
    after |= {"started": after["started"] + 1, "failed": 1}
    assert tally.read(place.store.root) == after
    monkeypatch.setenv("BUILD_LOCK_WAIT_SECONDS", "0")
    with place.store.build("other", holder="another"), pytest.raises(LockHeld):
        place.build()
    assert tally.read(place.store.root) == after, "one that never had the lock is no build"


def test_a_count_that_cannot_be_written_fails_no_build(place, recording, monkeypatch, caplog):
    recording.replay(monkeypatch)
    (place.store.root / tally.FILE_NAME).unlink()
    (place.store.root / tally.FILE_NAME).mkdir()
    assert place.build().snapshot.id == place.store.current_id()
    assert "counting a build" in caplog.text


# --- which marts are stale --------------------------------------------------------------------------------------------


@pytest.fixture
def parent(published):
    with published.store.open() as snapshot:
        return snapshot.manifest


def without(parent, name):
    return replace(parent, marts={key: mart for key, mart in parent.marts.items() if key != name})


def with_mart(parent, name, **changes):
    return replace(parent, marts={**parent.marts, name: replace(parent.marts[name], **changes)})


def test_only_what_is_selected_is_stale_where_nothing_changed(published, parent):
    assert stale_marts(published.project, parent, {"dim_users"}, parent.source) == {"dim_users"}


def test_what_reads_a_stale_mart_is_stale(published, parent):
    stale = stale_marts(published.project, parent, {"fct_budgets"}, parent.source)
    assert stale == {"fct_budgets", "agg_budget_monthly"}


def test_a_mart_that_is_new_is_stale(published, parent):
    stale = stale_marts(published.project, without(parent, "fct_transfers"), {"dim_users"}, parent.source)
    assert stale == {"dim_users", "fct_transfers", "agg_daily_balance"}


def test_a_mart_built_by_other_sql_or_of_other_types_is_stale(published, parent):
    other_sql = with_mart(parent, "dim_merchants", code="another")
    assert stale_marts(published.project, other_sql, {"dim_users"}, parent.source) == {"dim_users", "dim_merchants"}
    first, *others = parent.marts["dim_merchants"].columns
    other_types = with_mart(parent, "dim_merchants", columns=(replace(first, type="BIGINT"), *others))
    assert stale_marts(published.project, other_types, {"dim_users"}, parent.source) == {"dim_users", "dim_merchants"}


def test_a_type_that_is_another_in_parquet_makes_no_mart_stale(published, parent):
    manifest = copy.deepcopy(published.project.manifest)
    columns = manifest["nodes"][published.project.mart_nodes["dim_merchants"]]["columns"].values()
    texts = [column for column in columns if column["data_type"] == "varchar"]
    texts[0]["data_type"] = "enum('a')"
    assert stale_marts(DbtProject(manifest), parent, {"dim_users"}, parent.source) == {"dim_users"}


def test_another_description_makes_no_mart_stale(published, parent):
    first, *others = parent.marts["dim_merchants"].columns
    other_words = with_mart(parent, "dim_merchants", columns=(replace(first, description="another"), *others))
    other_words = with_mart(other_words, "dim_merchants", description="another")
    assert stale_marts(published.project, other_words, {"dim_users"}, parent.source) == {"dim_users"}


def test_a_changed_table_makes_all_stale_that_read_it(published, parent):
    source = {**parent.source, "budgets": "another"}
    stale = stale_marts(published.project, parent, {"dim_users"}, source)
    assert stale == {"dim_users", "fct_budgets", "agg_budget_monthly"}
