"""One build of the marts, from the source to what is served.

Phases 1 and 2: land the source, let dbt write Parquet into a private directory, audit, publish. Phase 0 (no
``PARQUET_DIR``): let dbt write tables into the file that everybody shares. A project that was adopted is built by
``deploy.pipeline.adopted.build``, between the same locks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from backend import filepaths, tally
from backend.audit import Written
from backend.catalog import path_of
from backend.errors import AuditFailed, BuildFailed, BundleError, ConfigError
from backend.manifest import Manifest
from backend.parquet_types import as_kept
from backend.snapshots import Build, SnapshotStore
from deploy.pipeline.dbt import Dbt, artefacts, check
from deploy.pipeline.legacy import refresh_legacy_file
from deploy.pipeline.outcome import Outcome
from deploy.pipeline.project import DbtProject
from deploy.pipeline.settings import PipelineSettings

# What a project of one's own takes is most of what there is to import, and the example needs none of it.
if TYPE_CHECKING:
    from deploy.pipeline.adopted.project import AdoptedProject

log = logging.getLogger(__name__)


def run_build(
    project: DbtProject | AdoptedProject | None,
    outcome: Outcome,
    *,
    run_id: str,
    holder: str,
    select: Sequence[str] | None = None,
) -> None:
    """Build all marts, or ``select`` and whatever else is stale, and publish one whole snapshot.

    ``project`` is None where nobody has parsed the example yet: dbt does as it builds all of it, of a part before.
    ``outcome`` is filled as the build goes on, so that a failed one can be explained. Raises BuildFailed when dbt or
    one of its tests failed, AuditFailed, LockHeld, PublishConflict; what is served stays as it was, unless
    ``outcome`` has a snapshot: then that is served, and what failed came after.
    """
    if project is None and select is not None:
        project = DbtProject.parse()
    if project and (unknown := set(select or ()) - set(project.mart_names)):
        raise BuildFailed(f"no mart is called {', '.join(sorted(unknown))}", hint="see `dbt ls` for the marts")
    settings = PipelineSettings()
    root = filepaths.parquet_dir()
    if root is None:
        _build_phase_0(project, outcome, select)
        return
    store = SnapshotStore(root)
    waiting = store.build(run_id, holder=holder, wait=settings.build_lock_wait_seconds)
    with waiting as build, _counted(root, outcome):
        if isinstance(project, DbtProject | None):
            outcome.snapshot = _build_example(project, build, outcome, select)
        else:
            from deploy.pipeline.adopted.build import build_adopted  # noqa: PLC0415 - see above

            outcome.snapshot = build_adopted(project, build, outcome, select)
    _retain(store, settings)
    refresh_legacy_file(store, None if isinstance(project, DbtProject | None) else project.catalog)


def _build_phase_0(project: DbtProject | AdoptedProject | None, outcome: Outcome, select: Sequence[str] | None) -> None:
    if not isinstance(project, DbtProject | None):
        from deploy.pipeline.adopted.build import build_in_place  # noqa: PLC0415 - see above

        build_in_place(project, outcome, select)
        return
    if path_of(filepaths.build_database()).exists():
        raise ConfigError(
            f"{filepaths.build_database()} is of a project of your own, and DBT_PROJECT_DIR is not set",
            hint="set it: the example would be built into that file",
        )
    with artefacts() as target:
        _build(Dbt(target, {}), project, outcome, select)


def _build_example(
    project: DbtProject | None, build: Build, outcome: Outcome, select: Sequence[str] | None
) -> Manifest:
    with artefacts() as target, _build_file() as file:
        variables = {"MART_BUILD_DIR": str(build.path), "DUCKDB_PATH": str(file)}
        dbt = Dbt(target, variables, keep_open=[build.lock])
        if project and select is not None and build.parent is not None:
            dbt.land_sources()
            stale = stale_marts(project, build.parent, set(select), _landed(file))
            build.link([spec.name for spec in project.specs if spec.name not in stale])
            select = [spec.name for spec in project.specs if spec.name in stale]
        else:
            select = None
        project = _build(dbt, project, outcome, select)
        return build.publish(project.specs, written=_written(file), source=_landed(file))


def stale_marts(project: DbtProject, parent: Manifest, selected: set[str], source: dict[str, str]) -> set[str]:
    """The marts that a partial build has to build so that all marts of its snapshot come from one source moment.

    That is the selected ones, those whose source tables or SQL changed since the parent, and all that read these.
    """
    stale: set[str] = set()
    for spec in project.specs:
        before = parent.marts.get(spec.name)
        if (
            spec.name in selected
            or before is None
            or (before.code, [(c.name, c.type) for c in before.columns])
            != (spec.code, [(c.name, c.type) for c in as_kept(spec.columns)])
            or any(parent.source.get(table) != source[table] for table in spec.sources)
            or project.parent_marts(spec.name) & stale
        ):
            stale.add(spec.name)
    return stale


def _retain(store: SnapshotStore, settings: PipelineSettings) -> None:
    """Delete what is old. The next build does it again, so a failure here is no failure of this one."""
    try:
        store.retain(keep=settings.snapshots_keep, minutes=settings.snapshots_keep_minutes)
    except (BundleError, OSError) as error:
        log.warning("deleting old snapshots of %s failed: %s", store.root, error)


def _build(dbt: Dbt, project: DbtProject | None, outcome: Outcome, select: Sequence[str] | None) -> DbtProject:
    outcome.results = dbt.build(select)
    project = project or DbtProject.read(dbt.manifest)
    outcome.built = [spec.name for spec in project.specs if select is None or spec.name in select]
    check(outcome.results, project.manifest["nodes"])
    return project


@contextmanager
def _counted(root: Path, outcome: Outcome) -> Iterator[None]:
    """Count a build and what comes of it, for the API's metrics. Needs the build lock."""
    tally.add(root, tally.STARTED)
    event = tally.FAILED
    try:
        yield
        event = tally.PUBLISHED
    except AuditFailed:
        event = tally.AUDIT_REFUSED
        raise
    except BuildFailed:
        if any(result.failed and "test" in result.unique_id.split(".")[0] for result in outcome.results):
            event = tally.TEST_FAILED
        raise
    finally:
        tally.add(root, event)


@contextmanager
def _build_file() -> Iterator[Path]:
    """The DuckDB file to build in: new for this build, gone after it, whatever an earlier one left behind."""
    file = filepaths.build_database()
    _remove(file)
    try:
        yield file
    finally:
        _remove(file)


def _remove(file: Path) -> None:
    for path in (file, file.with_name(file.name + ".wal")):
        path.unlink(missing_ok=True)


def _landed(file: Path) -> dict[str, str]:
    """Fingerprint of each source table."""
    return dict(_rows(file, "SELECT table_name, fingerprint FROM landed._landing"))


def _written(file: Path) -> dict[str, Written]:
    """What dbt wrote, by mart."""
    rows = _rows(file, "SELECT mart, fingerprint, sha256 FROM _build.written")
    return {mart: Written(fingerprint, sha256) for mart, fingerprint, sha256 in rows}


def _rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()
