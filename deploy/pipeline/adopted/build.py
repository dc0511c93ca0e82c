"""A build of an adopted project: dbt on a copy of what the last one left, then every mart as a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from backend import filepaths
from backend.catalog import withhold, write_catalog
from backend.errors import ConfigError
from backend.manifest import Manifest
from backend.scripts.bootstrap_duckdb import legacy_snapshot_id
from backend.snapshots import Build
from deploy.pipeline.adopted.dbt import AdoptedDbt
from deploy.pipeline.adopted.profile import Profile, copy_database, external_root
from deploy.pipeline.adopted.project import AdoptedProject
from deploy.pipeline.dbt import check
from deploy.pipeline.outcome import Outcome


def build_adopted(project: AdoptedProject, build: Build, outcome: Outcome, select: Sequence[str] | None) -> Manifest:
    """Build the whole project, or the marts in ``select`` and all that reads them, and publish one whole snapshot.

    Raises as ``deploy.pipeline.build.run_build``.
    """
    project.check_locations(build.workspace.parent)
    external_root(build.workspace).mkdir(parents=True)
    file = build.workspace / project.profile.file_name
    whole = not restore(project.profile, file, build.restore_state) or select is None
    parts = None if whole else _parts(project, build, set(select or ()), file)
    outcome.built = [name for name in project.relations if parts is None or name in parts.marts]
    build.link([name for name in project.relations if name not in outcome.built])
    dbt = AdoptedDbt(
        project.parsed,
        {},
        keep_open=[build.lock],
        root=project.root,
        profile=project.profile,
        workspace=build.workspace,
        marts=build.path,
        relations=[project.relations[name] for name in outcome.built],
    )
    outcome.results = dbt.build(parts.select if parts else None)
    check(outcome.results, project.manifest["nodes"])
    written = dbt.written()
    return build.publish(project.specs(build.path), written=written, state=_left(build.workspace, file))


def build_in_place(project: AdoptedProject, outcome: Outcome, select: Sequence[str] | None) -> None:
    """Build the whole project, or the marts in ``select``, in the file that phase 0 shows, as its owner's dbt does.

    Raises BuildFailed when dbt or one of its tests failed, ConfigError where the file isn't called as the profile's.
    """
    file = filepaths.build_database()
    if file.name != project.profile.file_name:
        raise ConfigError(
            f"the project builds in a file called {project.profile.file_name}, phase 0 has {file.name}",
            hint="its relations name the database after it: set LEGACY_DUCKDB_FILE",
        )
    announce(project)
    external_root(file.parent).mkdir(exist_ok=True)
    outcome.built = [name for name in project.relations if select is None or name in select]
    dbt = AdoptedDbt(project.parsed, {}, root=project.root, profile=project.profile, workspace=file.parent)
    parts = None if select is None else project.selection([project.mart_nodes[name] for name in outcome.built])
    outcome.results = dbt.build(parts)
    check(outcome.results, project.manifest["nodes"])
    write_catalog(file, project.catalog)


def announce(project: AdoptedProject) -> None:
    """Say which relations of the phase-0 file, where there is one, are marts, as it is now. Raises ConfigError."""
    file = filepaths.phase_0_file()
    try:
        if file is not None:
            withhold(file, project.catalog)
    except OSError as error:
        raise ConfigError(
            f"writing which relations of {file} are marts failed: {error}", hint="the user that builds has to own it"
        ) from error


def restore(profile: Profile, file: Path, state: Callable[[], bool]) -> bool:
    """Make ``file`` what the last build left, at first what the project has; whether a part can be built in it.

    ``state`` copies what the last one left into the file's directory, if there was one. It may have been one of phase
    0, or the owner's own, in the file that phase 1 keeps fresh. Raises ConfigError.
    """
    legacy = filepaths.legacy_duckdb_path()
    if legacy and legacy.is_file() and _others_built_in(legacy):
        copy_database(legacy, file)
        return False
    if state():
        (found,) = (path for path in file.parent.iterdir() if path.is_file())
        found.rename(file)
        # Views name the database that they are in, which is called after its file.
        return found == file
    own = profile.database
    if own and own.is_file():
        copy_database(own, file)
    return False


def _others_built_in(file: Path) -> bool:
    try:
        return legacy_snapshot_id(file) is None
    except duckdb.Error as error:
        raise ConfigError(
            f"opening {file}, which the build may have to go on from, failed: {error}",
            hint="wait until nobody writes to it",
        ) from error


@dataclass(frozen=True)
class _Parts:
    """What a partial build does: the marts that are exported, and what dbt is told to select."""

    marts: set[str]
    select: list[str]


def _parts(project: AdoptedProject, build: Build, selected: set[str], file: Path) -> _Parts:
    known = build.parent.marts if build.parent else {}
    selected |= {name for name in project.relations if name not in known}
    marts = project.with_readers(selected)
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.execute(
            "SELECT lower(schema_name), lower(name) FROM (SELECT schema_name, table_name AS name FROM duckdb_tables()"
            " UNION ALL SELECT schema_name, view_name FROM duckdb_views())"
        ).fetchall()
    missing = project.selection(project.missing_parents(marts, {(schema, name) for schema, name in rows}))
    readers = [f"{item}+" for item in project.selection([project.mart_nodes[name] for name in sorted(selected)])]
    return _Parts(marts, [*readers, *missing])


def _left(workspace: Path, file: Path) -> list[Path]:
    """What the next build goes on from: the database, and the files that views in it read."""
    return [file, *(path for path in sorted(external_root(workspace).rglob("*")) if path.is_file())]
