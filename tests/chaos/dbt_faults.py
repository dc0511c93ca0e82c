"""Faults of the dbt layer: what is wrong with the source or the project, and what befalls the processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.dbt_site import Build, DbtSite, kill
from tests.chaos.faults import Ended, Fault
from tests.e2e.stack import wait_for

FAULTS: list[Fault] = []
STOCK = re.compile(r"\{% materialization external.*?\{% endmaterialization %\}", re.DOTALL)


def _fault(name: str, inject: Callable[[DbtSite], Ended], *, full: int = 4, fast: int = 0) -> None:
    FAULTS.append(Fault(name, "dbt", lambda site, _dice, _turn: inject(site), full, fast))


def _source(sql: str, says: str) -> Callable[[DbtSite], Ended]:
    def inject(site: DbtSite) -> Ended:
        site.restore()
        site.alter(sql)
        return site.faulty_build(says)

    return inject


def _project(path: str, old: str, new: str, says: str) -> Callable[[DbtSite], Ended]:
    def inject(site: DbtSite) -> Ended:
        site.restore()
        site.edit(path, old, new)
        return site.faulty_build(says)

    return inject


USERS = "models/marts/people/dim_users.sql"
BOOM = "error('boom') is null"

_fault(
    "dbt test fails: balances",
    _source(
        "UPDATE accounts SET balance = balance + 0.01 WHERE account_id = 1", "test assert_balances_agree_with_movements"
    ),
    fast=1,
)  # fmt: skip
_fault(
    "dbt test fails: duplicate key",
    _source("CREATE OR REPLACE TABLE users AS FROM users UNION ALL FROM users WHERE user_id = 1", "unique_dim_users"),
)
_fault(
    "NOT NULL of a contract violated",
    _source(
        "CREATE OR REPLACE TABLE users AS SELECT * REPLACE (CASE WHEN user_id > 1 THEN email END AS email) FROM users",
        "NOT NULL constraint failed",
    ),
)
_fault(
    "SQL error while running",
    _project(USERS, "    email,", f"    case when {BOOM} then email end as email,", "boom"),
)
_fault("SQL that does not parse", _project(USERS, "from users", "frm users", "dim_users"))
_fault("model that refers to nothing", _project(USERS, "stg_finance__users", "stg_finance__nobody", "stg_finance__nob"))
_fault("model drops a column", _project(USERS, "    country,\n", "", "contract"))
_fault("model retypes a column", _project(USERS, "    user_id,", "    user_id::varchar as user_id,", "contract"))
_fault("source column dropped", _source("ALTER TABLE users DROP COLUMN note", "note"))
_fault("source column retyped", _source("ALTER TABLE users ALTER user_id TYPE VARCHAR", "dim_users"))
_fault("source table gone", _source("DROP TABLE budgets", "budgets"))


def _source_gone(site: DbtSite) -> Ended:
    site.source.unlink()
    return site.faulty_build("source.duckdb")


_fault("source not there", _source_gone)


def _columns_reordered(site: DbtSite) -> Ended:
    """dbt's contract puts them back into the declared order: published, and not one byte else."""
    site.restore()
    site.edit(USERS, "    user_id,\n    email,\n", "    email,\n    user_id,\n")
    code, output = Build(site).ended()
    assert code == 0, output[-1500:]
    return Ended("published in declared order", rows=site.states[-1].rows)


_fault("model reorders columns", _columns_reordered)


def _empty_mart(site: DbtSite) -> Ended:
    """Legitimate: zero rows are served, and never one row of NULLs."""
    site.restore()
    site.alter("DELETE FROM budgets")
    code, output = Build(site).ended()
    assert code == 0, output[-1500:]
    for mart in ("fct_budgets", "agg_budget_monthly"):
        answer = site.warm.client.get(f"/api/analytics/datasets/{mart}/query").json()
        assert answer["rows"] == [], answer["rows"]
        assert site.warm.client.get(f"/api/analytics/datasets/{mart}").json()["row_count"] == 0
    return Ended("published", rows=site.warm.state().rows)


_fault("source emptied: mart of zero rows", _empty_mart)


def _sentinel(site: DbtSite) -> Ended:
    """dbt-duckdb's own materialization writes an empty mart as one row of NULLs."""
    site.restore()
    path = site.project / "dbt/macros/materializations/mart_external.sql"
    stock, replaced = STOCK.subn("", path.read_text())
    assert replaced == 1
    path.write_text(stock)
    for model in ("banking/_banking__models.yml", "budgeting/_budgeting__models.yml"):
        yaml = site.project / "dbt/models/marts" / model
        yaml.write_text(re.sub(r"\n *constraints: .*", "", yaml.read_text()))
    site.alter("DELETE FROM budgets")
    return site.faulty_build("its only row is NULL in every column")


_fault("all-NULL sentinel of the stock materialization", _sentinel)


def _kill_dbt(site: DbtSite, dice, _turn: int) -> Ended:
    site.restore()
    rows = None
    once_it_has_written = dice.randrange(2)  # or as soon as it has started
    for _ in range(5):
        build = Build(site)
        pid = build.wait_for_dbt()
        if once_it_has_written:
            _wait_for_marts(site, build)
        with suppress(ProcessLookupError):
            kill(pid)
        code, output = build.ended()
        if code != 0:
            break
        rows = site.states[-1].rows  # on a busy machine dbt may end first: a good build, and no fault yet
    assert "dbt build ended with code -9" in output, output[-1500:]
    return Ended("build failed", output[-300:], rows)


def _kill_pipeline(site: DbtSite, dice, _turn: int) -> Ended:
    """dbt lives on and keeps the lock; the next build waits until it has ended."""
    site.restore()
    build = Build(site)
    build.wait_for_dbt()
    if dice.randrange(2):
        _wait_for_marts(site, build)
    build.process.kill()
    build.ended()
    code, output = Build(site, BUILD_LOCK_WAIT_SECONDS="0").ended()
    if code != 0:
        assert "it is held by" in output, output[-1500:]
        return Ended("killed; the next found the lock held", output[-300:])
    return Ended("killed; dbt had ended", rows=site.states[-1].rows)


def _wait_for_marts(site: DbtSite, build: Build) -> None:
    wait_for(
        lambda: any((site.root / "building").glob("*/*.parquet")) or build.process.poll() is not None,
        "dbt has written a mart", seconds=120, every=0.02,
    )  # fmt: skip


FAULTS.append(Fault("SIGKILL of dbt", "dbt", _kill_dbt, 8, 1))
FAULTS.append(Fault("SIGKILL of the pipeline under its dbt", "dbt", _kill_pipeline, 8, 0))
