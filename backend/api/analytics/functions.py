"""What a query can make of a column: which functions its type has, and the type of what comes out."""

from __future__ import annotations

import functools

from duckdb.sqltypes import BIGINT, DOUBLE, DuckDBPyType

from backend.api.analytics import literals
from backend.datasets import Column

TRUNC = "trunc"

# Without 128 bits: their sum is larger than any type that Parquet has.
_INTEGERS = {"tinyint", "smallint", "integer", "bigint"}
_UNITS = {
    "date": ("year", "quarter", "month", "week", "day"),
    "timestamp": ("year", "quarter", "month", "week", "day", "hour", "minute"),
    "timestamp with time zone": ("year", "quarter", "month", "week", "day", "hour", "minute"),
}


def applicable(column: Column) -> tuple[str, ...]:
    """Names of the functions that take this column."""
    family = literals.family(column.sqltype)
    return (
        "count",
        *(("sum", "avg") if family in _INTEGERS | {"decimal", "double"} else ()),
        *(("min", "max") if literals.expected(column.sqltype) else ()),
        *((TRUNC,) if family in _UNITS else ()),
    )


def units(column: Column) -> tuple[str, ...]:
    """What ``trunc`` can cut this column's moments to."""
    return _UNITS[literals.family(column.sqltype)]


def result_type(function: str, column: Column) -> DuckDBPyType:
    """The type that the function makes of the column: one that every answer format has, and that holds every sum."""
    if function == "count":
        return BIGINT
    if function in ("min", "max", TRUNC):
        return column.sqltype
    family = literals.family(column.sqltype)
    if function == "avg" or family == "double":
        return DOUBLE
    return _decimal(literals.scale(column.sqltype) if family == "decimal" else 0)


@functools.cache
def _decimal(scale: int) -> DuckDBPyType:
    return DuckDBPyType(f"DECIMAL(38,{scale})")
