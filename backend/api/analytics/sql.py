"""A query as SQL. Identifiers come from the dataset, quoted; everything the caller wrote is a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.api.analytics.encode import as_wire
from backend.api.analytics.query import OPERATORS, Query
from backend.auth import Principal
from backend.datasets import Dataset
from backend.quoting import quoted

Statement = tuple[str, list[Any]]


def rows(query: Query, caller: Principal) -> Statement:
    """SQL for the page's rows and one more, which tells whether there is a next page."""
    columns = ", ".join(f"{as_wire(_name(c.name), c.sqltype)} AS {quoted(c.name)}" for c in query.columns)
    where, params = _where(query, caller)
    # Qualified names throughout: a bare one in ORDER BY would mean the output column, which may be text by now.
    # Ties, and all rows without an order, come in the order the mart was written in: the same on every page and in
    # every phase. By position that costs nothing measurable (100,000 rows: 1.8 ms for a user's newest 100, as
    # without it; 5.8 ms over all users, 6.2 ms with every column as a tie-breaker instead).
    keys = [
        f"{_name(o.column.name)} {'DESC' if o.descending else 'ASC'} NULLS {'FIRST' if o.nulls_first else 'LAST'}"
        for o in query.order
    ]
    order = ", ".join([*keys, f"t.{query.dataset.position}"])
    sql = f"SELECT {columns} FROM {query.dataset.relation} AS t{where} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
    return sql, [*params, query.limit + 1, query.offset]


def counts(datasets: Sequence[Dataset], caller: Principal) -> Statement:
    """SQL for (dataset id, number of rows the caller may see) of each of them."""
    selects, params = [], []
    for dataset in datasets:
        scope, values = _scope(dataset, caller)
        where = f" WHERE {scope}" if scope else ""
        selects.append(f"SELECT ?, count(*) FROM {dataset.relation} AS t{where}")  # noqa: S608
        params += [dataset.id, *values]
    return " UNION ALL ".join(selects), params


def _where(query: Query, caller: Principal) -> Statement:
    scope, params = _scope(query.dataset, caller)
    conditions = [scope] if scope else []
    for item in query.filters:
        conditions.append(f"{_name(item.column.name)} {OPERATORS[item.operator]} CAST(? AS {item.column.type})")
        params.append(item.value)
    return (" WHERE " + " AND ".join(f"({condition})" for condition in conditions) if conditions else ""), params


def _scope(dataset: Dataset, caller: Principal) -> Statement:
    """The condition that keeps other users' rows out: from the token, and joined with AND to whatever is asked."""
    if dataset.user_column is None or caller.all_rows:
        return "", []
    return f"{_name(dataset.user_column)} = ?", [caller.user_id]


def _name(column: str) -> str:
    return f"t.{quoted(column)}"
