"""A page of a few kept rows, found without DuckDB, which takes longer to plan such a query than this to answer it.

Only where every value that is compared, sorted by or added up is a whole number underneath (``numbers``), or a text
that is equal or not; all else is DuckDB's. Why, and why the bytes are the same:
``deploy/decisions/0039-few-rows-without-duckdb.md``.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import pyarrow as pa
from orjson import dumps, loads

from backend.api.analytics import functions, literals, numbers
from backend.api.analytics.filters import Filter
from backend.api.analytics.query import Query
from backend.api.analytics.select import Output
from backend.auth import Principal
from backend.datasets import Column
from backend.kept_rows import Documents

# Beyond that it is DuckDB's, which goes through many values in less time, and on a thread: this may hold up others.
_MOST_VALUES = 12_000
_MOST_BYTES = 4 << 20

# Of the value asked for, which is bound to them, and that of a row.
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.lt,
    "gte": operator.le,
    "lt": operator.gt,
    "lte": operator.ge,
}
_FUNCTIONS: dict[str, Callable[[Iterable[int]], int]] = {"sum": sum, "min": min, "max": max}
_OF_TEXTS = {"eq", "neq", "in"}
_NULL = b"null"


class _AskDuckDB(Exception):
    """What is asked is not at hand."""


def can_be(query: Query) -> bool:
    """Whether it is a query for this, if its rows are kept and few."""
    filters = all(
        item.operator in _COMPARISONS or item.operator == "in"
        if numbers.has(item.column)
        else _is_text(item.column) and item.operator in _OF_TEXTS
        for item in query.filters
    )
    if query.grouped:
        return filters and all(map(_can_be_grouped, query.columns))
    keys = all(order.by.function is None and numbers.has(order.by) for order in query.order)
    return filters and keys and all(column.function is None for column in query.columns)


def page(kept: Documents, query: Query, caller: Principal) -> tuple[bytes | memoryview, int] | None:
    """The page's rows as JSON with commas between, and how many were found: one more where there is a next page.

    None where DuckDB has to be asked. The query is one that ``can_be``.
    """
    try:
        rows = _Rows(kept, query, caller)
        chosen = list(range(rows.count))
        for item in query.filters:
            chosen = rows.filtered(chosen, item)
        return _groups(rows, chosen, query) if query.grouped else _page(rows, chosen, query)
    except _AskDuckDB:
        return None


def _page(rows: _Rows, chosen: list[int], query: Query) -> tuple[bytes | memoryview, int]:
    for order in reversed(query.order):
        chosen.sort(key=rows.numbers(order.by.source).__getitem__, reverse=order.descending)
    found = chosen[query.offset : query.offset + query.limit + 1]
    shown = found[: query.limit]
    if query.whole_rows:
        return rows.whole(shown, rising=not query.order), len(found)
    return _objects(query.columns, rows.json([column.source for column in query.columns], shown)), len(found)


def _groups(rows: _Rows, chosen: list[int], query: Query) -> tuple[bytes, int]:
    """The page of groups, in the order asked for, and in that of what they are grouped by."""
    by = [column for column in query.columns if not column.aggregates]
    members: dict[tuple[int | bytes, ...], list[int]] = {}
    for row, key in zip(chosen, zip(*(rows.keys(column, chosen) for column in by), strict=True), strict=False):
        members.setdefault(key, []).append(row)
    if not by:  # one group, of no rows as well
        members[()] = chosen
    groups = list(members.values())
    values: dict[str, Sequence[int | bytes]] = {
        column.name: _aggregated(rows, column, groups) for column in query.columns if column.aggregates
    }
    values |= {column.name: [key[place] for key in members] for place, column in enumerate(by)}
    order = list(range(len(groups)))
    keys = [(order.by, order.descending, order.nulls_first) for order in query.order]
    for column, descending, nulls_first in reversed([*keys, *((column, False, False) for column in by)]):
        _sort(order, values[column.name], descending=descending, nulls_first=nulls_first)
    found = order[query.offset : query.offset + query.limit + 1]
    shown = found[: query.limit]
    columns = [_as_json(column, [values[column.name][group] for group in shown]) for column in query.columns]
    return _objects(query.columns, columns), len(found)


def _aggregated(rows: _Rows, column: Output, groups: Sequence[list[int]]) -> list[int]:
    if column.function == "count":
        if column.source:
            rows.numbers(column.source)  # none is NULL
        return list(map(len, groups))
    if not all(groups):  # of no row NULL
        raise _AskDuckDB
    value = rows.numbers(column.source).__getitem__
    function = _FUNCTIONS[str(column.function)]
    return [function(map(value, group)) for group in groups]


def _sort(order: list[int], values: Sequence[int | bytes], *, descending: bool, nulls_first: bool) -> None:
    if not values or isinstance(values[0], int):
        order.sort(key=cast("Sequence[int]", values).__getitem__, reverse=descending)
        return
    # As DuckDB, by the bytes of UTF-8, which is by code points.
    texts = [loads(value) for value in cast("Sequence[bytes]", values)]
    order.sort(key=lambda at: texts[at] or "", reverse=descending)
    order.sort(key=lambda at: texts[at] is None, reverse=nulls_first)


def _as_json(column: Output, values: Sequence[int | bytes]) -> Sequence[bytes]:
    kind = column.sqltype.id
    if kind == "varchar":
        return cast("Sequence[bytes]", values)
    found = cast("Sequence[int]", values)
    if kind == "date":
        return list(map(numbers.day_as_json, found))
    scale = literals.scale(column.sqltype) if kind == "decimal" else 0
    return [numbers.decimal_as_json(value, scale) for value in found]


def _objects(columns: Sequence[Output], values: Sequence[Sequence[bytes]]) -> bytes:
    keys = (dumps(column.name).replace(b"%", b"%%") for column in columns)
    row = b"{" + b",".join(key + b":%b" for key in keys) + b"}"
    return b",".join([row % found for found in zip(*values, strict=True)])


def _can_be_grouped(column: Output) -> bool:
    source = column.source
    if source is None or column.function == "count":
        return source is None or numbers.has(source)
    if column.function == "avg" or (not numbers.has(source) and not _is_text(source)):
        return False
    # Dates are written here, and other moments are not.
    is_date, is_text = source.sqltype.id == "date", _is_text(source)
    if column.function == functions.TRUNC:
        return is_date
    return is_date or (is_text and column.function is None) or literals.is_number(source.sqltype)


def _is_text(column: Column) -> bool:
    return column.sqltype.id == "varchar" and column.type == "VARCHAR"


class _Rows:
    """The caller's rows, counted from 0: side by side in all that are kept."""

    def __init__(self, kept: Documents, query: Query, caller: Principal) -> None:
        self._kept = kept
        self._first, end = self._span(query.dataset.user_column, caller)
        self.count = end - self._first
        columns = 1 if query.whole_rows else len(query.columns)
        values = self.count * (columns + len(query.filters) + len(query.order))
        if values > _MOST_VALUES or kept.cells.bytes_of(self._first, end) * columns > _MOST_BYTES:
            raise _AskDuckDB

    def filtered(self, chosen: list[int], item: Filter) -> list[int]:
        """Those of these rows that the condition holds for."""
        if _is_text(item.column):
            return self._with_text(chosen, item)
        values = self.numbers(item.column)
        asked = [numbers.of_literal(text, item.column.sqltype) for text in item.values]
        holds = set(asked).__contains__ if item.operator == "in" else partial(_COMPARISONS[item.operator], asked[0])
        if item.negated:
            return [row for row in chosen if not holds(values[row])]
        return [row for row in chosen if holds(values[row])]

    def numbers(self, column: Column | None) -> list[int]:
        """The column's value in each row."""
        found = self._kept.cells.numbers.get(column.name) if column else None
        if found is None:
            raise _AskDuckDB
        return found[self._first : self._first + self.count].tolist()

    def json(self, columns: Iterable[Column | None], chosen: Iterable[int]) -> list[list[bytes]]:
        """The columns' values in each of these rows, as JSON."""
        names = [column.name for column in columns if column]
        found = self._kept.cells.values(names, [self._first + row for row in chosen])
        if found is None:
            raise _AskDuckDB
        return found

    def keys(self, column: Output, chosen: Iterable[int]) -> list[int] | list[bytes]:
        """What tells groups apart by this column, of each of these rows."""
        if column.source and _is_text(column.source):
            return self.json([column.source], chosen)[0]
        values = self.numbers(column.source)
        if not column.unit:
            return [values[row] for row in chosen]
        return [numbers.truncated(values[row], column.unit) for row in chosen]

    def whole(self, chosen: Iterable[int], *, rising: bool) -> memoryview:
        """These rows as they are kept."""
        return self._kept.page(pa.array([self._first + row for row in chosen], pa.int64()), rising=rising)

    def _span(self, user: Column | None, caller: Principal) -> tuple[int, int]:
        if user is None or caller.all_rows:
            return 0, self._kept.count
        cells = self._kept.cells
        if user.name not in cells.rising or not literals.is_number(user.sqltype):
            raise _AskDuckDB
        values, wanted = cells.numbers[user.name], numbers.of_literal(str(caller.user_id), user.sqltype)
        return bisect_left(values, wanted), bisect_right(values, wanted)

    def _with_text(self, chosen: list[int], item: Filter) -> list[int]:
        if not item.values or not all(text.isprintable() for text in item.values):
            raise _AskDuckDB
        asked = {dumps(text) for text in item.values}
        wanted = (item.operator == "neq") is item.negated
        # Of NULL no condition holds, nor its opposite.
        values = zip(chosen, self.json([item.column], chosen)[0], strict=True)
        return [row for row, text in values if text != _NULL and (text in asked) is wanted]
