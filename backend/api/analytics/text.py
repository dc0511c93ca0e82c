"""Values as text, in SQL, for whole columns at once: exactly, and the same for every source.

Decimals and integers of any size are JSON numbers with all their digits; NaN and the infinities are text, as
PostgreSQL's ``to_json`` has them; the session's time zone is UTC, so every timestamptz ends in +00:00.
``tests/unit/backend/test_documents.py`` compares it with Python's, a value at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from duckdb.sqltypes import DuckDBPyType
from orjson import dumps

from backend.api.analytics import literals
from backend.datasets import Column, children
from backend.quoting import literal, quoted

_NUMBERS = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")}
_NUMBERS |= {"integer", "uinteger", "boolean", "decimal", "bignum"}
_FLOATS = {"float", "double"}
_DIGITS = 38  # of the longest decimal
_TIMESTAMPS = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"}
_FLOAT = (
    "CASE WHEN isnan({value}) THEN 'NaN' WHEN isfinite({value}) THEN {text} "  # there is a -nan as well
    "WHEN {value} > 0 THEN 'Infinity' WHEN {value} < 0 THEN '-Infinity' END"
)
# Rarely needed, and slow; the session is in UTC, so a timestamp has no other offset than +00.
_ERA = "CASE WHEN contains({text}, '(BC)') THEN ' BC' ELSE '' END"
_ANY_TIMESTAMP = f"replace(replace(replace({{text}}, ' (BC)', ''), ' ', 'T'), '+00', '+00:00') || {_ERA}"
_OF_OUR_ERA = "{value} >= '0001-01-01'"
_DATE = f"CASE WHEN {_OF_OUR_ERA} THEN {{text}} ELSE replace({{text}}, ' (BC)', ' BC') END"
# 100,000 of them with a zone: 9 ms, where the text that DuckDB has of them is made in 18, and this of that in 38.
_DAY_AND_TIME = "concat(CAST(CAST({local} AS DATE) AS VARCHAR), 'T', CAST(CAST({local} AS TIME) AS VARCHAR), '{zone}')"
_MOMENTS = {
    "timestamp": _DAY_AND_TIME.replace("{local}", "{value}").replace("{zone}", ""),
    "timestamp with time zone": _DAY_AND_TIME.replace("{local}", "make_timestamp(epoch_us({value}))").replace(
        "{zone}", "+00:00"
    ),
}
_BOUNDED = {
    "date": "{text}",
    **{kind: f"CASE WHEN {{value}} IS NOT NULL THEN {text} END" for kind, text in _MOMENTS.items()},
}
_TEXTS = {
    **dict.fromkeys(_FLOATS, _FLOAT),
    **dict.fromkeys(_TIMESTAMPS, _ANY_TIMESTAMP),
    **{
        kind: f"CASE WHEN {_OF_OUR_ERA} AND {{value}} < 'infinity' THEN {text} ELSE {_ANY_TIMESTAMP} END"
        for kind, text in _MOMENTS.items()
    },
    "date": _DATE,
    "time with time zone": r"regexp_replace({text}, '([+-]\d\d)$', '\1:00')",
    "blob": "to_base64({value})",
}
_UNQUOTED = _NUMBERS | _FLOATS | _TIMESTAMPS | {"date", "time", "time with time zone", "interval", "uuid"}
_UNESCAPED = _UNQUOTED | {"blob", "bit"}


def json_object(columns: Sequence[Column]) -> str:
    """SQL for a row of these columns, which are to hand by their names, as a JSON object.

    DuckDB's own ``to_json`` writes what it writes exactly, many columns at once: to plan it takes half the time.
    """
    groups = [
        (exactly, list(some)) for exactly, some in groupby(columns, key=lambda column: _field(column) is not None)
    ]
    if len(groups) == 1 and groups[0][0]:
        return _whole(columns)
    members = [f"{_whole(some)}[2:-2]" if exactly else _each(some) for exactly, some in groups]
    return "concat('{', " + ", ',', ".join(members) + ", '}')"


def _whole(columns: Sequence[Column]) -> str:
    fields = ", ".join(f"{literal(column.name)}: {_field(column)}" for column in columns)
    return f"CAST(to_json({{{fields}}}) AS VARCHAR)"


def _each(columns: Sequence[Column]) -> str:
    return ", ',', ".join(
        f"{literal(dumps(column.name).decode() + ':')}, {_nullable(_json(quoted(column.name), column.sqltype, 0))}"
        for column in columns
    )


def _field(column: Column) -> str | None:
    """SQL for what ``to_json`` makes the column's exact JSON of; None where there is no such value."""
    value, sqltype = quoted(column.name), column.sqltype
    if not column.name.isprintable() or children(sqltype) or sqltype.id in _FLOATS:
        return None
    if sqltype.id == "decimal":
        scale = literals.scale(sqltype)
        # Those of up to 18 digits would lose their last zeros; 38 after the point leave none for the one before it.
        return f"CAST({value} AS DECIMAL({_DIGITS},{scale}))" if scale < _DIGITS else None
    return value if sqltype.id in _NUMBERS else _text(value, sqltype, bounded=column.bounded)


def csv_field(expression: str, sqltype: DuckDBPyType) -> str:
    """SQL for the value as RFC 4180 has it: text is quoted, so that an empty one is none of NULL."""
    text = _text(expression, sqltype)
    if sqltype.id in _UNQUOTED:
        return text
    return f"""'"' || replace({text}, '"', '""') || '"'"""


def _text(expression: str, sqltype: DuckDBPyType, *, bounded: bool = False) -> str:
    """SQL for the value as text, NULL where it is NULL; ``bounded`` as in Column, which halves the time to plan it."""
    if children(sqltype):
        return _json(expression, sqltype, 0)
    if sqltype.id == "interval":
        return _interval(expression)
    if sqltype.id == "decimal" and literals.only_fraction(sqltype):
        return rf"regexp_replace(CAST({expression} AS VARCHAR), '^(-?)[.]', '\10.')"
    text = (_BOUNDED if bounded else _TEXTS).get(sqltype.id, "{text}")
    return text.format(value=expression, text=f"CAST({expression} AS VARCHAR)")


def _interval(expression: str) -> str:
    """ISO 8601, as PostgreSQL writes it: ``P1Y2DT-1.5S``."""

    def part(name: str, unit: str) -> str:
        number = f"{name}({expression})"
        shown = f"CAST({number} AS VARCHAR)"
        if name == "microsecond":  # of a minute
            shown = f"rtrim(rtrim(printf('%.6f', {number} / 1000000), '0'), '.')"
        return f"CASE {number} WHEN 0 THEN '' ELSE {shown} || '{unit}' END"

    date = " || ".join(part(name, name[0].upper()) for name in ("year", "month", "day"))
    clock = " || ".join(part(name, unit) for name, unit in (("hour", "H"), ("minute", "M"), ("microsecond", "S")))
    return (
        f"'P' || {date} || CASE {clock} WHEN '' THEN CASE {date} WHEN '' THEN 'T0S' ELSE '' END ELSE 'T' || {clock} END"
    )


def _json(expression: str, sqltype: DuckDBPyType, depth: int) -> str:
    """SQL for the value inside a JSON document, NULL where it is NULL. ``depth`` keeps names of variables apart."""
    inner = dict(children(sqltype))
    variable = f"v{depth}"

    def nested(value: str, child: DuckDBPyType) -> str:
        return _nullable(_json(value, child, depth + 1))

    match sqltype.id:
        case "list" | "array":
            items = f"list_transform({expression}, lambda {variable}: {nested(variable, inner['child'])})"
            return f"'[' || array_to_string({items}, ',') || ']'"
        case "struct":
            fields = [
                f"{literal(dumps(name).decode() + ':')} || "
                + nested(f"struct_extract({expression}, {literal(name)})", child)
                for name, child in inner.items()
            ]
            return f"CASE WHEN {expression} IS NOT NULL THEN '{{' || concat_ws(',', {', '.join(fields)}) || '}}' END"
        case "map":
            # Not as `v0.key`, which would be a field of the column `v0`, if there is one.
            key, value = (f"struct_extract({variable}, '{name}')" for name in ("key", "value"))
            key = f"CAST(to_json(CAST({key} AS VARCHAR)) AS VARCHAR)"
            items = (
                f"list_transform(map_entries({expression}), "
                f"lambda {variable}: {key} || ':' || {nested(value, inner['value'])})"
            )
            return f"'{{' || array_to_string({items}, ',') || '}}'"
        case _:
            return _scalar(expression, sqltype)


def _scalar(expression: str, sqltype: DuckDBPyType) -> str:
    text = _text(expression, sqltype)
    if sqltype.id in _NUMBERS:
        return text
    quoted_text = f"""'"' || {text} || '"'"""
    if sqltype.id in _FLOATS:
        return f"CASE WHEN isfinite({expression}) THEN {text} ELSE {quoted_text} END"
    return quoted_text if sqltype.id in _UNESCAPED else f"CAST(to_json({text}) AS VARCHAR)"


def _nullable(document: str) -> str:
    return f"coalesce({document}, 'null')"
