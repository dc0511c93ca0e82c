"""Phase 1: the phase-0 file is kept fresh, so that the way back finds the same numbers."""

from __future__ import annotations

from backend import filepaths
from backend.catalog import path_of, read_catalog
from backend.errors import BuildFailed
from backend.snapshots import SnapshotStore


def refresh_legacy_file(store: SnapshotStore, *, gone_on_from: bool = False) -> None:
    """Bring the phase-0 file, where there is one, up to the current snapshot. Raises BuildFailed.

    A file of somebody else's that has builds which no snapshot knows is left alone, unless the current one went on from
    it.
    """
    legacy = filepaths.legacy_duckdb_path()
    if legacy is None:
        return
    import duckdb  # noqa: PLC0415 - a rollback where there is no such file does without

    from backend.scripts.bootstrap_duckdb import legacy_snapshot_id, refresh_duckdb_file  # noqa: PLC0415

    catalog = read_catalog(path_of(legacy)) if filepaths.adopted_project_dir() else None
    if catalog is None and filepaths.adopted_project_dir():
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but {legacy} was not written: {path_of(legacy)} is not there",
            hint="start the Dagster daemon, which writes that",
        )
    try:
        if catalog is not None and not gone_on_from and legacy.is_file() and legacy_snapshot_id(legacy) is None:
            raise BuildFailed(
                f"snapshot {store.current_id()} is served, but {legacy} was left alone: somebody has built in it since",
                hint="run a build, which goes on from it, or move the file away; then do this again",
            )
        refresh_duckdb_file(store, legacy, catalog)
    except (duckdb.Error, OSError) as error:
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but writing its marts to {legacy} failed: {error}",
            hint="phase 0 would show older rows; remove the cause, then build or roll the data back again",
        ) from error
