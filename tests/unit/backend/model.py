"""What the query grammar means, over rows in plain Python and without DuckDB: PostgreSQL's rules, read from its manual.

NULL is None, and so is what three-valued logic doesn't know.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

COLUMNS = {
    "user_id": "INTEGER",
    "id": "BIGINT",
    "small": "SMALLINT",
    "big": "BIGINT",
    "money": "DECIMAL(12,2)",
    "wide": "DECIMAL(38,4)",
    "ratio": "DOUBLE",
    "flag": "BOOLEAN",
    "day": "DATE",
    "local": "TIMESTAMP",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "note": "VARCHAR",
}
NUMBERS = ("small", "big", "money", "wide", "ratio")
MOMENTS = ("day", "local", "instant")
UNITS = ("year", "quarter", "month", "week", "day", "hour", "minute")

_NOTES = (
    None,
    "",
    "a",
    "A",
    "ab",
    "a%b",
    "a_b",
    "a\\b",
    "a*b",
    'say "hi", (twice)',
    "über",
    "ÜBER",
    "🙂",
    "null",
    "b\nc",
)
_RATIOS = (None, 0.0, -0.0, 0.1, 0.2, 0.3, 1e16, -1e16, 2.5, math.nan, math.inf, 1e-300)
_BIGS = (None, 2**63 - 1, -(2**63), 0, 2**53 + 1, 7)
_WIDES = (None, Decimal("0.0001"), Decimal("-12345678901234567890.1234"), Decimal(3))
_MOMENTS = (
    None,
    datetime.fromisoformat("2024-02-29T23:59:59.500000"),
    datetime.fromisoformat("2024-03-01"),
    datetime.fromisoformat("2023-12-31T12:30"),
    datetime.fromisoformat("2024-01-01T12:30:01"),
    datetime.fromisoformat("1969-07-20T20:17:40.000001"),
    datetime.fromisoformat("0001-01-03T01:00"),
)


def rows():
    """In the mart's order. The domains' sizes have few common divisors, so most combinations turn up."""
    return [
        {
            "user_id": 1 + n % 3,
            "id": n,
            "small": (None, -3, 0, 3, 3)[n * 7 % 5],
            "big": _BIGS[n // 3 % 6],
            "money": None if n % 11 == 0 else Decimal(n * 37 % 9 - 4) + Decimal(n % 2) / 4,
            "wide": _WIDES[n // 2 % 4],
            "ratio": _RATIOS[n * 5 // 3 % 12],
            "flag": (None, True, False)[n // 4 % 3],
            "day": moment.date() if (moment := _MOMENTS[n * 11 % 7]) else None,
            "local": _MOMENTS[n // 5 % 7],
            "instant": moment.replace(tzinfo=UTC) if (moment := _MOMENTS[n // 2 % 7]) else None,
            "note": _NOTES[n * 8 // 3 % 15],
        }
        for n in range(150)
    ]


@dataclass(frozen=True)
class Item:
    """A column of the answer; ``column`` None: count()."""

    column: str | None
    function: str | None = None
    unit: str | None = None
    alias: str | None = None

    @property
    def name(self):
        return self.alias or (self.column if self.function in (None, "trunc") else self.function)

    @property
    def aggregates(self):
        return self.function not in (None, "trunc")

    @property
    def text(self):
        call = f"{self.function}({self.unit or ''})" if self.function else None
        return (f"{self.alias}:" if self.alias else "") + ".".join(part for part in (self.column, call) if part)

    @property
    def type(self):
        kind = COLUMNS[self.column] if self.column else None
        if self.function == "count":
            return "BIGINT"
        if self.function == "avg" or (self.function == "sum" and kind == "DOUBLE"):
            return "DOUBLE"
        if self.function == "sum":
            return f"DECIMAL(38,{kind.partition(',')[2].rstrip(')') or 0})"
        return kind


@dataclass(frozen=True)
class Condition:
    """A filter; ``values`` as Python values, a pattern, or what ``is`` asks for."""

    column: str
    operator: str
    values: tuple
    negated: bool = False

    @property
    def text(self):
        if self.operator == "in":
            values = ",".join(written(value, quoting=True) for value in self.values)
            value = f"({values})"
        else:
            value = written(self.values[0])
        return f"{'not.' if self.negated else ''}{self.operator}.{value}"


@dataclass(frozen=True)
class Key:
    """One key to sort by: the name of an output, else of a column."""

    name: str
    direction: str = ""
    nulls: str = ""

    @property
    def text(self):
        return f"{self.name}{self.direction}{self.nulls}"


def answer(asked, user, items, conditions, keys):
    """All rows of the answer, as tuples of Python values, in its order."""
    mine = [row for row in asked if row["user_id"] == user and all(_holds(row, item) is True for item in conditions)]
    outputs = {item.name: item for item in items}
    if any(item.aggregates for item in items):
        groups = [item for item in items if not item.aggregates]
        found = {}
        for row in mine:
            found.setdefault(tuple(_Same(_plain(_value(row, item))) for item in groups), []).append(row)
        if not groups:
            found = {(): mine}
        members = list(found.values())
        sort = [Key(item.name) for item in reversed(groups)]  # ties come in the order of what is grouped by
    else:
        members, sort = [[row] for row in mine], []
    for key in [*sort, *reversed(keys)]:
        item = outputs.get(key.name) or Item(key.name)
        down = key.direction == ".desc"
        first = key.nulls == ".nullsfirst" if key.nulls else down
        values = {id(group): _over(group, item) for group in members}
        members.sort(key=lambda group: _rank(values[id(group)]), reverse=down)
        members.sort(key=lambda group: (values[id(group)] is None) != first)
    return [tuple(_plain(_over(group, item)) for item in items) for group in members]


def written(value, *, quoting=False):
    """A value as a literal of a filter."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    text = value.isoformat() if isinstance(value, date) else str(value)
    if quoting and isinstance(value, str):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _holds(row, condition):
    """True, False, or None for unknown."""
    value, operator = row[condition.column], condition.operator
    if operator == "is":
        known = {"null": value is None, "not_null": value is not None, "unknown": value is None}
        result = known.get(condition.values[0], value is (condition.values[0] == "true"))
    elif operator == "in":
        result = (
            False
            if not condition.values
            else None
            if value is None
            else any(_Same(value) == _Same(v) for v in condition.values)
        )
    elif value is None:
        result = None
    elif operator in ("like", "ilike"):
        pattern = condition.values[0]
        if operator == "ilike":
            value, pattern = value.lower(), pattern.lower()
        result = _like(value, re.findall(r"\\.|.", pattern.replace("*", "%"), re.DOTALL))
    else:
        a, b = _rank(value), _rank(condition.values[0])
        result = {"eq": a == b, "neq": a != b, "gt": a > b, "gte": a >= b, "lt": a < b, "lte": a <= b}[operator]
    return (not result) if condition.negated and result is not None else result


def _like(value, parts):
    """Whether the pattern's parts match all of the text: position by position, where each could have come to."""
    reached = {0}
    for part in parts:
        if part == "%":
            reached = set(range(min(reached), len(value) + 1)) if reached else set()
        else:
            reached = {n + 1 for n in reached if n < len(value) and part in ("_", value[n], "\\" + value[n])}
    return len(value) in reached


def _over(group, item):
    if not item.aggregates:
        return _value(group[0], item)
    values = [row[item.column] for row in group if row[item.column] is not None] if item.column else group
    if item.function == "count":
        return len(values)
    if not values:
        return None
    if item.function in ("min", "max"):
        return (min if item.function == "min" else max)(values, key=_rank)
    if isinstance(values[0], float):
        total = 0.0
        for value in values:  # in the mart's order: not fsum's exact sum, nor that of any other order
            total += value
        return total if item.function == "sum" else total / len(values)
    return sum(values) if item.function == "sum" else sum(map(Fraction, values)) / len(values)


def _value(row, item):
    value = row[item.column]
    if item.function is None or value is None:
        return value
    start = value if type(value) is date else value.replace(second=0, microsecond=0)
    if item.unit in ("year", "quarter", "month"):
        months = {"year": 12, "quarter": 3, "month": 1}[item.unit]
        start = start.replace(day=1, month=(value.month - 1) // months * months + 1)
    if item.unit == "week":
        start -= timedelta(days=value.weekday())
    if isinstance(start, datetime) and item.unit != "minute":
        start = start.replace(minute=0) if item.unit == "hour" else start.replace(minute=0, hour=0)
    return start


def _plain(value):
    return 0.0 if isinstance(value, float) and value == 0 else value


def _rank(value):
    """What to compare by: NaN is larger than any number and equal to itself; text goes by its bytes."""
    if value is None:
        return (0, 0)
    if isinstance(value, float):
        return (2, 0.0) if math.isnan(value) else (1, value)
    return (1, value.encode() if isinstance(value, str) else value)


class _Same:
    """A value as GROUP BY and IN see it: NULL and NaN are one value each."""

    def __init__(self, value):
        self.rank = None if value is None else _rank(value)

    def __eq__(self, other):
        return self.rank == other.rank

    def __hash__(self):
        return hash(self.rank)
