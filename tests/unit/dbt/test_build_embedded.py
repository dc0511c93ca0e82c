import os
from datetime import date

import duckdb
import pytest

from backend.audit import FINGERPRINT

from .runner import Build
from .source import BUDGETS, TRANSACTIONS, TRANSFERS, USERS, create_source

ORDER = {
    "dim_users": "user_id",
    "dim_accounts": "user_id, account_id",
    "dim_categories": "category_id",
    "dim_merchants": "merchant_id",
    "fct_transactions": "user_id, posted_at, transaction_id",
    "fct_transfers": "user_id, transferred_at, transfer_id, direction",
    "fct_budgets": "user_id, month, budget_id",
    "agg_monthly_cashflow": "user_id, month",
    "agg_monthly_category": "user_id, month, category_id",
    "agg_daily_balance": "user_id, day, account_id",
    "agg_budget_monthly": "user_id, month, category_id",
}

DESCRIBE = "DESCRIBE SELECT * FROM read_parquet(?)"


def query(sql, *parameters):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql, list(parameters)).fetchall()


def rows(build, mart, columns="*"):
    return query(f"SELECT {columns} FROM read_parquet(?)", str(build.mart(mart)))


def link_marts(build, target):
    """What the driver does before a partial build: the parent's files, hard-linked."""
    target.parquet.mkdir(parents=True)
    for path in build.parquet.iterdir():
        os.link(path, target.parquet / path.name)


def in_the_file(build, sql):
    with duckdb.connect(str(build.file), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


def test_every_mart_is_a_file_with_the_rows_of_its_grain(full_build):
    assert {path.stem for path in full_build.parquet.iterdir()} == set(ORDER)
    counts = {mart: rows(full_build, mart, "count(*)")[0][0] for mart in ORDER}
    assert counts["dim_users"] == USERS
    assert counts["dim_accounts"] == 3 * USERS
    assert counts["dim_categories"] == 5
    assert counts["fct_transactions"] == TRANSACTIONS
    assert counts["fct_transfers"] == 2 * TRANSFERS
    assert counts["fct_budgets"] == counts["agg_budget_monthly"] == BUDGETS
    assert counts["agg_monthly_cashflow"] == USERS * 12


def test_values_are_those_of_the_source(full_build):
    assert rows(full_build, "dim_users")[0][1:3] == ("user0@example.org", 'Zoë "Zo" O\'Neil 🎉 0')
    assert rows(full_build, "dim_categories", "path") == [
        (["Living"],),
        (["Living", "Food"],),
        (["Living", "Rent"],),
        (["Income"],),
        (["Income", "Salary"],),
    ]
    assert rows(full_build, "dim_accounts", "account_id, closed_on, is_open")[:2] == [
        (1, None, True),
        (2, date(2025, 1, 1), False),
    ]


def test_the_other_side_of_a_transfer_is_named_only_if_it_is_the_users_own(full_build):
    sides = rows(full_build, "fct_transfers", "transfer_id, direction, user_id, counterparty_account_id, amount")
    by_side = {(transfer, direction): tuple(rest) for transfer, direction, *rest in sides}
    assert [float(value or 0) for value in by_side[1, "out"]] == [1, 0, -10]
    assert [float(value or 0) for value in by_side[1, "in"]] == [8, 0, 10]
    assert [float(value or 0) for value in by_side[2, "out"]] == [2, 5, -10.5]
    assert [float(value or 0) for value in by_side[2, "in"]] == [2, 4, 10.5]


@pytest.mark.parametrize(("mart", "order"), ORDER.items())
def test_rows_lie_in_the_order_of_the_model(full_build, mart, order):
    path = str(full_build.mart(mart))
    expected = f"SELECT list(file_row_number ORDER BY {order}) FROM read_parquet(?, file_row_number = true)"
    ((numbers,),) = query(expected, path)
    assert numbers == sorted(numbers)


def test_statistics_prune_all_but_a_users_row_groups(full_build):
    groups = query(
        "SELECT CAST(stats_min AS INTEGER), CAST(stats_max AS INTEGER), compression, row_group_num_rows "
        "FROM parquet_metadata(?) WHERE path_in_schema = 'user_id' ORDER BY row_group_id",
        str(full_build.mart("fct_transactions")),
    )
    assert [group[3] for group in groups] == [10_240, 10_240, TRANSACTIONS - 20_480]
    assert {group[2] for group in groups} == {"ZSTD"}
    for user in range(1, USERS + 1):
        assert len([group for group in groups if group[0] <= user <= group[1]]) <= 2


def test_the_build_file_notes_what_was_landed_and_what_was_written(full_build):
    landed = in_the_file(full_build, "SELECT table_name, row_count, landed_at FROM landed._landing ORDER BY ALL")
    assert [table for table, *_ in landed] == [
        "accounts",
        "budgets",
        "categories",
        "merchants",
        "transactions",
        "transfers",
        "users",
    ]
    assert len({moment for *_, moment in landed}) == 1
    written = dict(in_the_file(full_build, "SELECT mart, fingerprint FROM _build.written"))
    fingerprint = f"SELECT {FINGERPRINT} FROM read_parquet(?) AS t"
    assert written == {mart: query(fingerprint, str(full_build.mart(mart)))[0][0] for mart in ORDER}


def test_an_aggregate_alone_builds_from_its_linked_upstream_and_without_the_source(full_build, tmp_path):
    partial = Build(tmp_path, tmp_path / "source.duckdb")
    duckdb.connect(str(partial.source)).close()
    link_marts(full_build, partial)
    before = full_build.mart("agg_monthly_cashflow").read_bytes()

    result = partial.dbt("build", "--select", "agg_monthly_cashflow")

    assert result.returncode == 0, result.stdout
    assert "PASS assert_monthly_cashflow_agrees_with_transactions" in result.stdout
    assert rows(partial, "agg_monthly_cashflow") == rows(full_build, "agg_monthly_cashflow")
    written, parent = partial.mart("agg_monthly_cashflow"), full_build.mart("agg_monthly_cashflow")
    assert not written.samefile(parent), "the build wrote through the link into the parent's file"
    assert parent.read_bytes() == before
    assert partial.mart("fct_transactions").samefile(full_build.mart("fct_transactions"))


def test_emptied_marts_have_no_rows_and_all_columns(full_build, tmp_path):
    source = create_source(tmp_path / "source.duckdb", then="DELETE FROM budgets")
    partial = Build(tmp_path, source)
    link_marts(full_build, partial)

    result = partial.dbt("build", "--select", "fct_budgets", "agg_budget_monthly")

    assert result.returncode == 0, result.stdout
    for mart in ("fct_budgets", "agg_budget_monthly"):
        assert rows(partial, mart) == []
        assert query(DESCRIBE, str(partial.mart(mart))) == query(DESCRIBE, str(full_build.mart(mart)))


def test_dbt_fails_on_money_from_nowhere_and_on_a_null_in_a_required_column(tmp_path):
    broken = """
        UPDATE accounts SET balance = balance + 0.01 WHERE account_id = 5;
        UPDATE users SET email = NULL WHERE user_id = 3;
    """
    build = Build(tmp_path, create_source(tmp_path / "source.duckdb", then=broken))

    result = build.dbt("build", "--select", "dim_accounts", "dim_users")

    assert result.returncode == 1
    assert "FAIL 1 assert_sum_of_balances_is_constant" in result.stdout
    assert "NOT NULL constraint failed: dim_users" in result.stdout
    assert not build.mart("dim_users").exists()


def test_without_a_directory_marts_are_tables_with_the_same_rows_in_the_same_order(full_build, tmp_path):
    build = Build(tmp_path, full_build.source, tables=True)

    result = build.dbt("build", "--exclude-resource-type", "unit_test")

    assert result.returncode == 0, result.stdout
    assert list(build.parquet.iterdir()) == []
    for mart in ORDER:
        assert in_the_file(build, f"SELECT * FROM {mart}") == rows(full_build, mart), mart
        types = [row[:2] for row in in_the_file(build, f"DESCRIBE {mart}")]
        assert types == [row[:2] for row in query(DESCRIBE, str(full_build.mart(mart)))]
    schemas = {schema for (schema,) in in_the_file(build, "SELECT DISTINCT schema_name FROM duckdb_tables()")}
    assert schemas == {"main"}, "what was landed stays out of the file that the backend reads"
    ((comment,),) = in_the_file(build, "SELECT comment FROM duckdb_tables() WHERE table_name = 'dim_users'")
    assert comment == "One row per user."
