"""A table in memory, in a database of its own: compressed whoever reads others, and gone as soon as it is detached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa

from backend.datasets import Column, Dataset, numbered
from backend.kept_rows import KeptRows
from backend.quoting import quoted

BLOCK_BYTES = 262_144
"""What a table takes at least: a block of DuckDB's."""

_POSITION = "rowid"
_BATCH_ROWS = 20_480
_MOMENTS = ("date", "timestamp", "timestamp with time zone")
_HELD = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
Describing = Callable[[duckdb.DuckDBPyConnection, str], tuple[Column, ...]]
"""Gives the columns of a relation."""


@dataclass(frozen=True)
class Form:
    """A form to keep rows in.

    ``sql`` gives all rows, in the order they are stored in, of a table of these columns and this name in SQL. ``made``
    is what is kept of its result; raises TooLarge where that takes more than so many bytes. ``of_users``: whether those
    of a single user are kept so, too.
    """

    sql: Callable[[tuple[Column, ...], str], str]
    made: Callable[[tuple[Column, ...], pa.RecordBatchReader, int], KeptRows]
    of_users: bool = False


@dataclass(frozen=True)
class Table:
    """``size`` in bytes, without what is kept; all else as in ``backend.datasets.Dataset``."""

    relation: str
    position: str
    size: int
    columns: tuple[Column, ...]
    kept: Mapping[str, KeptRows] = field(default_factory=dict)

    @property
    def size_with_kept(self) -> int:
        """Bytes of all of it."""
        return self.size + sum(rows.size for rows in self.kept.values())

    @property
    def counts_positions(self) -> bool:
        """Whether positions are counted by DuckDB, from 0."""
        return self.position == _POSITION

    def of(self, dataset: Dataset) -> Dataset:
        """The dataset, whose rows these are, read here."""
        return replace(
            dataset, columns=self.columns, relation=self.relation, position=self.position, table=True, kept=self.kept
        )


def made(
    instance: duckdb.DuckDBPyConnection, name: str, select: str, params: Sequence[Any], columns_of: Describing
) -> Table:
    """A table of what is selected, in the database ``name``.

    Its size is that of all that was made and dropped meanwhile, so one is made or dropped at a time. Raises
    duckdb.Error, and what ``columns_of`` raises; then there may be a database to be detached.
    """
    relation = f"{quoted(name)}.main.mart"
    with closing(instance.cursor()) as cursor:
        before = held(cursor)
        cursor.execute(f"ATTACH ':memory:' AS {quoted(name)} (COMPRESS)")
        cursor.execute(f"CREATE TABLE {relation} AS {select}", params)
        cursor.execute(f"CHECKPOINT {quoted(name)}")  # which is what compresses it
        columns = _bounded(cursor, relation, columns_of(cursor, relation))
        relation, position = numbered(relation, columns, _POSITION)
        return Table(relation, position, max(0, held(cursor) - before), columns)


def keep(instance: duckdb.DuckDBPyConnection, table: Table, form: Form, room: int) -> KeptRows:
    """The table's rows in that form.

    Raises TooLarge, duckdb.Error, pyarrow.ArrowException, and as OSError what DuckDB fails on after the first rows.
    """
    with closing(instance.cursor()) as cursor:
        found = cursor.execute(form.sql(table.columns, table.relation)).to_arrow_reader(_BATCH_ROWS)
        return form.made(table.columns, found, room)


def detach(instance: duckdb.DuckDBPyConnection, name: str) -> None:
    """Who reads the table reads on; who begins to is refused, and asks the Parquet file."""
    with suppress(duckdb.Error), closing(instance.cursor()) as cursor:
        cursor.execute(f"DETACH DATABASE IF EXISTS {quoted(name)}")


def held(cursor: duckdb.DuckDBPyConnection) -> int:
    """Bytes of all tables of the instance."""
    size: int = cursor.execute(_HELD).fetchall()[0][0]
    return size


def _bounded(cursor: duckdb.DuckDBPyConnection, relation: str, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The columns, of which it is known now which have no other years than from 1000 to 9999: these are shorter SQL."""
    moments = [quoted(column.name) for column in columns if column.sqltype.id in _MOMENTS]
    if not moments:
        return columns
    bounded = ", ".join(f"coalesce(min({m}) >= '1000-01-01' AND max({m}) < '10000-01-01', true)" for m in moments)
    found = cursor.execute(f"SELECT {bounded} FROM {relation}").fetchall()[0]  # noqa: S608 - made here
    known = dict(zip(moments, found, strict=True))
    return tuple(replace(column, bounded=known.get(quoted(column.name), False)) for column in columns)
