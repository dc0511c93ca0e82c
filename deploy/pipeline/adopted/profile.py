"""The profile that an adopted project is built with: its own, but for where builds write, and threads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml
from jinja2 import Environment, StrictUndefined, TemplateError

from backend.errors import ConfigError


@dataclass(frozen=True)
class Profile:
    """The chosen output of the project's ``profiles.yml``; ``output`` is as written there, Jinja and all.

    ``database`` is the file that it names, None where that is ``:memory:``.
    """

    name: str
    target: str
    output: Mapping[str, Any]
    database: Path | None

    @property
    def file_name(self) -> str:
        """What the build's own file has to be called: DuckDB names the database after it, and models may say that."""
        return self.database.name if self.database else "memory.duckdb"

    @property
    def database_name(self) -> str:
        """What DuckDB calls it: the first part of the file's name."""
        return self.file_name.lstrip(".").split(".")[0]

    def write(self, directory: Path, workspace: Path) -> None:
        """Write ``profiles.yml`` into ``directory``, for builds that write below ``workspace`` only."""
        output = {
            **self.output,
            "path": str(workspace / self.file_name),
            "external_root": str(external_root(workspace)),
        }
        if threads := os.environ.get("DBT_THREADS"):
            output["threads"] = int(threads)
        profile = {self.name: {"target": self.target, "outputs": {self.target: output}}}
        (directory / "profiles.yml").write_text(yaml.safe_dump(profile, sort_keys=False), encoding="utf-8")


def external_root(workspace: Path) -> Path:
    """Where ``external`` models without a ``location`` of their own write."""
    return workspace / "external"


def read_profile(project: Path) -> Profile:
    """The profile and target that dbt would take for ``project``.

    Looked for where dbt does: ``DBT_PROFILES_DIR``, the project, ``~/.dbt``; ``DBT_PROFILE`` and ``DBT_TARGET`` choose.
    Raises ConfigError where there is none, or none that builds in a DuckDB file.
    """
    file = _profiles_file(project)
    name = os.environ.get("DBT_PROFILE") or rendered(_read(project / "dbt_project.yml").get("profile", ""))
    profile = _chosen(_read(file), name, f"{file} has no profile {name!r}")
    target = os.environ.get("DBT_TARGET") or rendered(profile.get("target", "default"))
    output = _chosen(profile.get("outputs") or {}, target, f"the profile {name!r} of {file} has no target {target!r}")
    if (kind := rendered(output.get("type", ""))) != "duckdb":
        raise ConfigError(
            f"the target {target!r} of the profile {name!r} is of type {kind!r}, expected duckdb",
            hint="name one of dbt-duckdb in DBT_TARGET",
        )
    path = rendered(output.get("path", ":memory:"))
    if "remote" in output or ":" in path.removeprefix(":memory:"):
        raise ConfigError(
            f"the target {target!r} of the profile {name!r} builds in {path!r}, expected a DuckDB file of this machine",
            hint="name a target in DBT_TARGET that has one; what is elsewhere can be attached",
        )
    return Profile(name, target, output, None if path == ":memory:" else project / path)


def copy_database(source: Path, target: Path) -> None:
    """Copy a DuckDB file that others may use. Raises ConfigError while somebody writes to it."""
    try:
        # As long as it is open for reading nobody can write to it. Its log first: closing any descriptor of a file
        # gives up the process's locks on it.
        with duckdb.connect(str(source), read_only=True):
            for suffix in (".wal", ""):
                file = source.with_name(source.name + suffix)
                if file.is_file():
                    shutil.copyfile(file, target.with_name(target.name + suffix))
    except (duckdb.Error, OSError) as error:
        raise ConfigError(
            f"copying {source}, which the first build goes on from, failed: {error}",
            hint="wait until nobody writes to it; move it away if what is in it is not wanted",
        ) from error


def _profiles_file(project: Path) -> Path:
    named = os.environ.get("DBT_PROFILES_DIR")
    places = [Path(named)] if named else [project, Path.home() / ".dbt"]
    for place in places:
        if (place / "profiles.yml").is_file():
            return place / "profiles.yml"
    raise ConfigError(
        f"there is no profiles.yml in {' or '.join(map(str, places))}",
        hint="DBT_PROFILES_DIR names the directory that has it",
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"reading {file} failed: {error}", hint="`dbt debug` says what dbt thinks of it") from error


def _chosen(among: Mapping[str, Any], name: str, problem: str) -> Mapping[str, Any]:
    if not isinstance(among.get(name), dict):
        raise ConfigError(
            f"{problem}: there are {', '.join(among) or 'none'}", hint="DBT_PROFILE and DBT_TARGET choose"
        )
    chosen: Mapping[str, Any] = among[name]
    return chosen


def rendered(text: object, **names: object) -> str:
    """The text as dbt reads it: of Jinja, a profile has the environment's variables, and others have ``names`` as well.

    Raises ConfigError.
    """
    jinja = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - no HTML
    jinja.filters |= {name: lambda value: value for name in ("as_text", "as_native", "as_bool", "as_number")}
    try:
        return jinja.from_string(str(text)).render(env_var=_env_var, var=lambda _, default=None: default, **names)
    except TemplateError as error:
        raise ConfigError(
            f"rendering {text!r} failed: {error}", hint="`dbt debug` says what dbt thinks of it"
        ) from error


def _env_var(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ConfigError(f"the profile wants the variable {name}, which is not set", hint=f"set {name}")
    return value
