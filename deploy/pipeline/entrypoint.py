"""Starts what runs in a pipeline container: ``python -m deploy.pipeline.entrypoint daemon|webserver|pipeline …``.

Dagster and dbt take passwords from variables only; they are read from the secrets' files here, so that neither the
Compose file nor ``docker inspect`` shows one.
"""

from __future__ import annotations

import os
import sys

from backend import filepaths

WORKSPACE = str(filepaths.REPO_ROOT / "deploy" / "pipeline" / "workspace.yaml")
COMMANDS = {
    "daemon": ["dagster-daemon", "run", "-w", WORKSPACE],
    "webserver": ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", WORKSPACE],  # noqa: S104 - a container
    "pipeline": [sys.executable, "-m", "deploy.pipeline"],
}


def main(service: str, *arguments: str) -> None:
    """Read the secrets, settle what an earlier daemon left, and become the service."""
    if service != "webserver":
        os.environ["DBT_ENV_SECRET_SOURCE_PASSWORD"] = filepaths.read_secret("source_reader_password")
    if service != "pipeline":
        os.environ["DAGSTER_PG_PASSWORD"] = filepaths.read_secret("dagster_db_password")
    if service == "daemon":
        _settle_orphaned_runs()
    command = [*COMMANDS[service], *arguments]
    os.execvp(command[0], command)  # noqa: S606 - the process becomes the service


def _settle_orphaned_runs() -> None:
    from dagster import DagsterInstance  # noqa: PLC0415 - slow, and needed here alone

    from deploy.pipeline.orphans import fail_orphaned_runs  # noqa: PLC0415

    with DagsterInstance.get() as instance:
        fail_orphaned_runs(instance)


if __name__ == "__main__":
    main(*sys.argv[1:])
