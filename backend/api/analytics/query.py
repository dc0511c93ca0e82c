"""Query parameters, in the manner of PostgREST, as one frozen Query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from backend.api.analytics.cursor import Cursor, Key
from backend.api.analytics.filters import Filter, parse_filter
from backend.api.analytics.scanner import Scanner
from backend.api.analytics.select import Output, find_column, parse_select, whole
from backend.api.problems import bad_parameter
from backend.config import Settings
from backend.datasets import Dataset

_QUERY = ("select", "order", "limit", "offset")
_RESERVED = (*_QUERY, "snapshot", "cursor")
_DIRECTION = re.compile(r"(?:\.(?P<direction>asc|desc))?(?:\.nulls(?P<nulls>first|last))? *")
_MAX_OFFSET = 2**62  # far beyond any mart, and offset + limit still fits into 64 bits

Values = str | list[str]


@dataclass(frozen=True)
class Request:
    """A query as it was asked: the parameters still unread, and the state of the data it names, if any.

    A filter that stands there several times has a list of its values.
    """

    dataset: str
    params: Mapping[str, Values]
    snapshot: str | None = None
    cursor: Cursor | None = None


@dataclass(frozen=True)
class Order:
    """One key to sort by. NULL counts as larger than any value unless ``nulls_first`` says otherwise."""

    by: Output
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class Query:
    """A valid query of one dataset."""

    dataset: Dataset
    columns: tuple[Output, ...]
    filters: tuple[Filter, ...]
    order: tuple[Order, ...]
    limit: int
    offset: int

    @property
    def whole_rows(self) -> bool:
        """Whether its rows are the dataset's as they are, with all columns."""
        columns = self.dataset.columns
        return len(self.columns) == len(columns) and all(
            output.source is column and output.function is None and output.name == column.name
            for output, column in zip(self.columns, columns, strict=True)
        )

    @property
    def grouped(self) -> bool:
        """Whether its rows are groups: of the dataset's rows that agree in all columns but the aggregates."""
        return any(column.aggregates for column in self.columns)


def read_request(dataset: str, items: Iterable[tuple[str, str]], key: Key) -> Request:
    """The request in these parameters, a cursor among them unfolded. Raises ApiError 400."""
    found: dict[str, list[str]] = {}
    for name, value in items:
        found.setdefault(name, []).append(value)
    for name in _RESERVED:
        if len(found.get(name, ())) > 1:
            raise bad_parameter(name, expected="it once", came=", ".join(found[name]))
    snapshot, token = (found.pop(name, [None])[0] for name in ("snapshot", "cursor"))
    if snapshot == "":
        raise bad_parameter("snapshot", expected="a snapshot id", came=None, position=1)
    params: dict[str, Values] = {name: values if len(values) > 1 else values[0] for name, values in found.items()}
    if token is None:
        return Request(dataset, params, snapshot)
    cursor = Cursor.decode(token, key)
    if cursor.dataset != dataset:
        raise bad_parameter("cursor", expected=f"a cursor of dataset {dataset}", came=f"one of {cursor.dataset}")
    if snapshot is not None and snapshot != cursor.snapshot:
        raise bad_parameter("snapshot", expected=f"{cursor.snapshot}, as in the cursor", came=snapshot)
    for name, values in params.items():
        if cursor.params.get(name) != values:
            there = repr(cursor.params[name]) if name in cursor.params else "nothing"
            raise bad_parameter(name, expected=f"{there}, as in the cursor", came=str(values))
    return Request(dataset, cursor.params, cursor.snapshot, cursor)


def parse(request: Request, dataset: Dataset, settings: Settings) -> Query:
    """The request as a valid query of the dataset. Raises ApiError 400 naming the parameter at fault."""
    texts = {name: text for name, text in request.params.items() if isinstance(text, str)}
    offset = _integer(texts, "offset", default=0, high=_MAX_OFFSET)
    query = Query(
        dataset=dataset,
        columns=parse_select(texts.get("select", "*"), dataset),
        filters=tuple(_filters(request.params, dataset)),
        order=(),
        limit=_integer(texts, "limit", default=settings.default_limit, high=settings.max_limit),
        offset=request.cursor.offset if request.cursor else offset,
    )
    return replace(query, order=tuple(_order(texts["order"], query))) if "order" in texts else query


def _integer(params: Mapping[str, str], name: str, *, default: int, high: int) -> int:
    text = params.get(name)
    if text is None:
        return min(default, high)
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(high)) and int(text) <= high):
        raise bad_parameter(name, expected=f"a whole number from 0 to {high}", came=text or None, position=1)
    return int(text)


def _filters(params: Mapping[str, Values], dataset: Dataset) -> Iterator[Filter]:
    for name, values in params.items():
        if name in _QUERY:
            continue
        if isinstance(values, str):
            yield parse_filter(dataset, name, values, value=None, reserved=_RESERVED)
        else:
            for index, text in enumerate(values, start=1):
                yield parse_filter(dataset, name, text, value=index, reserved=_RESERVED)


def _order(text: str, query: Query) -> Iterator[Order]:
    scanner = Scanner("order", text)
    seen: set[str] = set()
    while True:
        scanner.spaces()
        start = scanner.position
        by = _sort_key(scanner, query, scanner.name("a column to sort by"), at=start)
        if by.name in seen:
            raise scanner.fail("each column once", at=start)
        seen.add(by.name)
        yield _directed(scanner, by)
        if scanner.done:
            return
        scanner.expect(",", "',' or the end, after column[.asc|.desc][.nullsfirst|.nullslast]")


def _sort_key(scanner: Scanner, query: Query, name: str, *, at: int) -> Output:
    by = next((column for column in query.columns if column.name == name), None)
    if by is None and query.grouped:
        names = ", ".join(column.name for column in query.columns)
        raise scanner.fail(f"a column of the answer ({names}), whose rows are groups", at=at)
    return by or whole(find_column(scanner, query.dataset, name, at=at))


def _directed(scanner: Scanner, by: Output) -> Order:
    start = scanner.position
    modifiers = scanner.until(",")
    match = _DIRECTION.fullmatch(modifiers)
    if match is None:
        raise scanner.fail("[.asc|.desc][.nullsfirst|.nullslast] after the column", at=start)
    descending = match["direction"] == "desc"
    return Order(by, descending, nulls_first=match["nulls"] == "first" if match["nulls"] else descending)
