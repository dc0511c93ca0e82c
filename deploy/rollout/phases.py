"""What the phases are: where each service keeps the marts, and how. Data; ``compose/`` says the same to Compose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

BACKEND, DAEMON, WEBSERVER = "backend", "dagster-daemon", "dagster-webserver"
MOVING = (BACKEND, DAEMON, WEBSERVER)
"""The services that a phase is made of; the others are the same in every phase."""
PATH_VARIABLES = ("PARQUET_DIR", "DUCKDB_PATH", "LEGACY_DUCKDB_PATH")
_DATA = "/opt/dagster/dagster_home/data"
_BUILD_FILE = "/tmp/dbt_build.duckdb"  # noqa: S108 - a tmpfs of the container's own


@dataclass(frozen=True)
class Mount:
    """Where a container sees the marts, and whether it may write there. ``source`` is the volume or host directory."""

    kind: Literal["volume", "bind"]
    target: str
    writable: bool
    source: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class Place:
    """A service's variables and its mount in one phase; a file's name, which may be any, is ``*``."""

    variables: Mapping[str, str]
    mount: Mount


_BUILDER = {"PARQUET_DIR": f"{_DATA}/parquet", "DUCKDB_PATH": _BUILD_FILE}
PHASES: Mapping[int, Mapping[str, Place]] = {
    0: {
        BACKEND: Place({"DUCKDB_PATH": "/app/data/*"}, Mount("volume", "/app/data", False)),
        DAEMON: Place({"DUCKDB_PATH": f"{_DATA}/*"}, Mount("volume", _DATA, True)),
        WEBSERVER: Place({"DUCKDB_PATH": f"{_DATA}/*"}, Mount("volume", _DATA, False)),
    },
    1: {
        BACKEND: Place(
            {"PARQUET_DIR": "/app/data/parquet", "DUCKDB_PATH": "/app/data/*"},
            Mount("volume", "/app/data", False),
        ),
        DAEMON: Place(
            {**_BUILDER, "LEGACY_DUCKDB_PATH": f"{_DATA}/*"}, Mount("volume", _DATA, True)
        ),
        WEBSERVER: Place(_BUILDER, Mount("volume", _DATA, False)),
    },
    2: {
        BACKEND: Place({"PARQUET_DIR": "/app/data/parquet"}, Mount("bind", "/app/data/parquet", False)),
        DAEMON: Place(_BUILDER, Mount("bind", f"{_DATA}/parquet", True)),
        WEBSERVER: Place(_BUILDER, Mount("bind", f"{_DATA}/parquet", False)),
    },
}  # fmt: skip


def phase_of(service: str, variables: Mapping[str, str], mounts: Iterable[Mount]) -> int | None:
    """The phase of a container, by its variables and its mounts; None when it is of none."""
    paths = {name: value for name, value in variables.items() if name in PATH_VARIABLES}
    seen = {Mount(mount.kind, mount.target, mount.writable) for mount in mounts}
    for phase, places in PHASES.items():
        place = places.get(service)
        if place and _fit(paths, place.variables) and place.mount in seen:
            return phase
    return None


def _fit(paths: Mapping[str, str], patterns: Mapping[str, str]) -> bool:
    return paths.keys() == patterns.keys() and all(fnmatchcase(paths[name], patterns[name]) for name in paths)
