"""dbt-duckdb plugin: lets a model's materialization note what the file looks like that it just wrote."""  # noqa: INP001 - no package: dbt finds it by path

import hashlib
from contextlib import suppress
from pathlib import Path

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin


def file_sha256(path: str) -> str:
    """SHA-256 of the file's bytes, in hexadecimal. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Plugin(BasePlugin):
    """The SQL function ``file_sha256(path)``; DuckDB's own would need the whole file in memory as one value."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Register the function."""
        with suppress(duckdb.CatalogException):  # dbt connects again after a failed attachment, and finds it there
            conn.create_function("file_sha256", file_sha256, ["VARCHAR"], "VARCHAR", side_effects=True)  # type: ignore[list-item, arg-type]
