"""Parity: what the old way of building and serving gives against what the new one gives, for all users."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from backend import filepaths
from backend.catalog import path_of, read_catalog
from backend.errors import BundleError, SnapshotGone
from backend.quoting import parquet_file
from backend.scripts.bootstrap_duckdb import legacy_snapshot_id, recorded_snapshot
from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted.twins import AdoptedTwins, attach_marts
from deploy.pipeline.parity.compare import compare
from deploy.pipeline.parity.report import Comparison, Report
from deploy.pipeline.parity.twins import Twins, attach_tables

log = logging.getLogger(__name__)


def verify() -> Report:
    """Compare both ways of building, then the phase-0 file with its snapshot. What is served is only read.

    Of an adopted project one build is compared with itself: what dbt left, and what the export made of it.

    Whatever goes wrong is in the report: its verdict is then unknown, unless a difference was found before.
    """
    started_at = datetime.now(UTC)
    comparisons: list[Comparison] = []
    source: dict[str, str] = {}
    reason = None
    try:
        with _work() as work:
            twins: Twins | AdoptedTwins
            if root := filepaths.adopted_project_dir():
                twins = AdoptedTwins(work, root)  # one build makes both sides, so nothing has to be frozen
            else:
                twins = Twins(work)
                source = twins.freeze()
            twins.build()
            comparisons.append(_compare_builds(twins))
            comparisons.append(_compare_file(work))
    except BundleError as error:
        reason = f"{error.message}\n{error.hint}"
    except Exception as error:
        log.exception("the comparison failed")
        reason = f"{type(error).__name__}: {error}"
    return Report(started_at, datetime.now(UTC), tuple(comparisons), source, reason)


@contextmanager
def _work() -> Iterator[Path]:
    """A directory for all that is temporary: where builds have theirs, but not on the volume that phase 0 serves."""
    database = filepaths.duckdb_path() if filepaths.parquet_dir() else None
    parent = database.parent if database else None
    with tempfile.TemporaryDirectory(prefix="verify-", dir=parent) as directory:
        yield Path(directory)


def _connect(work: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 2, "temp_directory": str(work / "spill")})


def _compare_builds(twins: Twins | AdoptedTwins) -> Comparison:
    with _connect(twins.work) as connection:
        old, new = twins.attach(connection)
        marts = compare(connection, old, new, expected=twins.marts)
    return Comparison(*twins.names, marts)


def _compare_file(work: Path) -> Comparison:
    file, root = filepaths.legacy_duckdb_path(), filepaths.parquet_dir()
    names = ("phase-0 file", "its snapshot")
    if file is None or root is None:
        return Comparison(*names, reason="this phase has not both of them")
    if not file.is_file():
        return Comparison(*names, reason=f"there is no {file} yet")
    unknown = Comparison(*names, reason=f"{file} does not say of which snapshot it is: a phase-0 build wrote it")
    adopted = filepaths.adopted_project_dir() is not None
    if adopted and legacy_snapshot_id(file) is None:
        return unknown
    with _connect(work) as connection:
        # From here on it is this very file, even when a publish replaces it.
        if adopted:
            old = attach_marts(connection, file, "old", read_catalog(path_of(file)) or [])
        else:
            old = attach_tables(connection, file, "old")
        connection.execute("USE old")
        snapshot_id = recorded_snapshot(connection)
        if snapshot_id is None:
            return unknown
        try:
            snapshot = SnapshotStore(root).open(snapshot_id)
        except SnapshotGone as error:
            return Comparison(*names, reason=f"{file} is of a snapshot that is gone: {error.message}")
        with snapshot:
            new = {name: parquet_file(snapshot.file(name)) for name in snapshot.manifest.marts}
            return Comparison("phase-0 file", f"snapshot {snapshot_id}", compare(connection, old, new))
