import importlib
import time

import pytest
from dagster import (
    AutomationCondition,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    RunRequest,
    SkipReason,
    build_sensor_context,
    materialize,
)
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from backend.snapshots import SnapshotStore
from deploy.pipeline.orphans import fail_orphaned_runs
from tests.marts import BASE, DERIVED, MARTS

from .driver import Recording


@pytest.fixture(scope="module")
def location(parsed):
    """The code location; importing it reads the parsed manifest."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DBT_TARGET_PATH", str(parsed))
        return importlib.import_module("deploy.pipeline.definitions")


@pytest.fixture
def instance():
    with DagsterInstance.ephemeral() as instance:
        yield instance


def names(keys):
    return {key.path[-1] for key in keys}


def materialized(result):
    """Metadata of every materialization in the run's events, those the step did not select included."""
    events = [event for event in result.all_events if event.is_step_materialization]
    return {
        event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in events
    }


def failure_of(result):
    (event,) = (event for event in result.all_events if event.is_step_failure)
    return event.step_failure_data.user_failure_data.description


def checks(result):
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def metadata(manifest, name):
    mart = manifest.marts[name]
    return {"snapshot": manifest.id, "dagster/row_count": mart.rows, "bytes": mart.bytes, "sha256": mart.sha256}


def current(place):
    with place.store.open() as snapshot:
        return snapshot.manifest


# --- what is declared -------------------------------------------------------------------------------------------------


def test_every_mart_is_an_asset_and_the_eager_ones_follow_what_they_read(location):
    graph = location.defs.resolve_asset_graph()
    conditions = {key.path[-1]: graph.get(key).automation_condition for key in graph.materializable_asset_keys}
    assert conditions.keys() == MARTS
    assert {name for name, condition in conditions.items() if condition == AutomationCondition.eager()} == DERIVED
    assert {name for name, condition in conditions.items() if condition is None} == BASE
    assert names(graph.get(location.KEYS["agg_daily_balance"]).parent_keys) == {
        "dim_accounts",
        "fct_transactions",
        "fct_transfers",
    }


@pytest.mark.parametrize("job", ["hourly_marts", "all_marts"])
def test_a_job_builds_its_marts_and_all_that_read_them(location, job):
    layer = location.defs.resolve_job_def(job).asset_layer
    assert names(layer.selected_asset_keys) >= MARTS


def test_the_hourly_schedule_and_the_sensors_run_unasked(location):
    (schedule,) = location.defs.schedules
    assert schedule.job_name == "hourly_marts"
    assert schedule.cron_schedule == "0 * * * *"
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
    assert {sensor.name: sensor.default_status for sensor in location.defs.sensors} == {
        "first_build": DefaultSensorStatus.RUNNING,
        "eager_marts": DefaultSensorStatus.RUNNING,
    }


# --- the first build --------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(location, instance, monkeypatch, tmp_path):
    """Ask the sensor, in phase 2, with an empty store."""
    monkeypatch.setenv("PARQUET_DIR", str(tmp_path / "parquet"))
    return lambda: location.first_build(build_sensor_context(instance=instance))


def a_run(instance, status):
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("deploy.pipeline.definitions"), "__repository__")
    origin = RemoteJobOrigin(repository, "all_marts")
    return instance.add_run(DagsterRun(job_name="all_marts", status=status, remote_job_origin=origin))


def test_a_run_is_asked_for_while_nothing_is_served(ask):
    assert isinstance(ask(), RunRequest)


@pytest.mark.parametrize(
    "status", [DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
)
def test_no_second_run_while_one_is_under_way(ask, instance, status):
    a_run(instance, status)
    answer = ask()
    assert isinstance(answer, SkipReason)
    assert "under way" in answer.skip_message


def test_a_run_that_died_with_its_container_delays_nothing(ask, instance):
    run_id = a_run(instance, DagsterRunStatus.STARTED).run_id
    fail_orphaned_runs(instance)
    assert instance.get_run_by_id(run_id).status == DagsterRunStatus.FAILURE
    assert isinstance(ask(), RunRequest)


def test_a_build_of_phase_0_that_succeeded_just_now_delays_nothing(ask, instance):
    a_run(instance, DagsterRunStatus.SUCCESS)
    assert isinstance(ask(), RunRequest)


def test_no_run_once_something_is_served(ask, published, monkeypatch):
    monkeypatch.setenv("PARQUET_DIR", str(published.store.root))
    answer = ask()
    assert isinstance(answer, SkipReason)
    assert "something to serve" in answer.skip_message


def test_in_phase_0_the_file_is_what_is_served(ask, monkeypatch, tmp_path):
    monkeypatch.delenv("PARQUET_DIR")
    monkeypatch.setenv("DUCKDB_PATH", str(tmp_path / "analytics.duckdb"))
    assert isinstance(ask(), RunRequest)
    (tmp_path / "analytics.duckdb").touch()
    assert isinstance(ask(), SkipReason)


def test_a_failed_run_is_tried_again_but_not_at_once(ask, location, instance, monkeypatch):
    instance.report_run_failed(a_run(instance, DagsterRunStatus.STARTED))
    answer = ask()
    assert isinstance(answer, SkipReason)
    assert "5 minutes" in answer.skip_message
    later = time.time() + 301
    monkeypatch.setattr(location.time, "time", lambda: later)
    assert isinstance(ask(), RunRequest)


# --- runs -------------------------------------------------------------------------------------------------------------


def run(location, instance, *marts):
    selection = [location.KEYS[mart] for mart in marts] or None
    return materialize([location.marts], instance=instance, selection=selection, raise_on_error=False)


def test_a_full_run_materialises_every_mart_of_the_new_snapshot(location, instance, place, recording, monkeypatch):
    recording.replay(monkeypatch)
    result = run(location, instance)
    assert result.success
    manifest = current(place)
    assert manifest.run_id == result.run_id
    assert materialized(result) == {name: metadata(manifest, name) for name in MARTS}
    found = checks(result)
    assert "assert_sum_of_balances_is_constant" in found
    assert all(evaluation.passed for evaluation in found.values())


def test_a_failing_test_is_a_failed_check_and_nothing_is_materialised(location, instance, place, refused, monkeypatch):
    Recording(refused.root / "recording").replay(monkeypatch)
    result = run(location, instance)
    assert not result.success
    assert materialized(result) == {}
    failed = {name for name, evaluation in checks(result).items() if not evaluation.passed}
    assert failed == {"assert_sum_of_balances_is_constant"}
    assert checks(result)["assert_transfers_have_two_sides"].passed
    assert "test assert_sum_of_balances_is_constant: fail" in failure_of(result)
    assert "test assert_balances_agree_with_movements: fail" in failure_of(result), "it reads several marts: no check"
    assert len(place.store.manifests()) == 1


def test_a_run_of_one_mart_tells_of_the_others_it_had_to_build(location, instance, place, widened, monkeypatch):
    Recording(widened.root / "recording").replay(monkeypatch)
    result = run(location, instance, "dim_users")
    assert result.success
    rebuilt = MARTS - {"dim_categories", "dim_merchants", "fct_budgets"}
    assert materialized(result) == {name: metadata(current(place), name) for name in rebuilt}
    assert names(event.asset_key for event in result.get_asset_materialization_events()) == rebuilt
    assert result.get_step_success_events()


def test_what_is_published_counts_although_the_phase_0_file_could_not_be_written(
    location, instance, place, recording, monkeypatch
):
    recording.replay(monkeypatch)
    monkeypatch.setenv("LEGACY_DUCKDB_PATH", str(place.root / "missing" / "analytics.duckdb"))
    result = run(location, instance)
    assert not result.success
    assert "is served, but writing its marts to" in failure_of(result)
    assert materialized(result).keys() == MARTS


def test_another_builder_is_named_in_the_failure(location, instance, place, recording, monkeypatch):
    recording.replay(monkeypatch)
    monkeypatch.setenv("BUILD_LOCK_WAIT_SECONDS", "0")
    with SnapshotStore(place.store.root).build("other", holder="python -m deploy.pipeline"):
        result = run(location, instance)
    assert not result.success
    assert "python -m deploy.pipeline" in failure_of(result)
