"""What readers ask: single reads, batches, walks through pages. Users are told apart by number, 0 sees all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL_ROWS = 0
MAX_LIMIT = 10_000


@dataclass(frozen=True)
class Query:
    """A query of one dataset, as it stands in a URL; ``filters`` are pairs of column and text it has to equal."""

    dataset: str
    select: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    limit: int = MAX_LIMIT
    offset: int = 0

    @property
    def params(self) -> dict[str, str]:
        return {
            **({"select": ",".join(self.select)} if self.select else {}),
            **({"order": ",".join(self.order)} if self.order else {}),
            **{column: f"eq.{text}" for column, text in self.filters},
            "limit": str(self.limit),
            **({"offset": str(self.offset)} if self.offset else {}),
        }


@dataclass(frozen=True)
class Read:
    """One request and who makes it. ``kind`` is how it is counted; it decides what is checked."""

    kind: str  # listing, dataset, rows, batch, page
    user: int
    queries: tuple[Query, ...] = ()
    batch: str = ""
    cursor: str | None = field(default=None, compare=False)  # of a page: where it begins is in the query's offset

    @property
    def name(self) -> str:
        what = self.batch or ", ".join(f"{query.dataset} {query.params}" for query in self.queries)
        return f"{self.kind} {what}, user {self.user or 'with all rows'}"

    def request(self) -> tuple[str, str, Mapping[str, str] | None, object]:
        """Method, path, URL parameters and body."""
        if self.kind == "listing":
            return "GET", "/api/analytics/datasets", None, None
        if self.kind == "batch":
            queries = [{"dataset": query.dataset, **query.params} for query in self.queries]
            body = [{**query, "limit": int(query["limit"])} for query in queries]
            return "POST", "/api/analytics/query", None, {"queries": body}
        (query,) = self.queries
        if self.kind == "dataset":
            return "GET", f"/api/analytics/datasets/{query.dataset}", None, None
        params = {"cursor": self.cursor} if self.cursor else query.params
        return "GET", f"/api/analytics/datasets/{query.dataset}/query", params, None


TRANSACTIONS = Query(
    "fct_transactions",
    select=("transaction_id", "account_id", "category_id", "category_kind", "posted_on", "amount"),
)
ACCOUNTS = Query("dim_accounts", select=("user_id", "account_id", "kind", "opening_balance", "balance"))

BATCHES: Mapping[str, tuple[Query, ...]] = {
    # Of one user: every mart that holds their money.
    "one user's books": (
        ACCOUNTS,
        TRANSACTIONS,
        Query("fct_transfers", select=("account_id", "amount")),
        Query("agg_monthly_cashflow"),
        Query("agg_monthly_category", select=("month", "category_id", "total", "transaction_count")),
        Query("agg_daily_balance", select=("account_id", "day", "closing_balance"), order=("day.desc",)),
        Query("agg_budget_monthly", select=("month", "category_id", "budget", "spent", "remaining")),
    ),
    # Of all users: what fits into one page of each mart.
    "the bank's books": (
        ACCOUNTS,
        Query("agg_monthly_cashflow", select=("user_id", "month", "net")),
        Query("agg_daily_balance", select=("account_id", "day", "closing_balance"), order=("day.desc",), limit=2_000),
    ),
}

SINGLE = (
    Query("fct_transactions", select=("posted_on", "amount", "description"), order=("posted_on.desc",), limit=100),
    Query("fct_transactions", filters=(("category_name", "Rent"),), order=("amount.desc", "transaction_id"), limit=50),
    Query("fct_transactions", order=("category_name", "posted_at.desc"), limit=200, offset=30),
    Query("fct_transfers", order=("transferred_at.desc", "transfer_id"), limit=100),
    Query("agg_monthly_cashflow", select=("month", "net", "savings_rate"), order=("month.desc",), limit=24),
    Query("agg_daily_balance", order=("closing_balance.desc", "account_id", "day"), limit=200, offset=37),
    Query("agg_monthly_category", order=("total",), limit=500),
    Query("agg_budget_monthly", order=("month.desc", "spent.desc"), limit=60),
    Query("fct_budgets", order=("amount.desc",), limit=100),
    Query("dim_users", select=("user_id", "full_name", "note")),
    Query("dim_accounts"),
    Query("dim_merchants", order=("name.desc",)),
    Query("dim_categories", select=("category_id", "path")),
)

# Without an order: pages then come in the mart's own, and all of them together are the whole mart.
WALKS = {
    "one user": (Query("fct_transactions", limit=150), Query("agg_daily_balance", limit=200)),
    "all rows": (
        Query("fct_transactions", limit=5_000),
        Query("agg_daily_balance", limit=8_000),
        Query("agg_monthly_category", limit=4_000),
        Query("fct_transfers", limit=3_000),
    ),
}
KEYS: Mapping[str, tuple[str, ...]] = {
    "fct_transactions": ("transaction_id",),
    "fct_transfers": ("transfer_id", "direction"),
    "agg_daily_balance": ("account_id", "day"),
    "agg_monthly_category": ("user_id", "month", "category_id"),
}
"""What no two rows of a mart that is walked through have in common."""
