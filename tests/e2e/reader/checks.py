"""What is wrong with an answer, judged by the answer alone: a line for each violation, nothing when all is well.

Rows are dictionaries as ``parse`` makes them. No check knows a snapshot's content: these work on any target, whatever
it stores its marts in.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

Rows = Sequence[Mapping[str, Any]]
_NOTHING = Decimal(0)


def parse(body: bytes) -> Any:
    """JSON with numbers to the digit. Raises ValueError where it is not whole."""
    return json.loads(body, parse_float=Decimal)


def money(value: Any) -> Decimal:
    return Decimal(value)


def sum_by(rows: Rows, *keys: str, amount: str = "amount") -> dict[tuple[Any, ...], Decimal]:
    sums: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[tuple(row[key] for key in keys)] += money(row[amount])
    return sums


def differences(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any], default: Any = None) -> Iterator[str]:
    """One line for all keys whose values differ, naming the first; a missing one counts as ``default``."""
    keys = sorted((k for k in {*found, *expected} if found.get(k, default) != expected.get(k, default)), key=repr)
    if keys:
        key = keys[0]
        yield (
            f"{what}: {len(keys)} of {len({*found, *expected})} disagree, first {key!r}: "
            f"{found.get(key, default)} is shown, {expected.get(key, default)} follows from the other mart"
        )


def whole(result: Mapping[str, Any], user: int) -> Iterator[str]:
    """One result is complete in itself and shows nobody else's rows."""
    rows, names = result["rows"], [column["name"] for column in result["columns"]]
    if result["row_count"] != len(rows):
        yield f"row_count is {result['row_count']}, there are {len(rows)} rows"
    if any(list(row) != names for row in rows):
        yield f"a row's columns are not {names}"
    if user and any(row.get("user_id", user) != user for row in rows):
        yield f"rows of other users are shown to user {user}"


def one_snapshot(header: str | None, answer: Mapping[str, Any]) -> Iterator[str]:
    """The header, the answer and each of its results name the same snapshot and the same moment."""
    parts = [answer, *answer.get("results", [])]
    if len({(part["snapshot"], part["last_refresh"]) for part in parts}) > 1:
        yield f"results of several snapshots: {sorted({str(part['snapshot']) for part in parts})}"
    if header != answer["snapshot"]:
        yield f"X-Snapshot-Id is {header}, the body's snapshot {answer['snapshot']}"


def sum_is_constant(accounts: Rows, constant: Decimal | None) -> Iterator[str]:
    """Money only moves between accounts. ``constant`` is the sum at the start; None where that is not known."""
    total = sum((money(row["balance"]) for row in accounts), _NOTHING)
    opened = sum((money(row["opening_balance"]) for row in accounts), _NOTHING)
    if total != (opened if constant is None else constant):
        yield f"balances sum to {total}, not to {opened if constant is None else constant}"


def balances_follow(accounts: Rows, transactions: Rows, transfers: Rows) -> Iterator[str]:
    """Of one user: each balance is what the account opened with and every movement on it."""
    moved = sum_by([*transactions, *transfers], "account_id")
    spent = sum((money(row["amount"]) for row in transactions), _NOTHING)
    yield from differences(
        "balances against movements",
        {row["account_id"]: money(row["balance"]) for row in accounts},
        {
            row["account_id"]: money(row["opening_balance"])
            + (moved.get((row["account_id"],), _NOTHING))
            - (spent if row["kind"] == "external" else _NOTHING)
            for row in accounts
        },
    )


def cashflow_follows(cashflow: Rows, transactions: Rows) -> Iterator[str]:
    """Of one user: each month's income, expense, net and count are those of its transactions."""
    months: defaultdict[str, list[Any]] = defaultdict(lambda: [_NOTHING, _NOTHING, _NOTHING, 0])
    for row in transactions:
        month, amount = months[row["posted_on"][:7]], money(row["amount"])
        month[0] += amount if row["category_kind"] == "income" else _NOTHING
        month[1] -= amount if row["category_kind"] == "expense" else _NOTHING
        month[2] += amount
        month[3] += 1
    shown = {
        row["month"][:7]: [*(money(row[c]) for c in ("income", "expense", "net")), row["transaction_count"]]
        for row in cashflow
    }
    yield from differences("monthly cash flow against transactions", shown, months)


def categories_follow(categories: Rows, transactions: Rows) -> Iterator[str]:
    """Of one user: each month's total and count by category are those of its transactions."""
    months = [{**row, "month": row["posted_on"][:7]} for row in transactions]
    totals, counts = sum_by(months, "month", "category_id"), Counter((r["month"], r["category_id"]) for r in months)
    yield from differences(
        "monthly categories against transactions",
        {(r["month"][:7], r["category_id"]): (money(r["total"]), r["transaction_count"]) for r in categories},
        {key: (total, counts[key]) for key, total in totals.items()},
    )


def budgets_follow(budgets: Rows, transactions: Rows) -> Iterator[str]:
    """Of one user: what was spent of each budget is what its month's transactions in its category are."""
    months = [{**row, "month": row["posted_on"][:7]} for row in transactions]
    sums = sum_by(months, "month", "category_id")
    shown, expected = {}, {}
    for row in budgets:
        month, category = row["month"], row["category_id"]
        spent = -sums.get((month[:7], category), _NOTHING)
        shown[month, category] = money(row["spent"]), money(row["remaining"])
        expected[month, category] = spent, money(row["budget"]) - spent
    yield from differences("budgets against transactions", shown, expected)


def closing_balances_follow(daily: Rows, accounts: Rows) -> Iterator[str]:
    """The newest of the closing balances shown (newest first) is the account's balance."""
    last = {row["account_id"]: money(row["closing_balance"]) for row in reversed(daily)}
    balances = {row["account_id"]: money(row["balance"]) for row in accounts}
    yield from differences("closing balances against accounts", last, {key: balances.get(key) for key in last})


def outside_mirrors_cashflow(accounts: Rows, cashflow: Rows) -> Iterator[str]:
    """Each user's account of the outside world has moved by all that the user's months net to."""
    nets = sum_by(cashflow, "user_id", amount="net")
    outside = [row for row in accounts if row["kind"] == "external"]
    yield from differences(
        "accounts of the outside world against monthly cash flow",
        {row["user_id"]: money(row["balance"]) - money(row["opening_balance"]) for row in outside},
        {row["user_id"]: -nets.get((row["user_id"],), _NOTHING) for row in outside},
    )


def batch_agrees(batch: str, results: Sequence[Mapping[str, Any]], constant: Decimal | None) -> Iterator[str]:
    """The marts of one batch are of one moment: each of them follows from the others, to the cent."""
    rows = [result["rows"] for result in results]
    if batch == "one user's books":
        accounts, transactions, transfers, cashflow, categories, daily, budgets = rows
        yield from balances_follow(accounts, transactions, transfers)
        yield from cashflow_follows(cashflow, transactions)
        yield from categories_follow(categories, transactions)
        yield from budgets_follow(budgets, transactions)
    else:
        accounts, cashflow, daily = rows
        yield from sum_is_constant(accounts, constant)
        yield from outside_mirrors_cashflow(accounts, cashflow)
    yield from closing_balances_follow(daily, accounts)


def one_walk(pages: Iterable[tuple[str | None, Sequence[tuple[Any, ...]]]]) -> Iterator[str]:
    """Pages, each a snapshot and its rows' keys: all of one snapshot, and no row on two of them."""
    pages = list(pages)
    if len(snapshots := {snapshot for snapshot, _ in pages}) > 1:
        yield f"pages of several snapshots: {sorted(map(str, snapshots))}"
    keys = Counter(key for _, page in pages for key in page)
    if len(keys) != keys.total():
        yield f"{keys.total() - len(keys)} rows came twice, first {keys.most_common(1)[0][0]}"


class Clock:
    """What one client has seen: snapshots follow each other in time, unless a rollback was announced in between.

    ``across_phases``: answers without a snapshot are phase 0's, and come and go as it does.
    """

    def __init__(self, *, across_phases: bool = False) -> None:
        self._across_phases = across_phases
        self._last: str | None = None
        self._rollbacks = 0

    def saw(self, snapshot: str | None, rollbacks: Sequence[str]) -> Iterator[str]:
        """``rollbacks`` are the targets of all that were announced so far, in order; it excuses one step back."""
        if snapshot is None and self._across_phases:
            return
        last, self._last = self._last, snapshot
        if last is None or (snapshot is not None and snapshot >= last):
            return
        if snapshot in rollbacks[self._rollbacks :]:
            self._rollbacks = len(rollbacks)
        else:
            yield f"went back from snapshot {last} to {snapshot}, and no rollback was announced"
