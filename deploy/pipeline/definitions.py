"""The Dagster code location: dbt's marts as assets, the hourly schedule, eager automation, the first build."""

# No postponed annotations here: Dagster looks at the real type of ``context``.

import socket
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    Failure,
    MaterializeResult,
    MetadataValue,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    SensorEvaluationContext,
    SkipReason,
    define_asset_job,
    in_process_executor,
    sensor,
)
from dagster_dbt import DagsterDbtTranslator, build_dbt_asset_selection, dbt_assets
from dagster_dbt.asset_utils import get_asset_check_key_for_test

from backend import filepaths
from backend.errors import BundleError, SnapshotCorrupt
from backend.manifest import Manifest
from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted.kept import kept
from deploy.pipeline.adopted.project import parsed_project
from deploy.pipeline.build import run_build
from deploy.pipeline.connections import keep_connections
from deploy.pipeline.dbt import NodeResult
from deploy.pipeline.orphans import ORPHANED
from deploy.pipeline.outcome import Outcome
from deploy.pipeline.project import DbtProject

ADOPTED = filepaths.adopted_project_dir()
PARSED = filepaths.dbt_target_dir()
PROJECT = kept(ADOPTED, PARSED) if ADOPTED else DbtProject.read(PARSED / "manifest.json")


class Translator(DagsterDbtTranslator):
    """Marts tagged ``auto_eager`` are rebuilt as soon as what they read was."""

    def get_automation_condition(self, dbt_resource_props: Mapping[str, Any]) -> AutomationCondition[Any] | None:
        """Dagster's eager condition for the tag ``auto_eager``; none for the rest."""
        return AutomationCondition.eager() if "auto_eager" in dbt_resource_props["tags"] else None


TRANSLATOR = Translator()
KEYS = {
    name: TRANSLATOR.get_asset_key(PROJECT.manifest["nodes"][unique_id])
    for name, unique_id in PROJECT.mart_nodes.items()
}
# Relations of a project of one's own that are no marts: shown, and built with the marts.
OTHERS = {
    unique_id: TRANSLATOR.get_asset_key(node)
    for unique_id, node in PROJECT.manifest["nodes"].items()
    if node["resource_type"] in ("model", "seed", "snapshot") and unique_id not in PROJECT.mart_nodes.values()
}


@dbt_assets(manifest=PROJECT.manifest, dagster_dbt_translator=TRANSLATOR, name="marts")
def marts(context: AssetExecutionContext) -> Iterator[AssetCheckResult | MaterializeResult[Any]]:
    """Build the selected marts, and what must change with them, and publish one whole snapshot."""
    keep_connections(context.instance)
    outcome = Outcome()
    failure: BundleError | None = None
    context.log.info(f"Building in {socket.gethostname()}")
    try:
        with parsed_project(ADOPTED) if ADOPTED else nullcontext(PROJECT) as project:
            run_build(
                project,
                outcome,
                run_id=context.run_id,
                holder=f"Dagster run {context.run_id}",
                select=part(context.selected_asset_keys),
            )
    except BundleError as error:
        failure = error
    # What the tests said is shown in either case; an asset counts as materialised only once it is published.
    yield from _check_results(context, outcome.results)
    if failure is None or outcome.snapshot:
        yield from _materialisations(context, outcome)
    if failure is not None:
        raise Failure(f"{failure.message}\n{failure.hint}", allow_retries=False) from failure


def part(keys: AbstractSet[AssetKey]) -> list[str] | None:
    """The marts that a partial build of these assets is asked for; None where all has to be built.

    That is also where something was selected that is no mart: a partial build takes that as its parent left it.
    """
    marts = [name for name, key in KEYS.items() if key in keys]
    return marts if keys <= set(KEYS.values()) and len(marts) < len(KEYS) else None


def _check_results(context: AssetExecutionContext, results: list[NodeResult]) -> Iterator[AssetCheckResult]:
    for result in results:
        node = PROJECT.manifest["nodes"].get(result.unique_id)
        if node is None or node["resource_type"] != "test" or result.status == "skipped":
            continue
        key = get_asset_check_key_for_test(PROJECT.manifest, TRANSLATOR, result.unique_id, project=None)
        if key is None or key not in context.selected_asset_check_keys:
            if result.failed:
                context.log.error(f"{node['name']}: {result.message}")
            continue
        yield AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=result.status == "pass",
            severity=AssetCheckSeverity.ERROR if result.failed else AssetCheckSeverity.WARN,
            description=result.message or None,
            metadata={"failing rows": result.failures} if result.failures is not None else {},
        )


def _materialisations(context: AssetExecutionContext, outcome: Outcome) -> Iterator[MaterializeResult[Any]]:
    """Of all that was built, in the order in which dbt ended it: Dagster wants to hear of parents first."""
    built = {PROJECT.mart_nodes[name]: name for name in outcome.built if name in KEYS}
    for unique_id in (result.unique_id for result in outcome.results):
        name = built.get(unique_id)
        key = KEYS[name] if name else OTHERS.get(unique_id)
        metadata = _metadata(outcome.snapshot, name) if name else {}
        if key in context.selected_asset_keys:
            yield MaterializeResult(asset_key=key, metadata=metadata)
        elif name and key:
            context.log_event(AssetMaterialization(asset_key=key, metadata=metadata))
    if new := set(outcome.built) - KEYS.keys():
        context.log.warning(f"Served, and no assets until the daemon starts anew: {', '.join(new)}")


def _metadata(snapshot: Manifest | None, name: str) -> dict[str, Any]:
    """Phase 0 has no snapshot, so nothing to say of it."""
    if snapshot is None:
        return {}
    mart = snapshot.marts[name]
    return {
        "snapshot": snapshot.id,
        "dagster/row_count": mart.rows,
        "bytes": MetadataValue.int(mart.bytes),
        "sha256": mart.sha256,
    }


ALL_MARTS = define_asset_job("all_marts", selection=AssetSelection.assets(marts))
# Whatever reads an hourly mart is built with it: published apart, details and aggregates would disagree.
HOURLY = AssetSelection.assets(marts) if ADOPTED else build_dbt_asset_selection([marts], "tag:auto_hourly+")
HOURLY_MARTS = define_asset_job("hourly_marts", selection=HOURLY)

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_RETRY_SECONDS = 300


@sensor(
    job=ALL_MARTS,
    name="first_build",
    minimum_interval_seconds=15,
    default_status=DefaultSensorStatus.RUNNING,
    description="Starts a full build while there is nothing to serve; a failed one is tried again every 5 minutes.",
)
def first_build(context: SensorEvaluationContext) -> RunRequest | SkipReason:
    """One run at a time until something is served."""
    if _something_is_served():
        return SkipReason("There is something to serve.")
    if context.instance.get_runs(RunsFilter(statuses=_UNFINISHED), limit=1):
        return SkipReason("A run is under way.")
    failed = context.instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.FAILURE]), limit=1)
    if any(
        time.time() - (record.end_time or 0) < _RETRY_SECONDS and ORPHANED not in record.dagster_run.tags
        for record in failed
    ):
        return SkipReason("A build failed less than 5 minutes ago.")
    return RunRequest(tags={"started_by": "first_build"})


def _something_is_served() -> bool:
    root = filepaths.parquet_dir()
    if root is None:
        return filepaths.build_database().exists()
    try:
        return SnapshotStore(root).current_id() is not None
    except SnapshotCorrupt:
        return False  # a build mends it


defs = Definitions(
    assets=[marts],
    jobs=[ALL_MARTS, HOURLY_MARTS],
    executor=in_process_executor,  # a run is one step: a process of its own would only load everything twice
    schedules=[
        ScheduleDefinition(job=HOURLY_MARTS, cron_schedule="0 * * * *", default_status=DefaultScheduleStatus.RUNNING)
    ],
    sensors=[
        first_build,
        AutomationConditionSensorDefinition(
            "eager_marts",
            target=AssetSelection.assets(*KEYS.values()),
            default_status=DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=15,
        ),
    ],
)
