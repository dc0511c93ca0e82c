"""Compares marts, whatever they lie in: columns, types, row counts, content, and the rows that differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from backend.datasets import type_text
from backend.quoting import quoted
from deploy.pipeline.parity.canonical import canonical, joined, readable
from deploy.pipeline.parity.report import Content, Kind, Mart, Row

ROWS_SHOWN = 5
"""Differing rows that the report shows of each side of a mart."""

Side = Mapping[str, str]
"""Marts of one side: name, and SQL for a FROM clause."""


def compare(connection: DuckDBPyConnection, old: Side, new: Side, *, expected: Iterable[str] = ()) -> tuple[Mart, ...]:
    """Every mart of either side, and those ``expected``, compared.

    Memory is for one 128-bit hash per distinct row, and only where something differs. Raises duckdb.Error when a mart
    can't be read.
    """
    connection.execute("SET TimeZone = 'UTC'")
    names = sorted({*old, *new, *expected})
    return tuple(compare_mart(connection, name, old.get(name), new.get(name)) for name in names)


def compare_mart(connection: DuckDBPyConnection, name: str, old: str | None, new: str | None) -> Mart:
    """One mart, given as SQL for a FROM clause, or None where a side has none."""
    before, after = (_Side.read(connection, relation) if relation else None for relation in (old, new))
    if before is None or after is None:
        return Mart(name, (Kind.ABSENT,), before.content if before else None, after.content if after else None)
    kinds = tuple(_kinds(before, after))
    if Kind.CONTENT not in kinds:
        return Mart(name, kinds, before.content, after.content)
    differing, rows = _differences(connection, before, after)
    return Mart(name, kinds, before.content, after.content, differing, rows)


@dataclass(frozen=True)
class _Side:
    relation: str
    row: str
    """SQL: the canonical form of a row."""
    content: Content
    sums: tuple[int, ...]
    all_null: bool

    @classmethod
    def read(cls, connection: DuckDBPyConnection, relation: str) -> _Side:
        fields: list[tuple[str, DuckDBPyType]] = [
            (field[0], field[1])
            for field in connection.execute(f"SELECT * FROM {relation} LIMIT 0").description or []  # noqa: S608 - quoted by us
        ]
        row = joined(*(canonical(quoted(name), kind) for name, kind in fields))
        nothing = " AND ".join(f"{quoted(name)} IS NULL" for name, _ in fields)
        # Sums: whatever the order of the rows, and twice is not once. Both halves of MD5, as numbers that add up.
        rows, low, high, null_rows = connection.execute(
            f"""
            SELECT count(*), coalesce(sum(md5_number_lower(form)), 0), coalesce(sum(md5_number_upper(form)), 0),
                count(*) FILTER (WHERE nothing)
            FROM (SELECT {row} AS form, {nothing} AS nothing FROM {relation})
            """  # noqa: S608 - quoted by us
        ).fetchall()[0]
        # As the API shows them: what Parquet has no type for comes back as its nearest relative, and counts as that.
        columns = tuple((name, type_text(kind)) for name, kind in fields)
        text = repr((columns, rows, low, high))
        content = Content(rows, sha256(text.encode()).hexdigest(), columns)
        return cls(relation, row, content, (rows, low, high), all_null=rows == null_rows == 1)


def _kinds(old: _Side, new: _Side) -> Iterable[Kind]:
    before, after = ([name for name, _ in side.content.columns] for side in (old, new))
    if before != after:
        yield Kind.COLUMNS
    after_types = dict(new.content.columns)
    if any(after_types.get(name, kind) != kind for name, kind in old.content.columns):
        yield Kind.TYPES
    if old.content.rows != new.content.rows:
        yield Kind.ROW_COUNT
    if any(a.all_null and b.content.rows == 0 for a, b in ((old, new), (new, old))):
        yield Kind.SENTINEL
    if old.sums != new.sums:
        yield Kind.CONTENT


def _differences(connection: DuckDBPyConnection, old: _Side, new: _Side) -> tuple[int, tuple[Row, ...]]:
    """How many distinct rows are on one side more often than on the other, and a few of each."""
    counted = [
        f"SELECT md5_number({side.row}) AS key, count(*) AS n FROM {side.relation} GROUP BY ALL"  # noqa: S608 - quoted by us
        for side in (old, new)
    ]
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE differing AS
        SELECT key, coalesce(old.n, 0) AS old_n, coalesce(new.n, 0) AS new_n
        FROM ({counted[0]}) AS old FULL JOIN ({counted[1]}) AS new USING (key)
        WHERE old.n IS DISTINCT FROM new.n
        """  # noqa: S608 - quoted by us
    )
    (total,) = connection.execute("SELECT count(*) FROM differing").fetchall()[0]
    shown = (*_shown(connection, old, "old_n > new_n"), *_shown(connection, new, "new_n > old_n"))
    connection.execute("DROP TABLE differing")
    return total, shown


def _shown(connection: DuckDBPyConnection, side: _Side, which: str) -> list[Row]:
    names = [name for name, _ in side.content.columns]
    values = ", ".join(readable(quoted(name)) for name in names)
    found = connection.execute(
        f"""
        SELECT old_n, new_n, any_value(texts)
        FROM (SELECT md5_number({side.row}) AS key, [{values}] AS texts FROM {side.relation})
        JOIN (FROM differing WHERE {which} ORDER BY key LIMIT {ROWS_SHOWN}) USING (key)
        GROUP BY key, old_n, new_n ORDER BY ALL
        """  # noqa: S608 - quoted by us
    ).fetchall()
    return [Row(old, new, dict(zip(names, texts, strict=True))) for old, new, texts in found]
