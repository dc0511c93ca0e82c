"""A plain directory of Parquet files that somebody else's pipeline writes, described as if it were a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from os import DirEntry
from pathlib import Path

import duckdb

from backend.audit import parquet_columns, parquet_rows
from backend.errors import SnapshotCorrupt
from backend.manifest import Manifest, Mart, label_for
from backend.names import unfit_datasets


def describe(directory: Path, files: Sequence[DirEntry[str]], snapshot_id: str) -> Manifest:
    """A manifest of these files, without checksums; made when the newest was written. Raises SnapshotCorrupt."""
    marts = {}
    if unfit := unfit_datasets(entry.name.removesuffix(".parquet") for entry in files):
        raise SnapshotCorrupt(
            f"the plain directory {directory} can't be served: "
            + "; ".join(f"{name!r}: {why}" for name, why in unfit.items()),
            hint="rename these files",
        )
    newest = datetime.fromtimestamp(0, UTC)
    try:
        with duckdb.connect() as connection:
            for entry in files:
                name, stat = entry.name.removesuffix(".parquet"), entry.stat()
                built_at = datetime.fromtimestamp(stat.st_mtime, UTC)
                newest = max(newest, built_at)
                path = Path(entry.path)
                columns, rows = tuple(parquet_columns(connection, path)), parquet_rows(connection, path)
                marts[name] = Mart(name, label_for(name), "", columns, rows=rows, bytes=stat.st_size, built_at=built_at)
    except (duckdb.Error, OSError) as error:
        raise SnapshotCorrupt(
            f"reading the plain directory {directory} failed: {error}", hint="it may be being replaced: try again"
        ) from error
    return Manifest(snapshot_id, None, newest, marts)
