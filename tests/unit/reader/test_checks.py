"""The reader's checks see what they are for, and nothing where all is well."""

from decimal import Decimal

import pytest

from tests.e2e.reader import checks

D = Decimal
ACCOUNTS = [
    {"user_id": 1, "account_id": 1, "kind": "checking", "opening_balance": D("100.00"), "balance": D("89.50")},
    {"user_id": 1, "account_id": 2, "kind": "savings", "opening_balance": D("0.00"), "balance": D("20.00")},
    {"user_id": 1, "account_id": 3, "kind": "external", "opening_balance": D("0.00"), "balance": D("-9.50")},
]
TRANSACTIONS = [
    {
        "transaction_id": number, "account_id": 1, "category_id": category, "category_kind": kind, "posted_on": day,
        "amount": D(amount),
    }
    for number, category, kind, day, amount in [
        (1, 2, "expense", "2024-01-31", "-10.00"),
        (2, 2, "expense", "2024-02-01", "-0.50"),
        (3, 5, "income", "2024-02-02", "20.00"),
    ]
]  # fmt: skip
TRANSFERS = [{"account_id": 1, "amount": D("-20.00")}, {"account_id": 2, "amount": D("20.00")}]
CASHFLOW = [
    {"month": "2024-01-01", "income": D("0.00"), "expense": D("10.00"), "net": D("-10.00"), "transaction_count": 1},
    {"month": "2024-02-01", "income": D("20.00"), "expense": D("0.50"), "net": D("19.50"), "transaction_count": 2},
]
CATEGORIES = [
    {"month": "2024-01-01", "category_id": 2, "total": D("-10.00"), "transaction_count": 1},
    {"month": "2024-02-01", "category_id": 2, "total": D("-0.50"), "transaction_count": 1},
    {"month": "2024-02-01", "category_id": 5, "total": D("20.00"), "transaction_count": 1},
]
BUDGETS = [
    {"month": "2024-01-01", "category_id": 2, "budget": D("8.00"), "spent": D("10.00"), "remaining": D("-2.00")},
    {"month": "2024-01-01", "category_id": 3, "budget": D("8.00"), "spent": D("0.00"), "remaining": D("8.00")},
]
DAILY = [
    {"account_id": 1, "day": "2024-02-02", "closing_balance": D("89.50")},
    {"account_id": 1, "day": "2024-02-01", "closing_balance": D("69.50")},
    {"account_id": 2, "day": "2024-01-20", "closing_balance": D("20.00")},
]


def changed(rows, number, **values):
    return [{**row, **values} if i == number else row for i, row in enumerate(rows)]


AGREEING = [
    (checks.balances_follow, [ACCOUNTS, TRANSACTIONS, TRANSFERS]),
    (checks.cashflow_follows, [CASHFLOW, TRANSACTIONS]),
    (checks.categories_follow, [CATEGORIES, TRANSACTIONS]),
    (checks.budgets_follow, [BUDGETS, TRANSACTIONS]),
    (checks.closing_balances_follow, [DAILY, ACCOUNTS]),
    (checks.outside_mirrors_cashflow, [ACCOUNTS, [{"user_id": 1, **row} for row in CASHFLOW]]),
]


@pytest.mark.parametrize(("check", "marts"), AGREEING)
def test_marts_of_one_moment_agree(check, marts):
    assert list(check(*marts)) == []


@pytest.mark.parametrize(
    ("check", "marts"),
    [
        (checks.balances_follow, [changed(ACCOUNTS, 0, balance=D("89.51")), TRANSACTIONS, TRANSFERS]),
        (checks.balances_follow, [ACCOUNTS, TRANSACTIONS, TRANSFERS[:1]]),
        (checks.balances_follow, [ACCOUNTS, TRANSACTIONS[:2], TRANSFERS]),
        (checks.cashflow_follows, [changed(CASHFLOW, 1, net=D("19.51")), TRANSACTIONS]),
        (checks.cashflow_follows, [changed(CASHFLOW, 1, transaction_count=3), TRANSACTIONS]),
        (checks.cashflow_follows, [CASHFLOW[:1], TRANSACTIONS]),
        (checks.cashflow_follows, [CASHFLOW, []]),
        (checks.categories_follow, [CATEGORIES, changed(TRANSACTIONS, 0, category_id=3)]),
        (checks.categories_follow, [CATEGORIES, TRANSACTIONS[1:]]),
        (checks.budgets_follow, [BUDGETS, changed(TRANSACTIONS, 0, amount=D("-9.99"))]),
        (checks.closing_balances_follow, [DAILY, changed(ACCOUNTS, 1, balance=D("20.01"))]),
        (checks.closing_balances_follow, [DAILY, ACCOUNTS[:1]]),
        (checks.outside_mirrors_cashflow, [ACCOUNTS, [{"user_id": 1, **CASHFLOW[0]}]]),
    ],
)
def test_a_cent_or_a_row_of_another_moment_is_seen(check, marts):
    assert len(list(check(*marts))) == 1


def test_a_sum_of_balances_that_is_not_the_one_at_the_start_is_seen():
    assert list(checks.sum_is_constant(ACCOUNTS, D("100.00"))) == []
    assert list(checks.sum_is_constant(ACCOUNTS, None)) == []
    assert list(checks.sum_is_constant(ACCOUNTS, D("100.01")))
    assert list(checks.sum_is_constant(changed(ACCOUNTS, 2, balance=D("-9.49")), None))


def result(rows, **values):
    columns = [{"name": "user_id", "type": "INTEGER"}, {"name": "n", "type": "INTEGER"}]
    return {"rows": rows, "row_count": len(rows), "columns": columns, "snapshot": "a", "last_refresh": "t", **values}


def test_an_answer_that_is_cut_short_or_of_somebody_else_is_seen():
    rows = [{"user_id": 1, "n": 1}, {"user_id": 1, "n": 2}]
    assert list(checks.whole(result(rows), 1)) == []
    assert list(checks.whole(result(rows, row_count=3), 1))
    assert list(checks.whole(result([{"user_id": 1}]), 1))
    assert list(checks.whole(result(rows), 2))
    assert list(checks.whole(result(rows), 0)) == []


def test_a_batch_of_two_snapshots_is_seen():
    batch = {"results": [result([]), result([])], "snapshot": "a", "last_refresh": "t"}
    assert list(checks.one_snapshot("a", batch)) == []
    assert list(checks.one_snapshot("b", batch))
    assert list(checks.one_snapshot(None, batch))
    assert list(checks.one_snapshot("a", {**batch, "results": [result([]), result([], snapshot="b")]}))
    assert list(checks.one_snapshot("a", {**batch, "results": [result([], last_refresh="u")]}))


def test_a_row_on_two_pages_and_pages_of_two_snapshots_are_seen():
    assert list(checks.one_walk([("a", [(1,), (2,)]), ("a", [(3,)])])) == []
    assert list(checks.one_walk([("a", [(1,), (2,)]), ("a", [(2,)])]))
    assert list(checks.one_walk([("a", [(1,), (2,)]), ("b", [(3,)])]))


def saw(*steps):
    clock = checks.Clock()
    return [what for snapshot, rollbacks in steps for what in clock.saw(snapshot, rollbacks)]


def test_a_step_back_is_seen_unless_a_rollback_was_announced():
    assert saw(("1", []), ("2", []), ("2", [])) == []
    assert len(saw(("2", []), ("1", []))) == 1
    assert saw(("2", []), ("1", ["1"]), ("2", ["1", "2"]), ("1", ["1", "2", "1"])) == []


def test_a_rollback_excuses_one_step_back_to_its_target_and_no_other():
    assert len(saw(("3", []), ("1", ["2"]))) == 1
    assert len(saw(("2", []), ("1", ["1"]), ("2", ["1"]), ("1", ["1"]))) == 1


def test_a_snapshot_that_vanishes_is_a_step_back():
    assert len(saw(("2", []), (None, []))) == 1
    assert saw((None, []), ("1", [])) == []


def test_numbers_are_read_to_the_digit():
    assert checks.parse(b'{"a": 1.50, "b": 0.1, "c": 3}') == {"a": D("1.50"), "b": D("0.1"), "c": 3}
