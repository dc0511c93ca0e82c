"""Starts a Dagster service in its container: ``python -m deploy.pipeline.entrypoint daemon|webserver``.

Dagster and dbt take passwords from variables only; they are read from the secrets' files here, so that neither the
Compose file nor ``docker inspect`` shows one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from backend import filepaths
from backend.errors import BundleError
from deploy.pipeline import forks
from deploy.pipeline.adopted.build import announce
from deploy.pipeline.adopted.kept import keep
from deploy.pipeline.adopted.project import parsed_project
from deploy.pipeline.adopted.variables import provide_variables
from deploy.pipeline.dbt import provide_password

WORKSPACE = str(filepaths.REPO_ROOT / "deploy" / "pipeline" / "workspace.yaml")
COMMANDS = {
    "daemon": ["deploy.pipeline.daemon", "run"],
    "webserver": ["deploy.pipeline.webserver", "-h", "0.0.0.0", "-p", "3000"],  # noqa: S104 - a container
}


def main(service: str) -> None:
    """Read the secrets, and become the service."""
    os.environ["DAGSTER_PG_PASSWORD"] = filepaths.read_secret("dagster_db_password")
    if service == "daemon":
        if adopted := filepaths.adopted_project_dir():
            os.environ["DBT_TARGET_PATH"] = _parsed(adopted)
        else:
            provide_password()
    forks.stop()
    command = ["python", "-m", *COMMANDS[service], "-w", WORKSPACE]
    os.execvp(command[0], command)  # noqa: S606 - the process becomes the service


def _parsed(project: Path) -> str:
    """Parse a project of one's own, of which the image has nothing; the directory with what Dagster loads."""
    provide_variables()
    directory = Path(tempfile.mkdtemp(prefix="dbt-parsed-"))
    with parsed_project(project) as parsed:
        keep(parsed, directory)
        announce(parsed)
        sys.stdout.write(parsed.announcement + "\n")
        sys.stdout.flush()  # what takes this process's place has nothing of its buffers
    return str(directory)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BundleError as error:
        sys.exit(f"{error.message}\n{error.hint}")
