"""Query parameters, in the manner of PostgREST, as one frozen Query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backend.api.analytics import literals
from backend.api.analytics.cursor import Cursor, Key
from backend.api.problems import ApiError, bad_parameter
from backend.config import Settings
from backend.datasets import Column, Dataset

_RESERVED = ("select", "order", "limit", "offset")
_MAX_OFFSET = 2**62  # far beyond any mart, and offset + limit still fits into 64 bits

OPERATORS: Mapping[str, str] = {"eq": "="}
"""Operators of filters, and the SQL between column and literal."""


@dataclass(frozen=True)
class Request:
    """A query as it was asked: the parameters still unread, and the state of the data it names, if any."""

    dataset: str
    params: Mapping[str, str]
    snapshot: str | None = None
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Filter:
    """``column operator value``; the operator is a key of OPERATORS, the value a valid literal of the column."""

    column: Column
    operator: str
    value: str


@dataclass(frozen=True)
class Order:
    """One key to sort by. NULL counts as larger than any value unless ``nulls_first`` says otherwise."""

    column: Column
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class Query:
    """A valid query of one dataset."""

    dataset: Dataset
    columns: tuple[Column, ...]
    filters: tuple[Filter, ...]
    order: tuple[Order, ...]
    limit: int
    offset: int


def read_request(dataset: str, items: Iterable[tuple[str, str]], key: Key) -> Request:
    """The request in these parameters, a cursor among them unfolded. Raises ApiError 400."""
    params: dict[str, str] = {}
    for name, value in items:
        if name in params:
            raise bad_parameter(name, expected="it once", came=f"{params[name]}, {value}")
        params[name] = value
    snapshot = params.pop("snapshot", None)
    if snapshot == "":
        raise bad_parameter("snapshot", expected="a snapshot id", came="")
    token = params.pop("cursor", None)
    if token is None:
        return Request(dataset, params, snapshot)
    cursor = Cursor.decode(token, key)
    if cursor.dataset != dataset:
        raise bad_parameter("cursor", expected=f"a cursor of dataset {dataset}", came=f"one of {cursor.dataset}")
    if snapshot is not None and snapshot != cursor.snapshot:
        raise bad_parameter("snapshot", expected=f"{cursor.snapshot}, as in the cursor", came=snapshot)
    for name, value in params.items():
        if cursor.params.get(name) != value:
            there = repr(cursor.params[name]) if name in cursor.params else "nothing"
            raise bad_parameter(name, expected=f"{there}, as in the cursor", came=value)
    return Request(dataset, cursor.params, cursor.snapshot, cursor)


def parse(request: Request, dataset: Dataset, settings: Settings) -> Query:
    """The request as a valid query of the dataset. Raises ApiError 400 naming the parameter at fault."""
    params = request.params
    offset = _integer(params, "offset", default=0, low=0, high=_MAX_OFFSET)
    return Query(
        dataset=dataset,
        columns=_select(params.get("select"), dataset),
        filters=tuple(_filter(dataset, *item) for item in params.items() if item[0] not in _RESERVED),
        order=tuple(_order(params.get("order"), dataset)),
        limit=_integer(params, "limit", default=settings.default_limit, low=1, high=settings.max_limit),
        offset=request.cursor.offset if request.cursor else offset,
    )


def _integer(params: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = params.get(name)
    if text is None:
        return min(default, high)
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise bad_parameter(name, expected=f"a whole number from {low} to {high}", came=text)
    return int(text)


def _column(parameter: str, name: str, dataset: Dataset, *, came: str) -> Column:
    column = dataset.column(name)
    if column is None:
        names = ", ".join(column.name for column in dataset.columns)
        raise bad_parameter(parameter, expected=f"columns of {dataset.id} ({names})", came=came)
    return column


def _select(text: str | None, dataset: Dataset) -> tuple[Column, ...]:
    if text is None or text == "*":
        return dataset.columns
    columns = tuple(_column("select", name, dataset, came=name) for name in text.split(","))
    if len(set(columns)) != len(columns):
        raise bad_parameter("select", expected="each column once", came=text)
    return columns


def _order(text: str | None, dataset: Dataset) -> Iterable[Order]:
    seen: set[str] = set()
    for term in text.split(",") if text is not None else ():
        name, *modifiers = term.split(".")
        column = _column("order", name, dataset, came=term)
        descending = modifiers[:1] == ["desc"]
        rest = modifiers[1:] if modifiers[:1] in (["asc"], ["desc"]) else modifiers
        if name in seen or rest not in ([], ["nullsfirst"], ["nullslast"]):
            raise bad_parameter(
                "order", expected="each column once, as column[.asc|.desc][.nullsfirst|.nullslast]", came=term
            )
        seen.add(name)
        yield Order(column, descending, nulls_first=rest == ["nullsfirst"] if rest else descending)


def _filter(dataset: Dataset, name: str, text: str) -> Filter:
    column = dataset.column(name)
    if column is None:
        raise ApiError(
            400,
            "invalid_parameter",
            f"parameter {name[:100]!r}: expected {', '.join(_RESERVED)}, snapshot, cursor or a column of {dataset.id} "
            f"({', '.join(column.name for column in dataset.columns)}), got neither",
            hint="/docs lists the parameters",
        )
    operator, dot, value = text.partition(".")
    if not dot or operator not in OPERATORS:
        raise bad_parameter(name, expected=f"<operator>.<value> with an operator of {', '.join(OPERATORS)}", came=text)
    expected = literals.expected(column.sqltype)
    if expected is None:
        raise bad_parameter(name, expected=f"no filter: a column of type {column.type} has none", came=text)
    if not literals.is_valid(value, column.sqltype):
        raise bad_parameter(name, expected=f"{expected} after {operator!r}. (type {column.type})", came=value)
    return Filter(column, operator, value)
