"""Builds the marts twice from one moment of the source: as tables, as phase 0 does, and as Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb

from backend.quoting import literal, parquet_file, quoted
from deploy.pipeline.dbt import Dbt, provide_password
from deploy.pipeline.parity.compare import Side
from deploy.pipeline.project import DbtProject

STDERR = 2  # what dbt prints is no part of the report


@dataclass
class Sides:
    """Marts as tables and as Parquet files, all below the directory ``work``, which nobody else knows of."""

    work: Path

    def attach(self, connection: duckdb.DuckDBPyConnection) -> tuple[Side, Side]:
        """The marts of both, old and new. Raises duckdb.Error."""
        new = {path.stem: parquet_file(path) for path in self.parquet.iterdir()}
        return attach_tables(connection, self.tables, "old"), new

    @property
    def tables(self) -> Path:
        """The DuckDB file of the old side."""
        return self.work / "tables.duckdb"

    @property
    def parquet(self) -> Path:
        """The directory of the new one."""
        return self.work / "parquet"


@dataclass
class Twins(Sides):
    """Both builds."""

    names: ClassVar = ("built as tables", "built as Parquet")

    def freeze(self) -> dict[str, str]:
        """Copy the source as it is now; fingerprint of each of its tables. Raises BuildFailed or duckdb.Error."""
        landing = self.work / "landing.duckdb"
        provide_password()
        self._dbt({"DUCKDB_PATH": str(landing)}).land_sources()
        with duckdb.connect(str(self.source)) as connection:
            connection.execute(f"ATTACH {literal(str(landing))} AS landing (READ_ONLY)")
            landed = connection.execute("SELECT table_name, fingerprint FROM landing.landed._landing").fetchall()
            for table, _ in landed:
                connection.execute(f"CREATE TABLE main.{quoted(table)} AS FROM landing.landed.{quoted(table)}")
        landing.unlink()
        return dict(landed)

    def build(self) -> None:
        """Build both from the frozen source. Raises BuildFailed."""
        self.parquet.mkdir()
        self._build({"DUCKDB_PATH": str(self.tables), "MART_BUILD_DIR": ""})
        self._build({"DUCKDB_PATH": str(self.work / "build.duckdb"), "MART_BUILD_DIR": str(self.parquet)})

    @property
    def source(self) -> Path:
        """The frozen source, once there is one."""
        return self.work / "source.duckdb"

    @property
    def marts(self) -> list[str]:
        """What the dbt project that was built declares."""
        return list(DbtProject.read(self._target / "manifest.json").mart_nodes)

    def _build(self, variables: Mapping[str, str]) -> None:
        self._dbt({**variables, "DBT_TARGET": "embedded", "SOURCE_DUCKDB_PATH": str(self.source)}).run()

    def _dbt(self, variables: Mapping[str, str]) -> Dbt:
        return Dbt(self._target, variables, stdout=STDERR)

    @property
    def _target(self) -> Path:
        return self.work / "target"


def attach_tables(connection: duckdb.DuckDBPyConnection, file: Path, alias: str) -> Side:
    """Attach a DuckDB file for reading; the tables in its schema ``main``. Raises duckdb.Error."""
    connection.execute(f"ATTACH {literal(str(file))} AS {alias} (READ_ONLY)")
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main'", [alias]
    ).fetchall()
    return {name: f"{alias}.main.{quoted(name)}" for (name,) in names}
