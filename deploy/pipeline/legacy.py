"""Phase 1: the phase-0 file is kept fresh, so that the way back finds the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backend import filepaths
from backend.catalog import Entry, path_of, read_catalog
from backend.errors import BuildFailed
from backend.snapshots import SnapshotStore


def refresh_legacy_file(store: SnapshotStore, built: Sequence[Entry] | None = None) -> None:
    """Bring the phase-0 file, where there is one, up to the current snapshot. Raises BuildFailed.

    Of a project of one's own: its catalog as well, which is that of the project that has just ``built`` the snapshot,
    else the one that is there. A file that has builds which no snapshot knows is left alone, unless they were gone on
    from.
    """
    legacy = filepaths.legacy_duckdb_path()
    if legacy is None:
        return
    if filepaths.adopted_project_dir():
        _refresh_owners_file(store, legacy, built)
        return
    if path_of(legacy).exists():
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but {legacy} was left alone: it is of a project of your own",
            hint="set DBT_PROJECT_DIR, which is not set",
        )
    _write(store, legacy, None)


def _refresh_owners_file(store: SnapshotStore, legacy: Path, built: Sequence[Entry] | None) -> None:
    from backend.scripts.bootstrap_duckdb import legacy_snapshot_id  # noqa: PLC0415 - as below

    catalog = read_catalog(path_of(legacy)) if built is None else built
    if catalog is None:
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but {legacy} was not written: {path_of(legacy)} is not there",
            hint="start the Dagster daemon, which writes that",
        )
    if built is None and legacy.is_file() and legacy_snapshot_id(legacy) is None:
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but {legacy} was left alone: somebody has built in it since",
            hint="run a build, which goes on from it, or move the file away; then do this again",
        )
    _write(store, legacy, catalog)


def _write(store: SnapshotStore, legacy: Path, catalog: Sequence[Entry] | None) -> None:
    import duckdb  # noqa: PLC0415 - a rollback where there is no such file does without

    from backend.scripts.bootstrap_duckdb import refresh_duckdb_file  # noqa: PLC0415

    try:
        refresh_duckdb_file(store, legacy, catalog)
    except (duckdb.Error, OSError) as error:
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but writing its marts to {legacy} failed: {error}",
            hint="phase 0 would show older rows; remove the cause, then build or roll the data back again",
        ) from error
