"""Which of DuckDB's types come back from Parquet with the values they had, and what to do about the others.

As measured with DuckDB 1.5.5: ``deploy/decisions/0018-types.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace

import duckdb
from duckdb.sqltypes import DuckDBPyType

from backend.datasets import children, type_text
from backend.manifest import Column
from backend.quoting import quoted

# Type: (what becomes of it, SQL that keeps the value).
_LOST = {
    "hugeint": ("is written as DOUBLE, with 15 to 17 digits", "CAST({} AS DECIMAL(38,0))"),
    "uhugeint": ("is written as DOUBLE, with 15 to 17 digits", "CAST({} AS DECIMAL(38,0))"),
    "bignum": ("is written as text, which sorts and adds up otherwise", "CAST(CAST({} AS VARCHAR) AS DECIMAL(38,0))"),
    "interval": ("keeps whole milliseconds only, up to 49 days, and none below zero", "CAST({} AS VARCHAR)"),
    "time with time zone": ("loses its offset", "CAST({} AS VARCHAR)"),
    "time_ns": ("is written as text", "CAST({} AS VARCHAR)"),
    "union": ("is written as a struct without names", "CAST({} AS VARCHAR)"),
    "variant": ("changes the types of values inside", "CAST({} AS JSON)"),
    "geometry": ("has another type whenever no row has a value", "ST_AsWKB({})"),
}

EXPORTED_AS = {"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)"}
"""What a project of one's own is spared of this: what `sum` gives of whole numbers is too common to be refused."""


def as_kept(columns: Iterable[Column]) -> tuple[Column, ...]:
    """The columns with the types that they have in Parquet. Raises duckdb.Error where one is no type."""
    return tuple(replace(column, type=type_text(_sqltype(column.type))) for column in columns)


def losses(columns: Iterable[Column]) -> list[str]:
    """Why columns of these types are not published: one sentence each, with what to write in the model instead."""
    return [found for column in columns if (found := _loss(column.name, column.type))]


def changes(columns: Iterable[Column]) -> list[str]:
    """Which columns have another type in Parquet, with the same values, and how a model has it, too."""
    columns = list(columns)
    return [
        f"column {quoted(declared.name)} is {declared.type}, in Parquet {kept.type}: "
        f"write CAST({quoted(declared.name)} AS {kept.type}) in the model"
        for declared, kept in zip(columns, as_kept(columns), strict=True)
        if declared.type != kept.type
    ]


@functools.lru_cache(maxsize=1000)  # a thousand marts have the same few types
def _sqltype(text: str) -> DuckDBPyType:
    return duckdb.type(text)


def _loss(name: str, declared: str) -> str | None:
    try:
        sqltype = _sqltype(declared)
    except duckdb.Error:
        return f"column {quoted(name)} is declared as {declared}, which is no type (the fields of a STRUCT need names)"
    part = _lost_part(sqltype)
    if part is None:
        return None
    why, instead = _LOST[part.id]
    whole = part is sqltype
    within = "" if whole else f" (within {sqltype})"
    return (
        f"column {quoted(name)} is {part}{within}, which {why} in Parquet: "
        f"write {instead.format(quoted(name) if whole else '…')} in the model, or another type that Parquet has"
    )


def _lost_part(sqltype: DuckDBPyType) -> DuckDBPyType | None:
    if sqltype.id in _LOST:
        return sqltype
    return next((lost for _, child in children(sqltype) if (lost := _lost_part(child))), None)
