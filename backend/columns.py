"""A column of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from duckdb.sqltypes import DuckDBPyType


@dataclass(frozen=True)
class Column:
    """A column: ``type`` is the text the API shows, ``sqltype`` what DuckDB says of this relation."""

    name: str
    type: str
    description: str
    sqltype: DuckDBPyType
