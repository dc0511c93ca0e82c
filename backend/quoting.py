"""Names and texts as SQL, where a statement has no place for a parameter."""

import glob
from pathlib import Path


def quoted(identifier: str) -> str:
    """The identifier as SQL, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string literal, for the few places (paths in views) where no parameter can stand."""
    return "'" + text.replace("'", "''") + "'"


def only(path: str | Path) -> str:
    """The pattern that finds this file and no other: DuckDB takes every path for a pattern."""
    return glob.escape(str(path))


def parquet_file(path: str | Path) -> str:
    """SQL for a FROM clause: this Parquet file, without the columns that DuckDB makes of ``a=b`` in a path."""
    return f"read_parquet({literal(only(path))}, hive_partitioning = false)"
