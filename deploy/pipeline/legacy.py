"""Phase 1: the phase-0 file is kept fresh, so that the way back finds the same numbers."""

from __future__ import annotations

from backend import filepaths
from backend.errors import BuildFailed
from backend.snapshots import SnapshotStore


def refresh_legacy_file(store: SnapshotStore) -> None:
    """Bring the phase-0 file, where there is one, up to the current snapshot. Raises BuildFailed."""
    legacy = filepaths.legacy_duckdb_path()
    if legacy is None:
        return
    import duckdb  # noqa: PLC0415 - a rollback where there is no such file does without

    from backend.scripts.bootstrap_duckdb import refresh_duckdb_file  # noqa: PLC0415

    try:
        refresh_duckdb_file(store, legacy)
    except (duckdb.Error, OSError) as error:
        raise BuildFailed(
            f"snapshot {store.current_id()} is served, but writing its marts to {legacy} failed: {error}",
            hint="phase 0 would show older rows; remove the cause, then build or roll the data back again",
        ) from error
