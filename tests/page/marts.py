"""Marts with what a page can get wrong: long numbers, markup in text, nothing at all. Each row has its generation.

Columns that the page's promises name are those of the example's marts: the promises are kept on a stack as well.
"""

import duckdb

from backend.manifest import Column, MartSpec
from backend.quoting import quoted

USERS = (1, 2)
MARKUP = "<img src=x onerror=\"document.title='broken in'\"> & \"quotes\" 'too'"
# With quotes and signs; a parameter of the API's; what an object of JavaScript's has; one to be quoted; two spaces.
ODD = ('the "name", as it is.', "limit", "constructor", '"', "a  b")
_DESCRIPTIONS = f"[NULL, 'null', $text${MARKUP}$text$, '  two  spaces', 'ü 🙂', repeat('long ', 60), '']"

TRANSACTIONS = MartSpec(
    "fct_transactions",
    "Transactions",
    "One row per transaction.",
    (
        Column("transaction_id", "BIGINT", "Key."),
        Column("user_id", "INTEGER", "Whose row it is."),
        Column("category_name", "VARCHAR", ""),
        Column("posted_on", "DATE", "Day it was posted."),
        Column("posted_at", "TIMESTAMP WITH TIME ZONE", ""),
        Column("amount", "DECIMAL(12,2)", "In the account's currency."),
        Column("precise", "DECIMAL(38,10)", ""),
        Column("ratio", "DOUBLE", ""),
        Column("tags", "BIGINT[]", ""),
        Column("description", "VARCHAR", MARKUP),
        Column("generation", "INTEGER", ""),
    ),
)
CATEGORIES = MartSpec(
    "dim_categories",
    "Categories",
    "One row per category; every generation has one more.",
    (Column("category_id", "INTEGER", "Key."), Column("name", "VARCHAR", ""), Column("generation", "INTEGER", "")),
)
MERCHANTS = MartSpec(
    "dim_merchants",
    "Merchants",
    "One row per merchant.",
    (Column("merchant_id", "INTEGER", "Key."), *(Column(name, "VARCHAR", "Has a name of its own.") for name in ODD)),
)
SPECS = (CATEGORIES, MERCHANTS, TRANSACTIONS)
BIGGEST = 9007199254740993  # the first whole number that JavaScript has no number for


def categories(generation):
    """How many there are."""
    return 5 + generation


def publish(store, generation):
    with store.build(f"run-{generation}", holder="test", wait=30) as build, duckdb.connect() as connection:
        for name, query in _queries(generation).items():
            connection.execute(f"COPY ({query}) TO '{build.path / name}.parquet'")
        return build.publish(SPECS)


def _queries(generation):
    return {
        "dim_categories": f"SELECT i::INTEGER AS category_id, 'category ' || i AS name, {generation}::INTEGER "
        f"AS generation FROM range({categories(generation)}) t(i)",
        "dim_merchants": "SELECT i::INTEGER AS merchant_id, "
        + ", ".join(f"'merchant ' || i AS {quoted(name)}" for name in ODD)
        + " FROM range(3) t(i)",
        "fct_transactions": " UNION ALL ".join(
            f"""SELECT {BIGGEST} + i AS transaction_id,
                {user}::INTEGER AS user_id,
                'category ' || i % 5 AS category_name,
                DATE '2024-01-31' + (i // 2)::INTEGER AS posted_on,
                TIMESTAMPTZ '2024-01-31 23:59:59.123456+00' + INTERVAL (i) HOUR AS posted_at,
                ({user} * 1000 + i % 7 - 3 + 0.10)::DECIMAL(12,2) AS amount,
                '1234567890123456789012345678.9012345670'::DECIMAL(38,10) + i AS precise,
                CASE i % 4 WHEN 0 THEN 'NaN'::DOUBLE WHEN 1 THEN 100 WHEN 2 THEN 0.1 END AS ratio,
                [{BIGGEST}, NULL, i] AS tags,
                {_DESCRIPTIONS}[1 + i % 7] AS description,
                {generation}::INTEGER AS generation
            FROM range(120) t(i)"""
            for user in USERS
        ),
    }
