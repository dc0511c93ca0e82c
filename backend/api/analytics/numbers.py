"""Values as whole numbers of 64 bits, which are equal, come one after the other and add up as the values do.

Integers are themselves, decimals of up to 18 digits are counted in units of their last digit, dates in days and
timestamps in microseconds from 1970 on. What is outside of that, or may be, has no number.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from duckdb.sqltypes import DuckDBPyType

from backend.api.analytics import literals
from backend.datasets import Column
from backend.quoting import quoted

_INTEGERS = {"tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger"}
_DIGITS = 18
_DAYS = date(1970, 1, 1)
_MOMENTS = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def has(column: Column) -> bool:
    """Whether the column's values have numbers, where they are not NULL."""
    match column.sqltype.id:
        case "date" | "timestamp" | "timestamp with time zone":
            return column.bounded
        case "decimal":
            return literals.digits(column.sqltype) <= _DIGITS
        case kind:
            return kind in _INTEGERS


def expression(column: Column) -> str | None:
    """SQL for the number of the column's value, which is to hand by its name; None where it has none."""
    if not has(column):
        return None
    value = quoted(column.name)
    match column.sqltype.id:
        case "date":
            return f"{value} - DATE '{_DAYS}'"
        case "timestamp" | "timestamp with time zone":
            return f"epoch_us({value})"
        case "decimal":
            scale = literals.scale(column.sqltype)
            return f"CAST(CAST({value} AS DECIMAL(38,{scale})) * {10**scale} AS BIGINT)"
        case _:
            return f"CAST({value} AS BIGINT)"


def of_literal(text: str, sqltype: DuckDBPyType) -> int:
    """The number of a valid literal of such a type."""
    match sqltype.id:
        case "date":
            return (date.fromisoformat(text) - _DAYS).days
        case "timestamp" | "timestamp with time zone":
            moment = datetime.fromisoformat(text)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _MOMENTS) // _MICROSECOND
        case "decimal":
            scale = literals.scale(sqltype)
            whole, _, fraction = text.partition(".")
            return int(whole + fraction[:scale].ljust(scale, "0"))  # beyond that there are zeros
        case _:
            return int(text)


@lru_cache(maxsize=100_000)
def truncated(day: int, unit: str) -> int:
    """The first day of the unit (``year``, ``quarter``, ``month``, ``week`` or ``day``) that the day is in."""
    found = _day(day)
    match unit:
        case "year":
            found = found.replace(month=1, day=1)
        case "quarter":
            found = found.replace(month=found.month - (found.month - 1) % 3, day=1)
        case "month":
            found = found.replace(day=1)
        case "week":
            found -= timedelta(days=found.weekday())
    return (found - _DAYS).days


@lru_cache(maxsize=10_000)
def day_as_json(day: int) -> bytes:
    """A date as JSON."""
    return f'"{_day(day)}"'.encode()


def decimal_as_json(number: int, scale: int) -> bytes:
    """A decimal, or an integer, as JSON."""
    digits = str(abs(number)).rjust(scale + 1, "0")
    point = len(digits) - scale
    return f"{'-' if number < 0 else ''}{digits[:point]}{'.' if scale else ''}{digits[point:]}".encode()


def _day(day: int) -> date:
    return _DAYS + timedelta(days=day)
