"""Two small marts, as a snapshot or as tables of a DuckDB file.

Every value of ``fct_transactions`` belongs to one user only, so that a row can be told even from a single column of it.
Every row carries the generation it was written in.
"""

import os
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb

from backend.manifest import Column, Manifest, MartSpec
from backend.quoting import literal
from backend.snapshots import SnapshotStore

USERS = (1, 2, 3)
ROWS_PER_USER = 40

TRANSACTIONS = MartSpec(
    "fct_transactions",
    "Transactions",
    "One row per transaction.",
    (
        Column("user_id", "INTEGER", "Whose it is."),
        Column("transaction_id", "BIGINT", "Key."),
        Column("amount", "DECIMAL(12,2)", "In the account's currency."),
        Column("posted_on", "DATE", ""),
        Column("description", "VARCHAR", ""),
        Column("generation", "INTEGER", ""),
    ),
)
CATEGORIES = MartSpec(
    "dim_categories",
    "Categories",
    "One row per category.",
    (
        Column("category_id", "INTEGER", "Key."),
        Column("name", "VARCHAR", ""),
        Column("generation", "INTEGER", ""),
    ),
)
SPECS = (CATEGORIES, TRANSACTIONS)


@dataclass(frozen=True)
class Transaction:
    user_id: int
    transaction_id: int
    amount: Decimal
    posted_on: date
    description: str | None
    generation: int


def transactions(generation: int) -> list[Transaction]:
    """In the mart's own order; amounts repeat within a user, descriptions are missing at times."""
    return [
        Transaction(
            user_id=user,
            transaction_id=user * 1000 + number,
            amount=Decimal(user * 100 + number % 7) + Decimal("0.25"),
            posted_on=date(2020 + user, 1, 1) + timedelta(days=number // 3),
            description=None if number % 5 == 0 else f"user {user}, row {number} 'quoted' \"twice\" 🙂 ü",
            generation=generation,
        )
        for user in USERS
        for number in range(ROWS_PER_USER)
    ]


def create_tables(connection: duckdb.DuckDBPyConnection, generation: int) -> None:
    for spec in SPECS:
        columns = ", ".join(f"{column.name} {column.type}" for column in spec.columns)
        connection.execute(f"CREATE OR REPLACE TABLE {spec.name} ({columns})")
        connection.execute(f"COMMENT ON TABLE {spec.name} IS '{spec.description}'")
        for column in spec.columns:
            if column.description:
                connection.execute(f"COMMENT ON COLUMN {spec.name}.{column.name} IS {literal(column.description)}")
    rows = ", ".join(
        f"({row.user_id}, {row.transaction_id}, {row.amount}, '{row.posted_on}', "
        f"{'NULL' if row.description is None else literal(row.description)}, {row.generation})"
        for row in transactions(generation)
    )
    connection.execute(f"INSERT INTO fct_transactions VALUES {rows}")
    connection.execute("INSERT INTO dim_categories SELECT i, 'category ' || i, ? FROM range(5) t(i)", [generation])


def write_parquet(directory: Path, generation: int) -> None:
    with duckdb.connect() as connection:
        create_tables(connection, generation)
        for spec in SPECS:
            connection.execute(f"COPY {spec.name} TO '{directory / spec.name}.parquet' (ROW_GROUP_SIZE 2048)")


def publish(store: SnapshotStore, generation: int) -> Manifest:
    with store.build(f"run-{generation}", holder="test", wait=30) as build:
        write_parquet(build.path, generation)
        return build.publish(SPECS)


def write_file(path: Path, generation: int) -> None:
    with duckdb.connect(str(path)) as connection:
        create_tables(connection, generation)


def damage(store: SnapshotStore, snapshot: str, mart: str = "dim_categories") -> None:
    """Turn one bit in the middle of a published file; size and time of its last write stay."""
    path = store.root / "snapshots" / snapshot / f"{mart}.parquet"
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
