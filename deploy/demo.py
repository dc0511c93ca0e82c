"""``make demo``: the whole path on one machine without containers: source, dbt, snapshot store, API."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from urllib.parse import quote

import typer

from backend import auth, filepaths
from backend.errors import BundleError
from backend.snapshots import SnapshotStore


def main() -> None:
    """Fill the source and build the marts where that was not done before, say how to ask, and serve."""
    port = os.environ.get("PORT", "8000")
    root = filepaths.parquet_dir()
    adopted = filepaths.adopted_project_dir()
    if root is None or SnapshotStore(root).current_id() is None:
        if adopted is None:
            _run("deploy.source", "seed-embedded")
        _run("deploy.pipeline", "build")
    sample = "fct_transactions/query?order=posted_at.desc&limit=3"
    if adopted and root:
        with SnapshotStore(root).open() as snapshot:
            sample = f"{quote(next(iter(snapshot.manifest.marts)))}/query?limit=3"
    api = f"http://127.0.0.1:{port}/api/analytics"
    token = auth.issue_here(user_id=1, ttl=timedelta(days=1))
    header = f"Authorization: Bearer {token}"
    typer.echo(
        f"\nServing on http://127.0.0.1:{port} until Ctrl-C. In a browser it asks for a token; user 1's is\n\n"
        f"  {token}\n\nAs that user:\n\n"
        f"  curl -H '{header}' '{api}/datasets'\n\n"
        f"  curl -H '{header}' '{api}/datasets/{sample}'\n"
    )
    os.execv(  # noqa: S606 - the process becomes the server, so that it gets Ctrl-C and SIGTERM itself
        sys.executable,
        [sys.executable, "-m", "backend.server", "--port", port],
    )


def _run(*command: str) -> None:
    if subprocess.run([sys.executable, "-m", *command], check=False).returncode != 0:
        raise BundleError(f"python -m {' '.join(command)} failed", hint="see its output above")


if __name__ == "__main__":
    try:
        main()
    except BundleError as error:
        sys.exit(f"{error.message}\n{error.hint}")
