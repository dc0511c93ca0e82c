"""Every path and the environment variable it comes from; no other module knows one."""

import os
from pathlib import Path

from backend.errors import ConfigError

REPO_ROOT = Path(__file__).resolve().parents[1]
DBT_PROJECT_DIR = REPO_ROOT / "dbt"
PAGE_DIR = REPO_ROOT / "backend" / "page"


def _optional(variable: str) -> Path | None:
    value = os.environ.get(variable, "").strip()
    return Path(value) if value else None


def _required(variable: str, purpose: str) -> Path:
    path = _optional(variable)
    if path is None:
        raise ConfigError(f"{variable} is not set: {purpose}", hint=f"set {variable}, see .env_example")
    return path


def parquet_dir() -> Path | None:
    """Root of the snapshot store (``PARQUET_DIR``); None in phase 0."""
    return _optional("PARQUET_DIR")


def duckdb_path() -> Path | None:
    """The DuckDB file (``DUCKDB_PATH``): for the backend the fallback to read, for dbt the file it builds in."""
    return _optional("DUCKDB_PATH")


def duckdb_catalog() -> Path | None:
    """What the backend is told of a DuckDB file that is somebody's own (``DUCKDB_CATALOG``); None elsewhere."""
    return _optional("DUCKDB_CATALOG")


def build_database() -> Path:
    """The DuckDB file that dbt builds in (``DUCKDB_PATH``). Raises ConfigError where it is not set."""
    return _required("DUCKDB_PATH", "dbt needs a DuckDB file to build in")


def legacy_duckdb_path() -> Path | None:
    """The phase-0 file that phase 1 keeps fresh for a rollback (``LEGACY_DUCKDB_PATH``); None elsewhere."""
    return _optional("LEGACY_DUCKDB_PATH")


def phase_0_file() -> Path | None:
    """The DuckDB file that phase 0 shows, where this phase writes it: 0 by building in it, 1 by refreshing it."""
    return legacy_duckdb_path() if parquet_dir() else duckdb_path()


def source_database() -> Path:
    """The DuckDB file that is the source of the target ``embedded``. Raises ConfigError where it is not set."""
    return _required("SOURCE_DUCKDB_PATH", "the target embedded reads its source from a DuckDB file")


def dbt_target_dir() -> Path:
    """Where dbt's parsed manifest lies, for Dagster (``DBT_TARGET_PATH``, default ``dbt/target``)."""
    return _optional("DBT_TARGET_PATH") or DBT_PROJECT_DIR / "target"


def adopted_project_dir() -> Path | None:
    """The dbt project to build instead of our example (``DBT_PROJECT_DIR``); None where that is the example itself.

    Raises ConfigError where there is no dbt project.
    """
    path = _optional("DBT_PROJECT_DIR")
    if path is None or path.resolve() == DBT_PROJECT_DIR:
        return None
    if not (path / "dbt_project.yml").is_file():
        raise ConfigError(
            f"DBT_PROJECT_DIR is {path}, which has no dbt_project.yml", hint="name the directory of a dbt project"
        )
    return path.resolve()


def rollout_dir() -> Path:
    """Where the rollout keeps its journal, its lock and its report (``ROLLOUT_DIR``, default ``data/rollout``)."""
    return _optional("ROLLOUT_DIR") or REPO_ROOT / "data" / "rollout"


def secret_file(name: str) -> Path:
    """The file that holds the secret ``name``, below ``SECRETS_DIR`` (default ``/run/secrets``)."""
    return (_optional("SECRETS_DIR") or Path("/run/secrets")) / name


def read_secret(name: str) -> str:
    """Content of a secret's file, stripped. Raises ConfigError when it is missing or empty."""
    path = secret_file(name)
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"reading the secret {name!r} from {path} failed: {error.strerror}",
            hint="create it with `make secrets`, or point SECRETS_DIR at the right directory",
        ) from error
    if not value:
        raise ConfigError(f"the secret file {path} is empty", hint="delete it and run `make secrets`")
    return value


def read_optional_secret(name: str) -> str | None:
    """Content of a secret's file, stripped; None when it is missing or empty. Raises ConfigError as above."""
    path = secret_file(name)
    return read_secret(name) if path.exists() and path.stat().st_size else None
