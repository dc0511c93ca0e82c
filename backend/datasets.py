"""Datasets: the marts as the API shows them, the same whether they are Parquet files or tables of a DuckDB file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from backend.manifest import USER_COLUMN
from backend.names import folded
from backend.quoting import quoted

# It needs pyarrow, which a build does without: importing that takes longer than the audit.
if TYPE_CHECKING:
    from backend.kept_rows import KeptRows

# What Parquet has no type for comes back from it as its nearest relative. The DuckDB file keeps the original, and
# both must show the same.
_PARQUET_TYPES = {"timestamp_s": "TIMESTAMP", "timestamp_ms": "TIMESTAMP", "enum": "VARCHAR", "bit": "VARCHAR"}


@dataclass(frozen=True)
class Column:
    """A column: ``type`` is the text the API shows, ``sqltype`` what DuckDB says of this relation.

    ``bounded``: it is known that all its moments are of years with four digits.
    """

    name: str
    type: str
    description: str
    sqltype: DuckDBPyType
    bounded: bool = False


@dataclass(frozen=True)
class Dataset:
    """A mart that can be queried.

    ``relation`` is SQL for a FROM clause; ``position`` is a column of it that numbers the rows in the order the mart
    was written in, not among ``columns``. ``rows`` is None where nobody has counted them yet. ``scope`` is as in
    ``backend.manifest.MartSpec``. ``table`` says that ``relation`` is in memory, where the session is that of
    ``backend.duckdb.tables``; ``kept`` are its rows by their position, in the forms that somebody made.
    """

    id: str
    name: str
    description: str
    columns: tuple[Column, ...]
    relation: str
    position: str
    rows: int | None = None
    scope: str = USER_COLUMN
    table: bool = False
    kept: Mapping[str, KeptRows] = field(default_factory=dict)

    @functools.cached_property
    def user_column(self) -> Column | None:
        """The column that says whose row it is; None when the dataset belongs to everybody."""
        scope = folded(self.scope)
        return next((column for column in self.columns if folded(column.name) == scope), None)

    def column(self, name: str) -> Column | None:
        """The column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


def type_text(sqltype: DuckDBPyType) -> str:
    """The type as every phase shows it: what its column is after a round trip through Parquet.

    Types that lose something on that way keep their own name; only a DuckDB file has them (``backend.parquet_types``).
    """
    if sqltype.id in _PARQUET_TYPES:
        return _PARQUET_TYPES[sqltype.id]
    if sqltype.id in ("list", "array"):
        return f"{type_text(_child(sqltype, 0))}[]"
    if sqltype.id == "map":
        return f"MAP({type_text(_child(sqltype, 0))}, {type_text(_child(sqltype, 1))})"
    if sqltype.id == "struct" and any(type_text(child) != str(child) for _, child in children(sqltype)):
        fields = (f"{quoted(name)} {type_text(child)}" for name, child in children(sqltype))
        return str(DuckDBPyType(f"STRUCT({', '.join(fields)})"))  # which has no quotes where DuckDB has none
    return str(sqltype)


def children(sqltype: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """Names and types inside a LIST (``child``), ARRAY, MAP (``key``, ``value``) or STRUCT (its fields); else none."""
    if sqltype.id not in ("list", "array", "map", "struct"):
        return []
    return [(name, child) for name, child in sqltype.children if isinstance(child, DuckDBPyType)]


def _child(sqltype: DuckDBPyType, index: int) -> DuckDBPyType:
    return children(sqltype)[index][1]


def describe(connection: DuckDBPyConnection, relation: str, descriptions: dict[str, str]) -> tuple[Column, ...]:
    """Columns of the relation (SQL for a FROM clause), in order, with the descriptions given by name."""
    fields = connection.execute(f"SELECT * FROM {relation} LIMIT 0").description or []  # noqa: S608 - quoted by us
    return tuple(
        Column(name=field[0], type=type_text(field[1]), description=descriptions.get(field[0], ""), sqltype=field[1])
        for field in fields
    )


NUMBERED = {"rowid", "file_row_number"}
"""DuckDB's own columns that number the rows of a table and of a file."""


def numbered(relation: str, columns: Sequence[Column], position: str | None) -> tuple[str, str]:
    """The relation, and a column of it that numbers its rows: ``position``, which DuckDB has for that; of a view, None.

    A mart's own column of that name hides DuckDB's. Then rows are counted as they are read, which is slower.
    """
    taken = {folded(column.name) for column in columns}
    if position and position not in taken:
        return relation, position
    position = position or "position"
    while position in taken:
        position += "_"
    return f"(SELECT *, row_number() OVER () AS {position} FROM {relation})", position  # noqa: S608 - quoted by us
