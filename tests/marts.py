"""What this project's marts are, for every test that has to know."""

BASE = frozenset(
    {"dim_users", "dim_accounts", "dim_categories", "dim_merchants", "fct_transactions", "fct_transfers", "fct_budgets"}
)
DERIVED = frozenset({"agg_monthly_cashflow", "agg_monthly_category", "agg_daily_balance", "agg_budget_monthly"})
MARTS = BASE | DERIVED

# Accounts of the source whose balance is not what they opened with and every movement since: none, ever.
WRONG_BALANCES = """
    WITH moved AS (
        SELECT account_id, amount FROM transactions
        UNION ALL
        SELECT e.account_id, -t.amount FROM transactions AS t
        JOIN accounts AS a USING (account_id)
        JOIN accounts AS e ON e.user_id = a.user_id AND e.kind = 'external'
        UNION ALL SELECT from_account_id, -amount FROM transfers
        UNION ALL SELECT to_account_id, amount FROM transfers
    )
    SELECT account_id, opening_balance, balance, sum(amount) FROM accounts LEFT JOIN moved USING (account_id)
    GROUP BY account_id, opening_balance, balance HAVING balance <> opening_balance + coalesce(sum(amount), 0)
"""
