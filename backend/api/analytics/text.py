"""Values as text, in SQL: what ``encode`` makes of them in JSON, a value at a time, for whole columns at once.

``tests/unit/backend/test_formats.py`` compares the two for every type.
"""

from __future__ import annotations

from duckdb.sqltypes import DuckDBPyType
from orjson import dumps

from backend.datasets import children
from backend.quoting import literal

_NUMBERS = {f"{sign}{size}int" for sign in ("", "u") for size in ("tiny", "small", "big", "huge")}
_NUMBERS |= {"integer", "uinteger", "boolean", "decimal"}
_FLOATS = {"float", "double"}
_TIMESTAMPS = {"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"}
_FLOAT = "CASE {text} WHEN 'nan' THEN 'NaN' WHEN 'inf' THEN 'Infinity' WHEN '-inf' THEN '-Infinity' ELSE {text} END"
_ERA = "CASE WHEN contains({text}, '(BC)') THEN ' BC' ELSE '' END"
# The session is in UTC, so a timestamp has no other offset than +00.
_TIMESTAMP = f"replace(replace(replace({{text}}, ' (BC)', ''), ' ', 'T'), '+00', '+00:00') || {_ERA}"
_TEXTS = {
    **dict.fromkeys(_FLOATS, _FLOAT),
    **dict.fromkeys(_TIMESTAMPS, _TIMESTAMP),
    "date": "replace({text}, ' (BC)', ' BC')",
    "time with time zone": r"regexp_replace({text}, '([+-]\d\d)$', '\1:00')",
    "blob": "to_base64({value})",
}
_UNQUOTED = _NUMBERS | _FLOATS | _TIMESTAMPS | {"date", "time", "time with time zone", "interval", "uuid"}


def csv_field(expression: str, sqltype: DuckDBPyType) -> str:
    """SQL for the value as RFC 4180 has it: text is quoted, so that an empty one is none of NULL."""
    text = _text(expression, sqltype)
    if sqltype.id in _UNQUOTED:
        return text
    return f"""'"' || replace({text}, '"', '""') || '"'"""


def _text(expression: str, sqltype: DuckDBPyType) -> str:
    """SQL for the value as text, NULL where it is NULL."""
    if children(sqltype):
        return _json(expression, sqltype, 0)
    if sqltype.id == "interval":
        return _interval(expression)
    return _TEXTS.get(sqltype.id, "{text}").format(value=expression, text=f"CAST({expression} AS VARCHAR)")


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
        return f"coalesce({_json(value, child, depth + 1)}, 'null')"

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
            key = f"CAST(to_json(CAST({variable}.key AS VARCHAR)) AS VARCHAR)"
            items = (
                f"list_transform(map_entries({expression}), "
                f"lambda {variable}: {key} || ':' || {nested(f'{variable}.value', inner['value'])})"
            )
            return f"'{{' || array_to_string({items}, ',') || '}}'"
        case kind if kind in _NUMBERS:
            return _text(expression, sqltype)
        case kind if kind in _FLOATS:
            text = _text(expression, sqltype)
            return f"CASE WHEN isfinite({expression}) THEN {text} ELSE '\"' || {text} || '\"' END"
        case _:
            return f"CAST(to_json({_text(expression, sqltype)}) AS VARCHAR)"
