"""The obvious design, for control: the same API, but each request opens DuckDB anew on the files of a directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from backend.datasets import Dataset, describe
from backend.manifest import label_for

from .raced import Raced


@dataclass(frozen=True)
class Connection:
    """What the API's endpoints ask of one."""

    datasets: dict[str, Dataset]
    execute: Callable[..., duckdb.DuckDBPyConnection]
    snapshot: None = None
    last_refresh: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def rows_of(self, dataset: Dataset, _user_id: int | None) -> Dataset:
        """It reads no part of one."""
        return dataset

    def hold(self) -> None:
        """There is nothing to hold."""

    def interrupt(self) -> None:
        """Nobody goes away, and nothing takes long."""


class Naive:
    """Stands in for ``backend.duckdb.client.Database``. Columns are looked up once; all else is per request."""

    def __init__(self, directory: Path, files: Raced | None = None) -> None:
        self.errors: list[duckdb.Error] = []
        self._files = files
        with self._connect() as connection:
            self._datasets = {
                path.stem: self._dataset(connection, path) for path in sorted(directory.glob("*.parquet"))
            }

    def read(self, work: Callable[[Connection], Any], _snapshot: str | None = None) -> Any:
        with self._connect() as connection:

            def execute(
                sql: str, params: list[Any] | None = None, *, on: Dataset, form: str | None = None
            ) -> duckdb.DuckDBPyConnection:
                return connection.execute(sql, params)

            try:
                return work(Connection(self._datasets, execute))
            except duckdb.Error as error:
                self.errors.append(error)
                raise

    def state(self, _snapshot: str | None = None) -> None:
        """Its states have no names to keep answers by."""

    def keep_rows(self, _forms: Any) -> None:
        """It keeps none."""

    def close(self) -> None:
        """Nothing is open between requests."""

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"threads": 2})
        connection.execute("SET TimeZone = 'UTC'")
        if self._files:
            connection.register_filesystem(self._files)
        return connection

    def _dataset(self, connection: duckdb.DuckDBPyConnection, path: Path) -> Dataset:
        relation = f"read_parquet('{'raced://' if self._files else ''}{path}')"
        columns = describe(connection, relation, {})
        return Dataset(path.stem, label_for(path.stem), "", columns, relation, "file_row_number")
