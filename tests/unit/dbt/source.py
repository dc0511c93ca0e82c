"""A small embedded source whose rows the tests know: 40 users, 24,000 transactions, 1,200 transfers."""

from pathlib import Path

import duckdb

USERS = 40
TRANSACTIONS = 24_000
TRANSFERS = 1_200
BUDGETS = USERS * 2 * 12

TABLES = f"""
CREATE TABLE users AS SELECT
    CAST(i + 1 AS INTEGER) AS user_id, 'user' || i || '@example.org' AS email,
    'Zoë "Zo" O''Neil 🎉 ' || i AS full_name, 'DE' AS country,
    TIMESTAMPTZ '2023-12-01 08:00:00+00' AS created_at, CASE WHEN i % 3 = 0 THEN 'remember' END AS note
FROM range({USERS}) AS t(i);

CREATE TABLE categories AS SELECT * FROM (VALUES
    (1, NULL, 'Living', 'expense'), (2, 1, 'Food', 'expense'), (3, 1, 'Rent', 'expense'),
    (4, NULL, 'Income', 'income'), (5, 4, 'Salary', 'income')
) AS t(category_id, parent_id, name, kind);

CREATE TABLE merchants AS SELECT
    CAST(i + 1 AS INTEGER) AS merchant_id, 'Shop ' || i AS name, 2 AS category_id,
    CAST(NULL AS VARCHAR) AS city, CAST(NULL AS VARCHAR) AS website
FROM range(10) AS t(i);

-- Three accounts per user u: 3u-2 is for spending, 3u-1 for saving, 3u the outside world.
CREATE TABLE accounts AS SELECT
    CAST((user_id - 1) * 3 + n AS BIGINT) AS account_id, user_id, kind, kind || ' account' AS name, 'EUR' AS currency,
    CAST(CASE WHEN kind = 'external' THEN 0 ELSE 100 * user_id END AS DECIMAL(14, 2)) AS opening_balance,
    CAST(0 AS DECIMAL(14, 2)) AS balance, DATE '2023-12-01' AS opened_on,
    CASE WHEN user_id = 1 AND kind = 'savings' THEN DATE '2025-01-01' END AS closed_on
FROM users, (VALUES (1, 'checking'), (2, 'savings'), (3, 'external')) AS k(n, kind);

-- Numbered by time and not by user, as a source is; every 20th is a salary.
CREATE TABLE transactions AS SELECT
    CAST(i + 1 AS BIGINT) AS transaction_id, CAST((i % {USERS}) * 3 + 1 AS BIGINT) AS account_id,
    CASE WHEN i % 5 > 0 THEN CAST(i % 10 + 1 AS INTEGER) END AS merchant_id,
    CAST(CASE WHEN i % 41 = 0 THEN 5 ELSE 2 + i % 2 END AS INTEGER) AS category_id,
    CAST(CASE WHEN i % 41 = 0 THEN 2000 ELSE -(1 + i % 97) END + 0.01 * (i % 89) AS DECIMAL(12, 2)) AS amount,
    'EUR' AS currency, CASE WHEN i % 7 > 0 THEN 'bought „' || i || '“' END AS description,
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL 21 MINUTE * i AS posted_at
FROM range({TRANSACTIONS}) AS t(i);

-- To the user's own savings, and every third to somebody else's.
CREATE TABLE transfers AS SELECT
    CAST(i + 1 AS BIGINT) AS transfer_id, CAST((i % {USERS}) * 3 + 1 AS BIGINT) AS from_account_id,
    CAST(((i + CASE WHEN i % 3 = 0 THEN 7 ELSE 0 END) % {USERS}) * 3 + 2 AS BIGINT) AS to_account_id,
    CAST(10 + 0.5 * (i % 50) AS DECIMAL(12, 2)) AS amount, CAST(NULL AS VARCHAR) AS description,
    TIMESTAMPTZ '2024-01-02 12:00:00+00' + INTERVAL 7 HOUR * i AS transferred_at
FROM range({TRANSFERS}) AS t(i);

CREATE TABLE budgets AS SELECT
    CAST(row_number() OVER (ORDER BY month, user_id, category_id) AS INTEGER) AS budget_id,
    user_id, category_id, CAST(month AS DATE) AS month, CAST(300 AS DECIMAL(12, 2)) AS amount
FROM users, (VALUES (2), (3)) AS c(category_id),
    generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-12-01', INTERVAL 1 MONTH) AS m(month);

UPDATE accounts SET balance = opening_balance + coalesce((
    SELECT sum(moved.amount) FROM (
        SELECT account_id, amount FROM transactions
        UNION ALL SELECT account_id + 2, -amount FROM transactions
        UNION ALL SELECT from_account_id, -amount FROM transfers
        UNION ALL SELECT to_account_id, amount FROM transfers
    ) AS moved WHERE moved.account_id = accounts.account_id
), 0);
"""


def create_source(path: Path, *, then: str = "SELECT 1") -> Path:
    """Create the source in the DuckDB file ``path``, then run the statements ``then`` on it."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(TABLES)
        connection.execute(then)
    return path
