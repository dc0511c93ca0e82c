"""Values of any type as text that no other value of that type has: the canonical form that parity compares.

DuckDB's own ``=``, ``hash()`` and EXCEPT won't do: to them -0.0 is 0.0. A value is its text in quotes and a comma, NULL
is ``N``; a list, struct or map has the parts' forms in brackets. So each form says itself where it ends.
"""

from __future__ import annotations

from duckdb.sqltypes import DuckDBPyType

from backend.datasets import children


def canonical(value: str, sqltype: DuckDBPyType, depth: int = 0) -> str:
    """SQL for the canonical form of ``value`` (SQL), which is of that type. It is never NULL.

    All NaN are one value, as they are to DuckDB. The text of a timestamp with time zone is in the session's zone.
    """
    parts = children(sqltype)
    if sqltype.id == "struct":
        # By place: what Parquet makes of a UNION has fields without names.
        fields = (canonical(f"struct_extract_at({value}, {n})", kind, depth) for n, (_, kind) in enumerate(parts, 1))
        form = joined("'{'", *fields, "'}'")
        return f"CASE WHEN {value} IS NULL THEN 'N' ELSE {form} END"
    if sqltype.id == "map":
        entry = f"entry{depth}"
        pair = joined(*(canonical(f"struct_extract({entry}, '{name}')", kind, depth + 1) for name, kind in parts))
        return _list(f"map_entries({value})", f"lambda {entry}: {pair}")
    if parts:
        item = f"item{depth}"
        return _list(value, f"lambda {item}: {canonical(item, parts[0][1], depth + 1)}")
    text = readable(value)
    if sqltype.id in ("float", "double"):
        text = f"CASE WHEN isnan({value}) THEN 'nan' ELSE {text} END"
    return f"""coalesce('"' || replace({text}, '"', '""') || '",', 'N')"""


def joined(*forms: str) -> str:
    """SQL for these forms (SQL), one after the other. A chain of ``||`` is too deep for DuckDB beyond a thousand."""
    return f"concat({', '.join(forms)})"


def readable(value: str) -> str:
    """SQL for ``value`` as text for people; NULL stays NULL."""
    return f"CAST({value} AS VARCHAR)"


def _list(values: str, transform: str) -> str:
    return f"coalesce('[' || array_to_string(list_transform({values}, {transform}), '') || ']', 'N')"
