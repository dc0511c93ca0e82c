"""Rows as JSON the slow way, a value at a time in Python: what the SQL of ``text`` has to give, to the byte.

What Python's types can't hold (dates before the year 1 or infinite, nanoseconds, months in an interval) crosses over as
DuckDB's own text, and so do floats.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import orjson
from duckdb.sqltypes import DuckDBPyType

from backend.datasets import Column, children
from backend.quoting import quoted

Encoder = Callable[[Any], Any]

_INTEGERS = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")}
_AS_THEY_ARE = _INTEGERS | {"boolean", "integer", "uinteger", "decimal", "varchar", "blob", "uuid"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_INTERVAL_PART = re.compile(r"(-?\d+) (year|month|day)s?")
_INTERVAL_TIME = re.compile(r"(-?)(\d+):(\d+):(\d+(?:\.\d+)?)$")


def as_wire(expression: str, sqltype: DuckDBPyType) -> str:
    """SQL that gives the expression in types that ``rows_to_json`` understands."""
    wire = _wire_type(sqltype)
    return expression if wire == str(sqltype) else f"CAST({expression} AS {wire})"


def rows_to_json(columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """The rows, selected with ``as_wire``, each as a JSON object."""
    names = [column.name for column in columns]
    encoders = [_encoder(column.sqltype) for column in columns]
    return [
        orjson.dumps(
            {
                name: value if value is None or encode is None else encode(value)
                for name, encode, value in zip(names, encoders, row, strict=True)
            }
        ).decode()
        for row in rows
    ]


def _wire_type(sqltype: DuckDBPyType) -> str:
    if sqltype.id in _AS_THEY_ARE:
        return str(sqltype)
    inner = [(name, _wire_type(child)) for name, child in children(sqltype)]
    if sqltype.id in ("list", "array"):
        return f"{inner[0][1]}[]"
    if sqltype.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {wire}' for name, wire in inner)})"
    if sqltype.id == "map":  # keys of a JSON object are text
        return f"MAP(VARCHAR, {inner[1][1]})"
    return "VARCHAR"


def _encoder(sqltype: DuckDBPyType) -> Encoder | None:
    """What makes a value of this type fit for orjson; None when it is already."""
    inner = [_nullable(_encoder(child)) for _, child in children(sqltype)]
    if sqltype.id in ("list", "array"):
        return lambda value: [inner[0](item) for item in value]
    if sqltype.id == "struct":
        return lambda value: {name: encode(item) for (name, item), encode in zip(value.items(), inner, strict=True)}
    if sqltype.id == "map":
        return lambda value: {name: inner[1](item) for name, item in value.items()}
    return _ENCODERS.get(sqltype.id)


def _nullable(encode: Encoder | None) -> Encoder:
    if encode is None:
        return lambda value: value
    return lambda value: None if value is None else encode(value)


def _integer(value: int) -> orjson.Fragment:
    return orjson.Fragment(str(value))


def _decimal(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(format(value, "f"))


def _float(text: str) -> orjson.Fragment | str:
    # DuckDB's text is the shortest that means this number; Python's float would show the 32-bit 0.1 as
    # 0.10000000149011612.
    return _NOT_FINITE.get(text) or orjson.Fragment(text)


def _varchar(text: str) -> orjson.Fragment:
    escaped = re.sub(r'[\x00-\x1f"\\]', lambda found: _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04X}", text)
    return orjson.Fragment(f'"{escaped}"')


def _blob(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _timestamp(text: str) -> str:
    era = " BC" if " (BC)" in text else ""
    return text.replace(" (BC)", "").replace(" ", "T", 1) + era


def _with_zone(text: str) -> str:
    # DuckDB writes whole hours as +00; ISO 8601's extended format wants the minutes.
    return re.sub(r"([+-]\d{2})(?=$| BC$)", r"\1:00", text)


def _interval(text: str) -> str:
    """``1 year 2 days -00:00:01.5`` as ``P1Y2DT-1.5S``, PostgreSQL's reading of ISO 8601 durations."""
    days = "".join(f"{number}{unit[0].upper()}" for number, unit in _INTERVAL_PART.findall(text))
    clock = ""
    if match := _INTERVAL_TIME.search(text):
        sign, *parts = match.groups()
        for number, unit in zip(parts, "HMS", strict=True):
            short = (number.rstrip("0").rstrip(".") if "." in number else number).lstrip("0")
            if short.strip("."):
                clock += f"{sign}{'0' if short.startswith('.') else ''}{short}{unit}"
    return f"P{days}T{clock}" if clock else f"P{days or 'T0S'}"


_ENCODERS: dict[str, Encoder] = {
    "hugeint": _integer,
    "uhugeint": _integer,
    "decimal": _decimal,
    "varchar": _varchar,
    "double": _float,
    "float": _float,
    "bignum": orjson.Fragment,
    "blob": _blob,
    "date": lambda text: text.replace(" (BC)", " BC"),
    "timestamp": _timestamp,
    "timestamp_s": _timestamp,
    "timestamp_ms": _timestamp,
    "timestamp_ns": _timestamp,
    "timestamp with time zone": lambda text: _with_zone(_timestamp(text)),
    "time with time zone": _with_zone,
    "interval": _interval,
}
