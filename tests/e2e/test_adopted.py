"""Step 10 of deploy/ADOPT.md: Dagster in containers builds a dbt project of one's own, and the API serves it."""

import duckdb
import pytest

from tests.unit.adopted.shop import Shop

from .adopting import begun

SALE = "INSERT INTO sales VALUES (5, '1', 'Bell', 1, 995, '2025-01-05 16:00')"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop.of_an_owner(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def stack(shop, tmp_path_factory):
    """The stack that step 10 starts. Packages are installed, as by step 3."""
    stack, reader = begun(shop, tmp_path_factory.mktemp("adopted"), 2)
    try:
        reader.follow(10)
        stack.stop_schedule()
        yield stack
    finally:
        stack.down()


def test_it_needs_nothing_of_the_examples_source(stack):
    assert {"postgres", "source-seed"}.isdisjoint(stack.containers())


def test_each_user_sees_the_rows_that_are_theirs_by_the_projects_own_column(stack):
    for user in (1, 2):
        assert {row["customer_no"] for row in stack.rows("Sales", user_id=user)} == {str(user)}
    assert stack.rows("best_sellers", user_id=1), "a mart without such a column is everybody's"


def test_all_its_relations_are_assets_in_dagster(stack):
    nodes = stack.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert {
        ("finance", "sales_log"), ("reference", "product_groups"), ("customer_history",), ("prep", "Sales_Clean"),
    } < {tuple(node["assetKey"]["path"]) for node in nodes}  # fmt: skip


def test_builds_go_on_from_the_owners_file_and_then_from_each_other(stack, shop):
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        owners = dict(connection.execute("SELECT sale_no, loaded_by FROM main_finance.Sales").fetchall())
    assert {row["sale_no"]: row["loaded_by"] for row in stack.rows("Sales", all_rows=True)} == owners
    shop.ring_up(SALE)
    run_id = stack.build()
    after = {row["sale_no"]: row["loaded_by"] for row in stack.rows("Sales", all_rows=True)}
    assert after.pop(5) not in owners.values()
    assert after == owners
    assert stack.materialised(run_id)["sales_log"]["dagster/row_count"] == 5


def test_its_project_and_its_variables_are_nobody_elses(stack, shop):
    code, output = stack.exec("dagster-daemon", "touch", str(shop.project / "intruder"))
    assert code != 0
    assert "Read-only file system" in output
    assert not [name for name, container in stack.containers().items() if str(shop.till) in str(container.attrs)]
    assert stack.exec("backend", "ls", str(shop.root))[0] != 0
