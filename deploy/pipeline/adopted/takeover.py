"""Whether a file that somebody's own dbt builds in can be taken over: whether phase 0 can show what phase 1 will."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

from backend.catalog import current_database, tables
from backend.config import Settings
from backend.duckdb.engine import connect, lock_down
from backend.duckdb.file import named
from backend.errors import BundleError, ConfigError
from backend.manifest import Column
from backend.parquet_types import losses
from deploy.pipeline.adopted.project import AdoptedProject


def check_file(project: AdoptedProject, file: Path) -> str:
    """What was found where nothing is missing. Raises ConfigError with all that is."""
    if problems := list(_whose(file)) or list(_called(project, file)) or list(_unreadable(project, file)):
        raise ConfigError(
            f"{file} can't be taken over: {'; '.join(problems)}",
            hint="mend that, leave a mart out by MART_SELECTOR, or begin with `make up PHASE=2`: that needs no file",
        )
    return f"{len(project.relations)} marts can be read in {file}, as they will be served"


def _whose(file: Path) -> Iterator[str]:
    """The file is read, replaced by a rename, and in phase 0 written to."""
    if not file.is_file():
        yield "it is not there (LEGACY_DUCKDB_VOLUME, LEGACY_DUCKDB_FILE)"
    elif not os.access(file, os.R_OK | os.W_OK) or not os.access(file.parent, os.W_OK | os.X_OK):
        owner = file.stat()
        yield (
            f"it is user {owner.st_uid}:{owner.st_gid}'s, in a directory of {file.parent.stat().st_uid}'s, and builds "
            f"run as {os.getuid()}:{os.getgid()} (APP_UID, APP_GID)"
        )


def _called(project: AdoptedProject, file: Path) -> Iterator[str]:
    if file.name != project.profile.file_name:
        yield (
            f"the profile's file is called {project.profile.file_name}, and what is in it names the database after "
            "that (LEGACY_DUCKDB_FILE; DUCKDB_PATH is ours in containers: let the profile take another variable)"
        )


def _unreadable(project: AdoptedProject, file: Path) -> Iterator[str]:
    """Marts that the API can't read there, as it opens the file: with nothing attached, and no other file in reach."""
    for mart in project.elsewhere:
        yield f"{mart}: it lies in the database {project.relations[mart].database}, which is another file"
    try:
        with connect(Settings(), str(file), read_only=True) as connection:
            lock_down(connection)
            found = tables(connection, current_database(connection))
            for entry in project.catalog:
                try:
                    dataset = named(connection, entry, found)
                    for why in losses(Column(each.name, str(each.sqltype)) for each in dataset.columns):
                        yield f"{entry.mart}: {why}"
                except (duckdb.Error, BundleError) as error:
                    yield f"{entry.mart}: {str(error).splitlines()[0]}"
    except duckdb.Error as error:
        yield f"opening it failed: {error}"
