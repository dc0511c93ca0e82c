"""Starts a Dagster service in its container: ``python -m deploy.pipeline.entrypoint daemon|webserver``.

Dagster and dbt take passwords from variables only; they are read from the secrets' files here, so that neither the
Compose file nor ``docker inspect`` shows one.
"""

from __future__ import annotations

import os
import sys

from dagster import DagsterInstance, RunsFilter
from dagster import DagsterRunStatus as Status

from backend import filepaths

WORKSPACE = str(filepaths.REPO_ROOT / "deploy" / "pipeline" / "workspace.yaml")
COMMANDS = {
    "daemon": ["dagster-daemon", "run", "-w", WORKSPACE],
    "webserver": ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", WORKSPACE],  # noqa: S104 - a container
}


def main(service: str) -> None:
    """Read the secrets, settle what an earlier daemon left, and become the service."""
    os.environ["DAGSTER_PG_PASSWORD"] = filepaths.read_secret("dagster_db_password")
    if service == "daemon":
        os.environ["DBT_ENV_SECRET_SOURCE_PASSWORD"] = filepaths.read_secret("source_reader_password")
        fail_orphaned_runs()
    command = COMMANDS[service]
    os.execvp(command[0], command)  # noqa: S606 - the process becomes the service


def fail_orphaned_runs() -> None:
    """Runs execute in this container alone: what still counts as running when it starts was killed with it."""
    with DagsterInstance.get() as instance:
        for run in instance.get_runs(RunsFilter(statuses=[Status.STARTING, Status.STARTED, Status.CANCELING])):
            instance.report_run_failed(run, "The daemon container stopped while this run was under way.")


if __name__ == "__main__":
    main(sys.argv[1])
