"""Whether two systems gave the same answer, however each of them writes numbers, dates and moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any

Row = tuple[str | None, ...]


def canonical(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> list[Row]:
    """The rows' values as text, one way of writing for each type; ``columns`` have DuckDB's types.

    A value that is none of its column's type is written as it is, and so equal to nothing. Raises ValueError for a
    column that nobody asked for.
    """
    found = []
    for row in rows:
        if unknown := row.keys() - columns.keys():
            raise ValueError(f"columns that nobody asked for: {', '.join(sorted(unknown))}")
        # Some leave out what is NULL.
        found.append(tuple(_text(row.get(name), kind) for name, kind in columns.items()))
    return found


def first_difference(expected: Sequence[Row], found: Sequence[Row], *, ordered: bool) -> str | None:
    """The first row that is not the same, in words; None where there is none. Unordered rows are sorted first."""
    if not ordered:
        expected, found = (sorted(rows, key=lambda row: [text or "" for text in row]) for rows in (expected, found))
    for number, (ours, theirs) in enumerate(zip_longest(expected, found)):
        if ours != theirs:
            return f"row {number} of {len(expected)} and {len(found)}: expected {ours}, found {theirs}"
    return None


def _text(value: Any, kind: str) -> str | None:
    if value is None:
        return None
    try:
        return _WRITERS.get(kind.partition("(")[0], _words)(value)
    except (ValueError, TypeError, InvalidOperation):
        return f"no {kind}: {value!r}"


def _words(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _decimal(value: Any) -> str:
    number = Decimal(str(value))
    return f"{number.normalize():f}" if number else "0"


def _integer(value: Any) -> str:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return str(int(value))


def _date(value: Any) -> str:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.time() != time():
        raise ValueError(value)
    return moment.date().isoformat()


def _moment(value: Any) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value.replace(" UTC", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(value)
    return moment.astimezone(UTC).isoformat()


_WRITERS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), _integer),
    "DECIMAL": _decimal,
    "DATE": _date,
    "TIMESTAMP WITH TIME ZONE": _moment,
}
