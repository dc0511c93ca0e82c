"""Dagster's daemon loads an adopted project when it starts, shows its models, and builds and publishes its marts."""

import importlib.util
import json
import os
import subprocess
import sys

import duckdb
import pytest
from dagster import AssetKey, DagsterInstance, materialize

from backend.catalog import path_of, read_catalog
from backend.filepaths import REPO_ROOT

from .shop import copied

SALE = "INSERT INTO sales VALUES (7, '2', 'Bell', 3, 995, '2025-01-07 08:00')"
MARTS = {
    "Sales": AssetKey(["finance", "sales_log"]),
    "addresses": AssetKey(["reporting", "addresses"]),
    "best_sellers": AssetKey(["finance", "best_sellers"]),
    "complaints": AssetKey(["reporting", "complaints"]),
    "marks": AssetKey(["reporting", "marks"]),
    "price_list": AssetKey(["reporting", "price_list"]),
    "recalls": AssetKey(["reporting", "recalls"]),
    "turnover": AssetKey(["finance", "turnover"]),
}
# Dagster's name for a seed, a snapshot and models that are no marts; it has none for one that is ephemeral.
OTHERS = {("reference", "product_groups"), ("customer_history",), ("prep", "Sales_Clean"), ("prep", "stock_turns")}


@pytest.fixture(scope="module")
def shop(installed, tmp_path_factory):
    """Whose owner has built it once; its variables are in the secrets' file alone."""
    shop = copied(installed, tmp_path_factory.mktemp("dagster"))
    (shop.root / "secrets").mkdir()
    (shop.root / "secrets" / "dagster_db_password").write_text("password")
    lines = [f"{name}={value}" for name, value in shop.variables.items()]
    (shop.root / "secrets" / "dbt_env").write_text("\n".join(["# of the shop", *lines, "SHOP_PRICE=$5 'off'", ""]))
    return shop


@pytest.fixture(scope="module")
def start(shop):
    """Starts the daemon's container as far as Dagster: how that ended, and the environment that Dagster gets."""
    program = shop.root / "bin" / "python"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport json, os; print(json.dumps(dict(os.environ)))\n")
    program.chmod(0o755)
    inherited = {name: value for name, value in shop.environment.items() if name not in shop.variables}
    inherited |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "SECRETS_DIR": str(shop.root / "secrets")}

    def started(**variables):
        # As Compose passes on what nobody has set.
        environment = {**inherited, "DBT_TARGET": "", "DBT_PROFILE": "", "DBT_PROFILES_DIR": "", **variables}
        return subprocess.run(
            [sys.executable, "-m", "deploy.pipeline.entrypoint", "daemon"],
            env=environment, cwd=REPO_ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return started


@pytest.fixture(scope="module")
def dagster(start, shop):
    """In phase 1, which has a file beside the snapshots."""
    ended = start(LEGACY_DUCKDB_PATH=str(shop.root / "analytics.duckdb"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stdout


@pytest.fixture(scope="module")
def location(dagster):
    """The code location as Dagster loads it then."""
    environment, _ = dagster
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        path = REPO_ROOT / "deploy" / "pipeline" / "definitions.py"
        spec = importlib.util.spec_from_file_location("definitions_of_the_shop", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def run(location, selection=None):
    with DagsterInstance.ephemeral() as instance:
        return materialize([location.marts], instance=instance, selection=selection, raise_on_error=False)


def materialised(result):
    return {
        event.asset_key: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.all_events
        if event.is_step_materialization
    }


def test_dagster_gets_the_variables_of_the_secrets_file_as_they_stand_there(dagster, shop):
    environment, _ = dagster
    assert {name: environment[name] for name in shop.variables} == shop.variables
    assert environment["SHOP_PRICE"] == "$5 'off'"
    assert "DBT_TARGET" not in environment, "to a profile's Jinja, an empty one is no default"


def test_what_the_marts_are_is_in_the_log(dagster):
    _, printed = dagster
    assert "are those of `dbt ls --select 'path:models/marts'`" in printed
    assert "  Sales, from main_finance.Sales\n" in printed


def test_what_the_environment_has_wins(start):
    ended = start(SHOP_TARGET="warehouse", SHOP_WAREHOUSE="somewhere")
    assert ended.returncode == 1
    assert ended.stderr.startswith("the target 'warehouse' of the profile 'shop' is of type 'postgres'")


def test_all_relations_are_assets_and_the_hourly_job_builds_them(location):
    graph = location.defs.resolve_asset_graph()
    assert location.KEYS == MARTS
    assert {tuple(key.path) for key in graph.materializable_asset_keys - set(MARTS.values())} == OTHERS
    assert graph.get(MARTS["turnover"]).parent_keys == {MARTS["Sales"], AssetKey(["reference", "product_groups"])}
    (schedule,) = location.defs.schedules
    layer = location.defs.resolve_job_def(schedule.job_name).asset_layer
    assert layer.selected_asset_keys == graph.materializable_asset_keys


def test_a_run_of_something_that_is_no_mart_builds_everything(location):
    assert location.part({MARTS["turnover"], MARTS["Sales"]}) == ["Sales", "turnover"]
    assert location.part({MARTS["turnover"], AssetKey(["prep", "stock_turns"])}) is None
    assert location.part(set(MARTS.values())) is None


@pytest.fixture(scope="module")
def first(location, shop):
    """A run of everything, after a sale; then of one mart, after another one."""
    whole = run(location)
    shop_then = shop.manifest() if whole.success else None
    shop.ring_up(SALE)
    return whole, shop_then, run(location, [MARTS["turnover"]])


def test_a_run_of_everything_publishes_all_marts_and_materialises_what_they_are_made_of(first):
    result, manifest, _ = first
    assert result.success
    events = materialised(result)
    assert {tuple(key.path) for key in events if not events[key]} == OTHERS
    assert {key: metadata for key, metadata in events.items() if metadata} == {
        MARTS[name]: {
            "snapshot": manifest.id,
            "dagster/row_count": mart.rows,
            "bytes": mart.bytes,
            "sha256": mart.sha256,
        }
        for name, mart in manifest.marts.items()
    }
    checks = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert checks["unique_sales_log_Sale_No"]
    assert all(checks.values())


def test_a_run_of_one_mart_publishes_a_whole_snapshot_on_top(first, shop):
    _, before, result = first
    assert result.success
    assert materialised(result).keys() == {MARTS["turnover"]}
    after = shop.manifest()
    assert after.parent == before.id
    assert after.marts.keys() == before.marts.keys()
    assert after.marts["Sales"] == before.marts["Sales"]


def test_the_file_of_phase_1_has_what_is_served(first, shop):
    served = shop.manifest()
    with duckdb.connect(str(shop.root / "analytics.duckdb"), read_only=True) as connection:
        found = {
            entry.mart: connection.execute(f"SELECT count(*) FROM {entry.sql('analytics')}").fetchone()
            for entry in read_catalog(path_of(shop.root / "analytics.duckdb"))
        }
    assert found == {mart: (entry.rows,) for mart, entry in served.marts.items()}
    assert found["Sales"] == (4,), "as before the last sale: it was not built again"
