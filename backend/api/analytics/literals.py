"""Literals in filters: text that is exactly a value of the column's type, or refused.

DuckDB's own casts are too kind for this: ``CAST('1.5' AS INTEGER)`` is 2, which would find rows nobody asked for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time
from uuid import UUID

from duckdb.sqltypes import DuckDBPyType

_BITS = {"tinyint": 8, "smallint": 16, "integer": 32, "bigint": 64, "hugeint": 128}
_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_LARGEST_FLOAT = 3.4028234663852886e38
_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
_NS_YEARS = (1678, 2261)  # what 64 bits of nanoseconds around 1970 can count, in whole years
_TIME_NS = _TIME.replace("6", "9")
# DuckDB reads a zone only after seconds.
_TIME_ZONE = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}(:\d{2})?)?)?"


def expected(sqltype: DuckDBPyType) -> str | None:
    """What a literal of this type looks like, for people; None when the type can't be filtered on."""
    kind = family(sqltype)
    if kind in _BITS:
        return f"a whole number from {_range(sqltype)[0]} to {_range(sqltype)[1]}"
    if kind == "decimal":
        precision, scale = _decimal(sqltype)
        return f"a decimal number with at most {precision - scale} digits before and {scale} after the point"
    return {
        "boolean": "true or false",
        "double": "a number, NaN, Infinity or -Infinity",
        "date": "a date like 2024-12-31",
        "timestamp": "a timestamp like 2024-12-31T23:59:59.5",
        "timestamp with time zone": "a timestamp like 2024-12-31T23:59:59Z (write + as %2B in a URL)",
        "time": "a time like 23:59:59",
        "uuid": "a UUID",
        "varchar": "text",
    }.get(kind)


def is_valid(text: str, sqltype: DuckDBPyType) -> bool:
    """Whether the text is exactly a value of the type; if so, SQL's ``CAST`` of it gives that value."""
    kind = family(sqltype)
    if kind in _BITS:
        low, high = _range(sqltype)
        return re.fullmatch(r"[+-]?\d{1,39}", text, re.ASCII) is not None and low <= int(text) <= high
    if kind == "decimal":
        precision, scale = _decimal(sqltype)
        match = re.fullmatch(r"[+-]?(?=\.?\d)0*(\d*)(?:\.(\d*?)0*)?", text, re.ASCII)
        whole, fraction = match.groups(default="") if match else ("", "")
        return match is not None and len(whole) <= precision - scale and len(fraction) <= scale
    check = _CHECKS.get(sqltype.id)
    return check is not None and check(text)


def family(sqltype: DuckDBPyType) -> str:
    """The type's family, by the name of one of its types: what is in it is written alike."""
    if sqltype.id.startswith("u") and sqltype.id[1:] in _BITS:
        return sqltype.id[1:]
    return {
        "float": "double",
        "enum": "varchar",
        "bit": "varchar",
        "timestamp_s": "timestamp",
        "timestamp_ms": "timestamp",
        "timestamp_ns": "timestamp",
    }.get(sqltype.id, sqltype.id)


def is_number(sqltype: DuckDBPyType) -> bool:
    """Whether values of the type are numbers."""
    return family(sqltype) in {*_BITS, "decimal", "double"}


def scale(sqltype: DuckDBPyType) -> int:
    """Digits after the point that a DECIMAL has."""
    return _decimal(sqltype)[1]


def digits(sqltype: DuckDBPyType) -> int:
    """How many digits a DECIMAL or an integer may have."""
    return _decimal(sqltype)[0] if family(sqltype) == "decimal" else len(str(_range(sqltype)[1]))


def only_fraction(sqltype: DuckDBPyType) -> bool:
    """Whether all digits of a DECIMAL are after the point: DuckDB's text has none before it then."""
    precision, scale = _decimal(sqltype)
    return precision == scale


def _range(sqltype: DuckDBPyType) -> tuple[int, int]:
    bits = _BITS[family(sqltype)]
    return (0, 2**bits - 1) if sqltype.id.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _decimal(sqltype: DuckDBPyType) -> tuple[int, int]:
    values = dict(sqltype.children)
    return int(str(values["precision"])), int(str(values["scale"]))


def _is_float(text: str, largest: float) -> bool:
    if text in ("NaN", "Infinity", "-Infinity"):
        return True
    return _FLOAT.fullmatch(text) is not None and abs(float(text)) <= largest


def _parses(pattern: str, parse: Callable[[str], object]) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> bool:
        if compiled.fullmatch(text):
            with suppress(ValueError):
                parse(text)
                return True
        return False

    return check


def _timestamp_ns(text: str) -> datetime:
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    if not _NS_YEARS[0] <= moment.year <= _NS_YEARS[1]:
        raise ValueError(text)
    return moment


_CHECKS: dict[str, Callable[[str], bool]] = {
    "boolean": lambda text: text in ("true", "false"),
    "double": lambda text: _is_float(text, sys.float_info.max),
    "float": lambda text: _is_float(text, _LARGEST_FLOAT),
    "date": _parses(_DATE, date.fromisoformat),
    "timestamp": _parses(f"{_DATE}([T ]{_TIME})?", datetime.fromisoformat),
    "timestamp_s": _parses(f"{_DATE}([T ]{_TIME})?", datetime.fromisoformat),
    "timestamp_ms": _parses(f"{_DATE}([T ]{_TIME})?", datetime.fromisoformat),
    "timestamp_ns": _parses(f"{_DATE}([T ]{_TIME_NS})?", _timestamp_ns),
    "timestamp with time zone": _parses(f"{_DATE}([T ]{_TIME_ZONE})?", datetime.fromisoformat),
    "time": _parses(_TIME, time.fromisoformat),
    "uuid": _parses(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", UUID),
    "varchar": lambda _: True,
    "enum": lambda _: True,
    "bit": lambda _: True,
}
