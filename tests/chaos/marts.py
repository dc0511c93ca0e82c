"""Marts of the store layer: what a generation of them holds is known without the store, the files or the API."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import duckdb

from backend.audit import FINGERPRINT, Written
from backend.checksum import file_sha256
from backend.manifest import Column, MartSpec

_MOVEMENTS = (
    Column("user_id", "INTEGER", "Whose it is."),
    Column("movement_id", "BIGINT", "Key."),
    Column("amount", "DECIMAL(12,2)", ""),
    Column("posted_on", "DATE", ""),
    Column("note", "VARCHAR", ""),
)
SPECS = (
    MartSpec(
        "dim_people",
        "People",
        "One row per person.",
        (Column("user_id", "INTEGER"), Column("name", "VARCHAR"), Column("generation", "BIGINT")),
    ),
    MartSpec("fct_in", "In", "One row per movement.", _MOVEMENTS),
    MartSpec("fct_out", "Out", "One row per movement.", _MOVEMENTS),
    MartSpec("agg_months", "Months", "One row per month.", (Column("month", "DATE"), Column("total", "DECIMAL(18,2)"))),
)
NAMES = tuple(spec.name for spec in SPECS)


def _movements(rows: int, sign: int, generation: int) -> str:
    return f"""SELECT (i % 40)::INTEGER AS user_id, i::BIGINT AS movement_id,
        ({sign} * (i % 977 + {generation}) + 0.25)::DECIMAL(12,2) AS amount,
        DATE '2024-01-01' + (i % 300)::INTEGER AS posted_on,
        CASE WHEN i % 7 > 0 THEN 'note ' || md5(i || ':' || {generation}) END AS note
        FROM range({rows}) AS t(i)"""


def select(mart: str, generation: int) -> str:
    """SQL of one mart: every row of every mart tells its generation."""
    return {
        "dim_people": f"SELECT i::INTEGER AS user_id, 'person ' || i || ' ünï 🙂' AS name, {generation}::BIGINT AS "
        "generation FROM range(40) AS t(i)",
        "fct_in": _movements(2100, 1, generation),
        "fct_out": _movements(300, -1, generation),
        "agg_months": f"SELECT (DATE '2024-01-01' + to_months(i::INTEGER))::DATE AS month, "
        f"(i * 100 + {generation})::DECIMAL(18,2) AS total FROM range(24) AS t(i)",
    }[mart]


def write(connection: duckdb.DuckDBPyConnection, path: Path, sql: str) -> Written:
    """Write the rows as dbt's materialization does, and say what was written."""
    connection.execute(f"CREATE OR REPLACE TABLE t AS {sql}")
    connection.execute(
        f"COPY (SELECT * FROM t) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048, USE_TMP_FILE true)"
    )
    (content,) = connection.execute(f"SELECT {FINGERPRINT} FROM t").fetchone()
    return Written(content, file_sha256(path))


def digest(marts: dict[str, list]) -> str:
    """Digest of all rows of all marts, whatever their order; every value as text, or None."""
    rows = {name: sorted(map(json.dumps, marts[name])) for name in sorted(marts)}
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def expected(generations: dict[str, int], *, empty: tuple[str, ...] = ()) -> str:
    """The digest that a reader must find where each mart is of the generation given, and some have no rows."""
    found = {}
    with duckdb.connect() as connection:
        for mart, generation in generations.items():
            columns = ", ".join(f"{c.name}::VARCHAR" for c in next(s for s in SPECS if s.name == mart).columns)
            sql = f"SELECT {columns} FROM ({select(mart, generation)})"
            found[mart] = [] if mart in empty else connection.execute(sql).fetchall()
    return digest(found)
