"""``python -m deploy.pipeline``: build, publish, roll back, compare old and new, move to another store."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from backend import filepaths
from backend.errors import BundleError, ConfigError
from backend.manifest import Mart
from backend.snapshots import SnapshotStore
from deploy.pipeline.legacy import refresh_legacy_file

if TYPE_CHECKING:
    from deploy.pipeline.adopted.project import AdoptedProject

# A rollback is a matter of moments, and most of them would go into importing what only a build needs, or typer.


def build(arguments: argparse.Namespace) -> None:
    """Build the marts, test and audit them, and publish one snapshot."""
    from deploy.pipeline.build import run_build  # noqa: PLC0415
    from deploy.pipeline.outcome import Outcome  # noqa: PLC0415

    outcome = Outcome()
    run_id = f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    with _buildable() as project:
        run_build(project, outcome, run_id=run_id, holder=_holder(), select=arguments.select)
    if outcome.snapshot:
        rows = sum(mart.rows for mart in outcome.snapshot.marts.values())
        _say(f"Published snapshot {outcome.snapshot.id}: {len(outcome.snapshot.marts)} marts, {rows} rows")
        if filepaths.adopted_project_dir():
            for mart in outcome.snapshot.marts.values():
                _say(f"  {mart.name}: {mart.rows} rows, {_readers(mart)}")
    else:
        _say(f"Built {len(outcome.built)} marts as tables in {filepaths.build_database()}")


def marts(_: argparse.Namespace) -> None:
    """Say which relations of the project in DBT_PROJECT_DIR are marts; nothing is built."""
    if filepaths.adopted_project_dir() is None:
        raise ConfigError("DBT_PROJECT_DIR is not set", hint="it names the directory of a dbt project of your own")
    with _buildable():
        pass


def snapshots(_: argparse.Namespace) -> None:
    """List the snapshots, oldest first; the current one is marked."""
    store = _store()
    current = store.current_id()
    for manifest in store.manifests():
        size = sum(mart.bytes for mart in manifest.marts.values())
        mark = "*" if manifest.id == current else " "
        _say(f"{mark} {manifest.id}  {len(manifest.marts)} marts  {size / 1e6:.1f} MB")


def rollback_data(arguments: argparse.Namespace) -> None:
    """Serve an earlier snapshot again; nothing is rebuilt."""
    store = _store()
    manifest = store.rollback(arguments.snapshot, holder=_holder())
    refresh_legacy_file(store)
    _say(f"Serving snapshot {manifest.id} of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC")


def take_over(arguments: argparse.Namespace) -> None:
    """Copy the snapshots of another store, and serve what it serves."""
    from deploy.pipeline.settings import PipelineSettings  # noqa: PLC0415

    store = _store()
    wait = PipelineSettings().build_lock_wait_seconds
    manifest = store.take_over(SnapshotStore(arguments.source), holder=_holder(), wait=wait)
    if filepaths.adopted_project_dir() is None:  # of others it takes what the daemon writes; their builds do it
        refresh_legacy_file(store)
    _say(f"Serving snapshot {manifest.id} of {arguments.source}; {len(store.ids())} snapshots are here")


def refresh_file(_: argparse.Namespace) -> None:
    """Write the marts that are served into the phase-0 file."""
    store = _store()
    refresh_legacy_file(store)
    _say(f"{filepaths.legacy_duckdb_path()} has the marts of snapshot {store.current_id()}")


def check_file(_: argparse.Namespace) -> None:
    """Prove that the marts of the project in DBT_PROJECT_DIR can be read in the phase-0 file as they will be served."""
    from deploy.pipeline.adopted.takeover import check_file  # noqa: PLC0415

    file = filepaths.phase_0_file()
    if filepaths.adopted_project_dir() is None or file is None:
        raise ConfigError("this is of a project of your own, in phase 0 or 1", hint="set DBT_PROJECT_DIR")
    with _buildable() as project:
        _say(check_file(cast("AdoptedProject", project), file))


def verify(_: argparse.Namespace) -> None:
    """Compare the old way with the new one, for all users; a JSON report. 0: equal, 1: different, 2: unknown."""
    from deploy.pipeline.parity.verify import verify  # noqa: PLC0415

    # As an exception, so that what is temporary is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    report = verify()
    _say(report.to_json())
    sys.exit(report.exit_code)


def check_source(_: argparse.Namespace) -> None:
    """Prove that the build's role can read every table of the source, and write to none.

    Of a project of your own: that its profile connects, and what it attaches has the project's sources.
    """
    if root := filepaths.adopted_project_dir():
        from deploy.pipeline.adopted import source  # noqa: PLC0415

        _say(source.check_source(root))
        return
    from deploy.pipeline.project import DbtProject  # noqa: PLC0415
    from deploy.pipeline.source import check_source  # noqa: PLC0415

    parsed = filepaths.dbt_target_dir() / "manifest.json"  # the image has one: parsing takes longer than all else
    project = DbtProject.read(parsed) if parsed.is_file() else DbtProject.parse(stdout=2)
    _say(check_source(project.source_tables))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (build, marts, snapshots, rollback_data, take_over, refresh_file, verify, check_source, check_file):
        name = command.__name__.replace("_", "-")
        added = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        added.set_defaults(command=command)
        if command is build:
            added.add_argument("--select", action="append", metavar="MART", help="may be given several times")
        if command is rollback_data:
            added.add_argument("--snapshot", required=True, metavar="ID", help="which one to serve again")
        if command is take_over:
            added.add_argument("--source", required=True, type=Path, metavar="DIR", help="root of the other store")
    return parser.parse_args()


@contextmanager
def _buildable() -> Iterator[AdoptedProject | None]:
    """The project of one's own to build, parsed and ready; None where that is the example, which is parsed later."""
    from deploy.pipeline.dbt import provide_password  # noqa: PLC0415

    root = filepaths.adopted_project_dir()
    if root is None:
        provide_password()
        yield None
        return
    from deploy.pipeline.adopted.project import parsed_project  # noqa: PLC0415
    from deploy.pipeline.adopted.variables import provide_variables  # noqa: PLC0415

    provide_variables()
    with parsed_project(root) as project:
        _say(project.announcement)
        yield project


def _readers(mart: Mart) -> str:
    return f"each shown to the user in {mart.user_column}" if mart.user_column else "shown to every user"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # dbt writes there, too


def _store() -> SnapshotStore:
    root = filepaths.parquet_dir()
    if root is None:
        raise ConfigError("PARQUET_DIR is not set: no snapshot store", hint="set PARQUET_DIR, see .env_example")
    return SnapshotStore(root)


def _holder() -> str:
    return f"{os.environ.get('USER') or f'uid {os.getuid()}'} (python -m deploy.pipeline)"


if __name__ == "__main__":
    try:
        arguments = _arguments()
        arguments.command(arguments)
    except BundleError as error:
        sys.exit(f"{error.message}\n{error.hint}")
