"""Filters: ``<column>=[not.]<operator>.<value>``, as in PostgREST."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backend.api.analytics import literals
from backend.api.analytics.scanner import Scanner
from backend.api.problems import ApiError, bad_parameter
from backend.datasets import Column, Dataset

COMPARISONS: Mapping[str, str] = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
"""Operators that take one value, and the SQL between column and value."""
PATTERNS: Mapping[str, str] = {"like": "s", "ilike": "si"}
"""Operators that take a pattern, and the options of the regular expression that it becomes."""
STATES: Mapping[str, str] = {
    "null": "NULL",
    "not_null": "NOT NULL",
    "true": "TRUE",
    "false": "FALSE",
    "unknown": "UNKNOWN",
}
"""What ``is`` can ask for, and the SQL after IS."""
OPERATORS = (*COMPARISONS, "in", *PATTERNS, "is")

_PATTERN_PART = re.compile(r"%+|\\.|.", re.DOTALL)
_MAX_PATTERN = 1000
_TREES = ("or", "and", "not.or", "not.and")


@dataclass(frozen=True)
class Filter:
    """``column operator values``: valid literals of the column, a regular expression, or one key of STATES."""

    column: Column
    operator: str
    values: tuple[str, ...]
    negated: bool


def parse_filter(dataset: Dataset, name: str, text: str, *, value: int | None, reserved: tuple[str, ...]) -> Filter:
    """The filter in a parameter, the ``value``-th of its name. Raises ApiError 400."""
    column = _column(dataset, name, text, reserved)
    scanner = Scanner(name, text, value=value)
    negated = scanner.take("not.")
    start = scanner.position
    operator = scanner.until(".(")
    if operator not in OPERATORS:
        raise scanner.fail(f"an operator ({', '.join(OPERATORS)}), after not. if negated", at=start)
    scanner.expect(".", "'.' and a value")
    return Filter(column, operator, _values(scanner, column, operator), negated)


def _column(dataset: Dataset, name: str, text: str, reserved: tuple[str, ...]) -> Column:
    found = name
    if name.startswith('"'):
        key = Scanner(name, name)
        found = key.quoted()
        if not key.done:
            raise key.fail("nothing after the quoted name of a column")
    if column := dataset.column(found):
        return column
    if name in _TREES:
        expected = "filters by column, which all have to hold: logic trees (or, and) are not supported"
        raise bad_parameter(name, expected=expected, came=text, position=1)
    names = ", ".join(column.name for column in dataset.columns)
    raise ApiError(
        400,
        "invalid_parameter",
        f"parameter {name[:100]!r}: expected {', '.join(reserved)} or a column of {dataset.id} ({names}), got neither",
        hint="/docs lists the parameters",
    )


def _values(scanner: Scanner, column: Column, operator: str) -> tuple[str, ...]:
    if operator == "is":
        return (_state(scanner, column),)
    if literals.expected(column.sqltype) is None:
        raise scanner.fail(f"is.null or is.not_null, the only filters on a column of type {column.type}", at=0)
    if operator in PATTERNS:
        return (_pattern(scanner, column),)
    if operator == "in":
        return _list(scanner, column)
    start = scanner.position
    return (_literal(scanner, column, scanner.rest(), at=start),)


def _state(scanner: Scanner, column: Column) -> str:
    start = scanner.position
    state = scanner.rest().lower()
    known = list(STATES) if column.type == "BOOLEAN" else ["null", "not_null"]
    if state not in known:
        raise scanner.fail(f"one of {', '.join(known)} (type {column.type})", at=start)
    return state


def _pattern(scanner: Scanner, column: Column) -> str:
    """The pattern as a regular expression, which RE2 matches in linear time; DuckDB's LIKE may take exponential."""
    if literals.family(column.sqltype) != "varchar":
        raise scanner.fail(f"another operator: like and ilike are for text, this is a column of {column.type}", at=0)
    start = scanner.position
    pattern = scanner.rest().replace("*", "%")
    if len(pattern) > _MAX_PATTERN:
        raise scanner.fail(f"a pattern of at most {_MAX_PATTERN} characters", at=start)
    parts = _PATTERN_PART.findall(pattern)
    if parts[-1:] == ["\\"]:
        raise scanner.fail("a pattern that doesn't end within an escape (write \\\\ for a backslash)", at=start)
    return "".join(".*" if part[0] == "%" else "." if part == "_" else re.escape(part[-1]) for part in parts)


def _list(scanner: Scanner, column: Column) -> tuple[str, ...]:
    scanner.expect("(", "'(' and a list of values")
    values: list[str] = []
    if not scanner.take(")"):
        while True:
            start = scanner.position
            text = scanner.quoted() if scanner.at('"') else scanner.until(",)")
            values.append(_literal(scanner, column, text, at=start))
            if scanner.take(")"):
                break
            scanner.expect(",", "',' or ')' after a value; one that has these is written in double quotes")
    if not scanner.done:
        raise scanner.fail("nothing after the list")
    return tuple(values)


def _literal(scanner: Scanner, column: Column, text: str, *, at: int) -> str:
    if not literals.is_valid(text, column.sqltype):
        raise scanner.fail(f"{literals.expected(column.sqltype)} (type {column.type})", at=at)
    return text
