"""Runs whose process is gone."""

from dagster import DagsterInstance, RunsFilter
from dagster import DagsterRunStatus as Status

ORPHANED = "orphaned"
"""Tag of a run that ended with its container: no fault of the build, so nothing waits before the next one."""


def fail_orphaned_runs(instance: DagsterInstance) -> None:
    """Runs execute in the daemon's container alone: what counts as running when that starts was killed with it."""
    for run in instance.get_runs(RunsFilter(statuses=[Status.STARTING, Status.STARTED, Status.CANCELING])):
        instance.add_run_tags(run.run_id, {ORPHANED: "true"})
        instance.report_run_failed(run, "The daemon container stopped while this run was under way.")
