"""What every peer is asked: five questions, each as SQL, as a request to our API, and with an answer to be equal.

``SERIAL`` stands in every request for a number that is never used twice, in a condition that is always true: an answer
that was cached for another number is no answer to this one. Asked with one number over and over, it is what a cache is
for.
"""

from __future__ import annotations

from dataclasses import dataclass

SERIAL = "SERIALNUMBER"
FIRST_SERIAL = 100_000_000_000
"""As many digits as ``SERIAL`` has letters, so that no request's length depends on its number."""

TRANSACTIONS = "fct_transactions"
ACCOUNTS = "dim_accounts"

_NEWEST = "posted_at.desc,transaction_id.desc"


@dataclass(frozen=True)
class Query:
    """A query of the API: a dataset, and parameters as they stand in a URL."""

    dataset: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Question:
    """One question.

    ``sql`` has ``{user}``, where it is about one user, and ``{above}``, both for ``str.format``; ``queries`` are the
    API's, a POST where there are several. ``decimals`` are columns of the answer. ``ordered``: the order of its rows is
    part of the answer.
    """

    name: str
    title: str
    sql: str
    queries: tuple[Query, ...]
    decimals: tuple[str, ...]
    ordered: bool = True
    arrow: bool = False

    @property
    def of_a_user(self) -> bool:
        """Whether it is about one user's rows, else about everybody's."""
        return "{user}" in self.sql

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters of ``sql``, in the order that numbered placeholders have."""
        return ("user", "above") if self.of_a_user else ("above",)


_ABOVE = ("transaction_id", f"gt.-{SERIAL}")
_TEN_THOUSAND = f"SELECT * FROM {TRANSACTIONS} WHERE transaction_id > -{{above}} AND transaction_id <= 10000"
_TEN_THOUSAND_ROWS = Query(TRANSACTIONS, (_ABOVE, ("transaction_id", "lte.10000"), ("limit", "10000")))
_MONTHS = "month:posted_on.trunc(month),total:amount.sum(),number:count()"
_CATEGORIES = "category_name,total:amount.sum(),number:count(),latest:posted_on.max()"
_MOVEMENTS = "transaction_id,posted_at,amount,account_id"

QUESTIONS = {
    question.name: question
    for question in (
        Question(
            "Q1",
            "the 100 newest rows of one user",
            f"SELECT * FROM {TRANSACTIONS} WHERE user_id = {{user}} AND transaction_id > -{{above}} "
            "ORDER BY posted_at DESC, transaction_id DESC LIMIT 100",
            (Query(TRANSACTIONS, (_ABOVE, ("order", _NEWEST), ("limit", "100"))),),
            ("amount",),
        ),
        Question(
            "Q2",
            "one user by month",
            "SELECT CAST(date_trunc('month', posted_on) AS DATE) AS month, sum(amount) AS total, count(*) AS number "
            f"FROM {TRANSACTIONS} WHERE user_id = {{user}} AND transaction_id > -{{above}} GROUP BY 1 ORDER BY 1",
            (Query(TRANSACTIONS, (_ABOVE, ("select", _MONTHS), ("order", "month"))),),
            ("total",),
        ),
        Question(
            "Q3",
            "a group-by over a whole mart",
            "SELECT category_name, sum(amount) AS total, count(*) AS number, max(posted_on) AS latest "
            f"FROM {TRANSACTIONS} WHERE transaction_id > -{{above}} GROUP BY 1 ORDER BY 1",
            (Query(TRANSACTIONS, (_ABOVE, ("select", _CATEGORIES), ("order", "category_name"))),),
            ("total",),
        ),
        Question(
            "Q4",
            "a join of two marts for one user",
            "SELECT t.transaction_id, t.posted_at, t.amount, t.account_id, a.kind, a.balance, a.opened_on "
            f"FROM {TRANSACTIONS} AS t INNER JOIN {ACCOUNTS} AS a ON a.account_id = t.account_id "
            "WHERE t.user_id = {user} AND a.user_id = {user} AND t.transaction_id > -{above} "
            "ORDER BY t.posted_at DESC, t.transaction_id DESC LIMIT 100",
            (
                Query(TRANSACTIONS, (("select", _MOVEMENTS), _ABOVE, ("order", _NEWEST), ("limit", "100"))),
                Query(ACCOUNTS, (("select", "account_id,kind,balance,opened_on"), ("account_id", f"gt.-{SERIAL}"))),
            ),
            ("amount", "balance"),
        ),
        Question("Q5", "10,000 rows as JSON", _TEN_THOUSAND, (_TEN_THOUSAND_ROWS,), ("amount",), ordered=False),
        Question(
            "Q5 Arrow",
            "10,000 rows as Arrow",
            _TEN_THOUSAND,
            (_TEN_THOUSAND_ROWS,),
            ("amount",),
            ordered=False,
            arrow=True,
        ),
    )
}
