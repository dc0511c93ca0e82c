"""``python -m deploy.pipeline``: build and publish, list snapshots, roll the data back."""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from backend import filepaths
from backend.errors import BundleError, ConfigError
from backend.snapshots import SnapshotStore
from deploy.pipeline.legacy import refresh_legacy_file

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def build(
    select: Annotated[list[str] | None, typer.Option(help="A mart to build; may be given several times.")] = None,
) -> None:
    """Build the marts, test and audit them, and publish one snapshot."""
    # A rollback is a matter of half a second and half of that went into what only a build needs.
    from deploy.pipeline.build import Outcome, run_build  # noqa: PLC0415
    from deploy.pipeline.dbt import Dbt  # noqa: PLC0415
    from deploy.pipeline.project import DbtProject  # noqa: PLC0415

    # Not where the image keeps its own: that is read-only.
    with tempfile.TemporaryDirectory(prefix="dbt-parse-") as target:
        project = DbtProject.read(Dbt(Path(target), {}).parse())
    outcome = Outcome()
    run_id = f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    run_build(project, outcome, run_id=run_id, holder=_holder(), select=select or None)
    if outcome.snapshot:
        rows = sum(mart.rows for mart in outcome.snapshot.marts.values())
        typer.echo(f"Published snapshot {outcome.snapshot.id}: {len(outcome.snapshot.marts)} marts, {rows} rows")
    else:
        typer.echo(f"Built {len(outcome.built)} marts as tables in {filepaths.build_database()}")


@app.command()
def snapshots() -> None:
    """List the snapshots, oldest first; the current one is marked."""
    store = _store()
    current = store.current_id()
    for manifest in store.manifests():
        size = sum(mart.bytes for mart in manifest.marts.values())
        mark = "*" if manifest.id == current else " "
        typer.echo(f"{mark} {manifest.id}  {len(manifest.marts)} marts  {size / 1e6:.1f} MB")


@app.command()
def rollback_data(snapshot: Annotated[str, typer.Option(help="Id of the snapshot to serve again.")]) -> None:
    """Serve an earlier snapshot again; nothing is rebuilt."""
    store = _store()
    manifest = store.rollback(snapshot, holder=_holder())
    refresh_legacy_file(store)
    typer.echo(f"Serving snapshot {manifest.id} of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC")


def _store() -> SnapshotStore:
    root = filepaths.parquet_dir()
    if root is None:
        raise ConfigError("PARQUET_DIR is not set: no snapshot store", hint="set PARQUET_DIR, see .env_example")
    return SnapshotStore(root)


def _holder() -> str:
    return f"{os.environ.get('USER') or f'uid {os.getuid()}'} (python -m deploy.pipeline)"


if __name__ == "__main__":
    try:
        app()
    except BundleError as error:
        sys.exit(f"{error.message}\n{error.hint}")
