"""A query as SQL. Names are the dataset's, or printable aliases, and quoted; all else that came is a parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from duckdb.sqltypes import DuckDBPyType

from backend.api.analytics import functions, literals, numbers
from backend.api.analytics.filters import COMPARISONS, PATTERNS, STATES, Filter
from backend.api.analytics.query import Query
from backend.api.analytics.select import Output, whole
from backend.api.analytics.text import json_object
from backend.auth import Principal
from backend.datasets import NUMBERED, Column, Dataset
from backend.quoting import quoted

_SUMMABLE_DIGITS = 20  # no mart has enough numbers of so many for a sum of more than 38

Statement = tuple[str, list[Any]]
Shape = Callable[[str, DuckDBPyType], str]
"""SQL for the form that a value is wanted in, from SQL for the value and its type."""


def documents(query: Query, caller: Principal) -> Statement:
    """SQL for the rows of ``rows`` as JSON, each a text of its own, with a comma after it."""
    sql, params = rows(query, caller)
    return f"SELECT concat({json_object(query.columns)}, ',') FROM ({sql})", params  # noqa: S608 - made here


def all_documents(columns: tuple[Column, ...], relation: str) -> str:
    """SQL for all rows of a table as JSON, as ``documents`` has them, in the order of their positions.

    And for those of its columns that are whole numbers underneath as such (``numbers``), by their names.
    """
    sql = all_rows(columns, relation, lambda value, _: value)
    exact = ((column, numbers.expression(column)) for column in columns)
    others = "".join(f", {number} AS {quoted(column.name)}" for column, number in exact if number)
    return f"SELECT concat({json_object(columns)}, ','){others} FROM ({sql})"  # noqa: S608 - made here


def all_rows(columns: tuple[Column, ...], relation: str, shape: Shape) -> str:
    """SQL for all rows of a table, as ``scan`` has them, in the order of their positions."""
    dataset = Dataset(id="", name="", description="", columns=columns, relation=relation, position="rowid")
    query = Query(dataset, tuple(whole(column) for column in columns), (), (), limit=0, offset=0)
    return _selection(query, Principal(user_id=0, all_rows=True), shape)[0]


def positions(query: Query, caller: Principal) -> Statement:
    """SQL for the positions of the rows of ``rows``, which are rows of the dataset."""
    where, params = _where(query, caller)
    sql = f"SELECT t.{query.dataset.position} FROM {query.dataset.relation} AS t{where}"  # noqa: S608 - validated
    return _page(sql, params, query)


def rows(query: Query, caller: Principal) -> Statement:
    """SQL for the page's rows and one more, which tells whether there is a next page."""
    return _page(*_selection(query, caller), query)


def _page(sql: str, params: list[Any], query: Query) -> Statement:
    keys = [
        f"{_expression(o.by, query)} {'DESC' if o.descending else 'ASC'} NULLS {'FIRST' if o.nulls_first else 'LAST'}"
        for o in query.order
    ]
    # Ties come in an order of their own, the same on every page and in every phase: groups in that of what they are
    # grouped by; rows, as all rows without an order, in the order the mart was written in. By position that costs
    # nothing measurable where there is something to sort by (100,000 rows: 1.8 ms for a user's newest 100, as without
    # it; 5.8 ms over all users, 6.2 ms with every column as a tie-breaker instead).
    ties = _groups(query) if query.grouped else [f"t.{query.dataset.position}"]
    ordered = {_expression(key.by, query) for key in query.order}
    order = "" if _as_written(query) else ", ".join(keys + [tie for tie in ties if tie not in ordered])
    return f"{sql}{f' ORDER BY {order}' if order else ''} LIMIT ? OFFSET ?", [*params, query.limit + 1, query.offset]


def _as_written(query: Query) -> bool:
    """Whether DuckDB by itself gives the page's rows in the order of their positions.

    It does for one table or file (its documentation: Order Preservation), and need not for a subquery or a join, which
    ``in`` is. To sort by position as well takes ten times as long (10,000 of 100,000 rows: 6 ms, so 0.6).
    """
    joins = any(item.operator == "in" for item in query.filters)
    return not (query.order or query.grouped or joins) and query.dataset.position in NUMBERED


def scan(query: Query, caller: Principal, shape: Shape) -> tuple[Statement, int]:
    """SQL for the rows of an export, and how many come before them.

    Without an order DuckDB gives rows as they were written, and holds none of them back; sorting by position instead
    would hold them all.
    """
    if not (query.order or query.grouped):
        return _selection(query, caller, shape), query.offset
    # Shaped after sorting: a million rows that fit into DuckDB's memory as numbers don't as text.
    sql, params = rows(query, caller)
    columns = ", ".join(f"{shape(quoted(c.name), c.sqltype)} AS {quoted(c.name)}" for c in query.columns)
    return (f"SELECT {columns} FROM ({sql})", params), 0  # noqa: S608 - made here


def total(query: Query, caller: Principal) -> Statement:
    """SQL for the number of rows on all pages."""
    sql, params = _selection(query, caller)
    return f"SELECT count(*) FROM ({sql})", params  # noqa: S608 - made here


def count(dataset: Dataset, caller: Principal) -> Statement:
    """SQL for the number of rows the caller may see."""
    scope, params = _scope(dataset, caller)
    where = f" WHERE {scope}" if scope else ""
    return f"SELECT count(*) FROM {dataset.relation} AS t{where}", params  # noqa: S608 - made here


def _selection(query: Query, caller: Principal, shape: Shape = lambda value, _: value) -> Statement:
    columns = ", ".join(f"{shape(_expression(c, query), c.sqltype)} AS {quoted(c.name)}" for c in query.columns)
    where, params = _where(query, caller)
    groups = _groups(query) if query.grouped else []
    group_by = f" GROUP BY {', '.join(groups)}" if groups else ""
    return f"SELECT {columns} FROM {query.dataset.relation} AS t{where}{group_by}", params  # noqa: S608 - validated


def _groups(query: Query) -> list[str]:
    return [_expression(column, query) for column in query.columns if not column.aggregates]


def _expression(output: Output, query: Query) -> str:
    """What the output is made of, with qualified names: a bare one in ORDER BY would mean the output's own name."""
    if output.source is None:
        return "count(*)"
    value = _value(output.source)
    floating = literals.family(output.source.sqltype) == "double"
    if floating:
        # -0.0 is 0.0 to GROUP BY, min and DuckDB's Parquet writer: which of the two is left is chance, so none is.
        value = f"({value} + 0)"
    match output.function:
        case None:
            return value
        case functions.TRUNC:
            return f"CAST(date_trunc('{output.unit}', CAST({value} AS TIMESTAMP)) AS {output.type})"
        case "sum" | "avg" if floating:
            # The sum of floats depends on the order of adding, and threads have none (decision 0012).
            return f"{output.function}({value} ORDER BY t.{query.dataset.position})"
        case "sum":
            total = f"sum({value})"
            if literals.digits(output.source.sqltype) > _SUMMABLE_DIGITS:
                # Through text, which alone checks that the sum of decimals has no more than 38 digits.
                total = f"CAST({total} AS VARCHAR)"
            return f"CAST({total} AS {output.type})"
        case function:
            return f"{function}({value})"


def _where(query: Query, caller: Principal) -> Statement:
    scope, params = _scope(query.dataset, caller)
    conditions = [scope] if scope else []
    for item in query.filters:
        condition, values = _condition(item)
        conditions.append(f"NOT ({condition})" if item.negated else condition)
        params += values
    return (" WHERE " + " AND ".join(f"({condition})" for condition in conditions) if conditions else ""), params


def _condition(item: Filter) -> Statement:
    value, type_, values = _value(item.column), item.column.type, list(item.values)
    if item.operator == "is":
        return f"{value} IS {STATES[item.values[0]]}", []
    if item.operator in PATTERNS:
        return f"regexp_full_match(CAST({value} AS VARCHAR), ?, '{PATTERNS[item.operator]}')", values
    if type_ == "JSON":  # compared as the text that it is: what the caller wrote need be no JSON
        value, type_ = f"CAST({value} AS VARCHAR)", "VARCHAR"
    if item.operator == "in":
        # One parameter, as many take long to plan (50,000: 2.7 s; so 0.2 s). An empty list has nothing, not even NULL.
        return f"{value} IN (SELECT unnest(CAST(? AS {type_}[])))", [values]
    return f"{value} {COMPARISONS[item.operator]} CAST(? AS {type_})", values


def _scope(dataset: Dataset, caller: Principal) -> Statement:
    """The condition that keeps other users' rows out: from the token, and joined with AND to whatever is asked."""
    column = dataset.user_column
    if column is None or caller.all_rows:
        return "", []
    if literals.is_number(column.sqltype):
        return f"{_name(column.name)} = ?", [caller.user_id]
    # As text: DuckDB would make numbers of all that is in the column, and fail on the first that is none.
    return f"CAST({_name(column.name)} AS VARCHAR) = ?", [str(caller.user_id)]


def _value(column: Column) -> str:
    """The column in the type that the API shows, so that a file compares and sorts as Parquet does."""
    name = _name(column.name)
    return name if str(column.sqltype) == column.type else f"CAST({name} AS {column.type})"


def _name(column: str) -> str:
    return f"t.{quoted(column)}"
