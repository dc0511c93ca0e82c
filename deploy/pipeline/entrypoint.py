"""Starts a Dagster service in its container: ``python -m deploy.pipeline.entrypoint daemon|webserver``.

Dagster and dbt take passwords from variables only; they are read from the secrets' files here, so that neither the
Compose file nor ``docker inspect`` shows one.
"""

from __future__ import annotations

import os
import sys

from dagster import DagsterInstance

from backend import filepaths
from deploy.pipeline.orphans import fail_orphaned_runs
from deploy.pipeline.source import provide_password

WORKSPACE = str(filepaths.REPO_ROOT / "deploy" / "pipeline" / "workspace.yaml")
COMMANDS = {
    "daemon": ["dagster-daemon", "run", "-w", WORKSPACE],
    "webserver": ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", WORKSPACE],  # noqa: S104 - a container
}


def main(service: str) -> None:
    """Read the secrets, settle what an earlier daemon left, and become the service."""
    os.environ["DAGSTER_PG_PASSWORD"] = filepaths.read_secret("dagster_db_password")
    if service == "daemon":
        provide_password()
        with DagsterInstance.get() as instance:
            fail_orphaned_runs(instance)
    command = COMMANDS[service]
    os.execvp(command[0], command)  # noqa: S606 - the process becomes the service


if __name__ == "__main__":
    main(sys.argv[1])
