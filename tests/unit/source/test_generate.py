"""What the generated source promises: the same rows every time, exact to the cent, and awkward text."""

import hashlib
import re

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from deploy.source.generate import generate
from deploy.source.tables import AMOUNT, SCHEMAS, money
from tests.marts import WRONG_BALANCES


def digest(tables):
    sink = hashlib.sha256()
    for name, table in tables.items():
        sink.update(name.encode())
        for column in table.columns:
            sink.update(repr(column.to_pylist()).encode())
    return sink.hexdigest()


@pytest.fixture(scope="module")
def tables():
    return generate()


@pytest.fixture
def source(tables):
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        yield lambda sql: connection.execute(sql).fetchall()


def test_the_same_seed_gives_the_same_rows():
    assert digest(generate(0.1, 7)) == digest(generate(0.1, 7))


def test_another_seed_gives_other_rows():
    assert digest(generate(0.1, 7)) != digest(generate(0.1, 8))


def test_default_size(tables):
    assert tables["users"].num_rows == 200
    assert 95_000 <= tables["transactions"].num_rows <= 110_000
    assert all(table.num_rows for table in tables.values())


def test_scale_multiplies_users_and_with_them_transactions(tables):
    double = generate(2)
    assert double["users"].num_rows == 400
    assert double["transactions"].num_rows == pytest.approx(2 * tables["transactions"].num_rows, rel=0.1)
    assert double["categories"] == tables["categories"]


def test_the_smallest_source_still_has_two_users_who_send_each_other_money():
    small = generate(0.001)
    assert small["users"].num_rows == 2
    owner = dict(zip(*(small["accounts"][name].to_pylist() for name in ("account_id", "user_id")), strict=True))
    pairs = zip(*(small["transfers"][name].to_pylist() for name in ("from_account_id", "to_account_id")), strict=True)
    assert any(owner[sender] != owner[receiver] for sender, receiver in pairs)


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_a_scale_that_makes_no_sense_is_refused(scale):
    with pytest.raises(ValueError, match="must be positive"):
        generate(scale)


def test_tables_have_the_declared_schemas(tables):
    assert {name: table.schema for name, table in tables.items()} == SCHEMAS


def test_every_balance_is_opening_balance_plus_movements(source):
    assert source(WRONG_BALANCES) == []


def test_the_sum_of_balances_is_the_sum_of_opening_balances_and_not_zero(source):
    [(balance, opening)] = source("SELECT sum(balance), sum(opening_balance) FROM accounts")
    assert balance == opening != 0


def test_each_user_has_one_external_account_that_opened_at_zero(source):
    [(users, accounts, opening)] = source(
        "SELECT count(DISTINCT user_id), count(*), sum(abs(opening_balance)) FROM accounts WHERE kind = 'external'"
    )
    assert (users, accounts, opening) == (200, 200, 0)


def test_no_movement_touches_an_external_account_directly(source):
    assert source("""
        SELECT count(*) FROM accounts WHERE kind = 'external' AND account_id IN (
            SELECT account_id FROM transactions UNION ALL SELECT from_account_id FROM transfers
            UNION ALL SELECT to_account_id FROM transfers)
    """) == [(0,)]


@pytest.mark.parametrize(
    ("child", "column", "parent", "key"),
    [
        ("accounts", "user_id", "users", "user_id"),
        ("categories", "parent_id", "categories", "category_id"),
        ("merchants", "category_id", "categories", "category_id"),
        ("transactions", "account_id", "accounts", "account_id"),
        ("transactions", "merchant_id", "merchants", "merchant_id"),
        ("transactions", "category_id", "categories", "category_id"),
        ("transfers", "from_account_id", "accounts", "account_id"),
        ("transfers", "to_account_id", "accounts", "account_id"),
        ("budgets", "user_id", "users", "user_id"),
        ("budgets", "category_id", "categories", "category_id"),
    ],
)
def test_references_exist(source, child, column, parent, key):
    orphans = f"SELECT count(*) FROM {child} WHERE {column} NOT IN (SELECT {key} FROM {parent})"
    assert source(orphans) == [(0,)]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("users", "user_id"),
        ("users", "email"),
        ("accounts", "account_id"),
        ("categories", "category_id"),
        ("merchants", "merchant_id"),
        ("transactions", "transaction_id"),
        ("transfers", "transfer_id"),
        ("budgets", "budget_id"),
        ("budgets", "(user_id, category_id, month)"),
    ],
)
def test_keys_are_unique(source, table, key):
    assert source(f"SELECT count(*) - count(DISTINCT {key}) FROM {table}") == [(0,)]


@pytest.mark.parametrize(
    "impossible",
    [
        "SELECT 1 FROM transactions WHERE amount = 0",
        "SELECT 1 FROM transfers WHERE amount <= 0 OR from_account_id = to_account_id",
        "SELECT 1 FROM budgets WHERE day(month) <> 1 OR amount <= 0",
        "SELECT 1 FROM transactions JOIN accounts AS a USING (account_id) WHERE a.currency <> transactions.currency",
        """
        SELECT 1 FROM transfers JOIN accounts AS f ON f.account_id = from_account_id
        JOIN accounts AS t ON t.account_id = to_account_id WHERE f.currency <> t.currency
        """,
        "SELECT 1 FROM transactions WHERE currency = 'JPY' AND amount <> trunc(amount)",
        "SELECT 1 FROM accounts WHERE currency = 'JPY' AND balance <> trunc(balance)",
        "SELECT 1 FROM transactions JOIN accounts USING (account_id) WHERE posted_at > closed_on",
        "SELECT 1 FROM transfers JOIN accounts ON account_id = to_account_id WHERE transferred_at > closed_on",
        "SELECT 1 FROM transactions JOIN accounts USING (account_id) WHERE posted_at < opened_on",
        "SELECT 1 FROM accounts WHERE closed_on IS NOT NULL AND balance <> 0",
        "SELECT 1 FROM accounts WHERE kind = 'cash' AND balance < 0",
    ],
)
def test_the_impossible_does_not_happen(source, impossible):
    assert source(impossible) == []


def test_three_years_up_to_a_fixed_date(source):
    [(first, last)] = source("SELECT min(posted_at)::VARCHAR, max(posted_at)::VARCHAR FROM transactions")
    assert first.startswith("2023-01-01")
    assert last.startswith("2025-12-31")
    assert source("SELECT count(DISTINCT date_trunc('month', posted_at)) FROM transactions") == [(36,)]


def test_life_is_in_it(source):
    [(december, february)] = source("""
        SELECT -sum(amount) FILTER (month(posted_at) = 12), -sum(amount) FILTER (month(posted_at) = 2)
        FROM transactions JOIN categories AS c USING (category_id) WHERE c.name = 'Groceries' AND currency = 'EUR'
    """)
    assert december > february * 115 / 100
    assert source("SELECT count(*) FROM accounts WHERE closed_on IS NOT NULL")[0][0] > 0
    between_users = """
        SELECT count(*) FROM transfers JOIN accounts AS f ON f.account_id = from_account_id
        JOIN accounts AS t ON t.account_id = to_account_id WHERE f.user_id <> t.user_id
    """
    assert source(between_users)[0][0] > 500
    busy = "SELECT count(DISTINCT user_id) FROM accounts JOIN transactions USING (account_id)"
    assert source(busy) == [(198,)]


@pytest.mark.parametrize(
    "pattern",
    [
        "'", '"', r"\\", ",", r"\n", r"\t", "^$", "^ ", "[äöüß]", "[ŁŻğş]",
        "[\u4e00-\u9fff]", "[\u3040-\u30ff]", "[\U0001f300-\U0001faff]", "\u200d", "\u0645",
    ],
)  # fmt: skip
def test_text_has_what_breaks_careless_code(tables, pattern):
    texts = {
        text
        for table in tables.values()
        for field in table.schema
        if field.type == pa.string()
        for text in table[field.name].unique().to_pylist()
        if text is not None
    }
    assert any(re.search(pattern, text) for text in texts)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("users", "note"),
        ("accounts", "closed_on"),
        ("categories", "parent_id"),
        ("merchants", "city"),
        ("merchants", "website"),
        ("transactions", "merchant_id"),
        ("transactions", "description"),
        ("transfers", "description"),
    ],
)
def test_optional_columns_have_both_values_and_nulls(tables, table, column):
    assert 0 < tables[table][column].null_count < tables[table].num_rows


def test_money_is_exact_at_both_ends_of_its_type():
    largest = 10**12 - 1
    column = money(np.array([largest, -largest, 1, -1, 0]), AMOUNT)
    assert [str(value) for value in column.to_pylist()] == ["9999999999.99", "-9999999999.99", "0.01", "-0.01", "0.00"]


def test_money_that_does_not_fit_is_refused():
    with pytest.raises(OverflowError, match="does not fit"):
        money(np.array([10**12]), AMOUNT)
