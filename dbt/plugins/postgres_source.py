"""dbt-duckdb plugin: what must be there before ``source_db`` can be attached from PostgreSQL."""  # noqa: INP001 - no package: dbt finds it by path

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

WHEEL = "duckdb_extension_postgres_scanner"
PASSWORD_VARIABLE = "DBT_ENV_SECRET_SOURCE_PASSWORD"  # noqa: S105 - the variable's name


def extension_path() -> Path:
    """The postgres extension for this DuckDB, from its wheel.

    Raises RuntimeError when the wheel is not installed, or is one for another version of DuckDB.
    """
    wheel = f"{WHEEL.replace('_', '-')}=={duckdb.__version__}"
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"DuckDB's postgres extension is not installed (install {wheel})")
    extensions = Path(spec.origin).parent / "extensions"
    path = extensions / f"v{duckdb.__version__}" / "postgres_scanner.duckdb_extension"
    if not path.is_file():
        found = ", ".join(sorted(version.name for version in extensions.glob("v*"))) or "none"
        raise RuntimeError(
            f"DuckDB {duckdb.__version__} needs its own postgres extension, "
            f"found {found} in {extensions} (install {wheel})"
        )
    return path


def literal(value: object) -> str:
    """The value as a string literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


class Plugin(BasePlugin):
    """Loads the extension and creates the secret that the profile's ``attach`` names.

    dbt-duckdb's own ``secrets:`` come too early: it creates them before any plugin could have loaded the extension
    that knows their type. The password never enters the profile, so dbt has none to print.
    """

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Take ``secret`` (its name), ``host``, ``port``, ``database`` and ``user`` from the profile."""
        self._config = plugin_config

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Load the extension, create the secret. Raises RuntimeError when the password's variable is not set."""
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            raise RuntimeError(f"{PASSWORD_VARIABLE} is not set: the password of the source's role")
        conn.execute(f"LOAD {literal(extension_path())}")
        options = {key: self._config[key] for key in ("host", "port", "database", "user")}
        pairs = ", ".join(f"{key} {literal(value)}" for key, value in {**options, "password": password}.items())
        conn.execute(f"CREATE OR REPLACE SECRET {self._config['secret']} (TYPE postgres, {pairs})")
