"""A DuckDB file that is somebody's own: only what its catalog names is shown, and each user sees their rows of it."""

import duckdb
import pytest

from backend.catalog import Entry, path_of, read_catalog, withhold, write_catalog

from .api import assert_error, bearer, open_api

THEIRS = """
    CREATE SCHEMA "Fin ance";
    CREATE TABLE "Fin ance"."Sales.2024" AS
        SELECT * FROM (VALUES ('1', 10), ('2', 20), ('guest', 30)) AS t("Customer No", amount);
    CREATE TABLE totals AS SELECT 170141183460469231731687303715884105::HUGEINT AS total, 7 AS position, 8 AS rowid;
    CREATE TABLE staging AS SELECT 'secret' AS password;
    CREATE VIEW best AS SELECT max(amount) AS amount FROM "Fin ance"."Sales.2024";
    CREATE SCHEMA "their warehouse";
    CREATE TABLE "their warehouse"."their warehouse".named_alike AS SELECT 1 AS one;
    CREATE VIEW elsewhere AS FROM read_parquet('{parquet}');
"""
ENTRIES = (
    Entry("Sales", "fin ance", "sales.2024", scope="customer no", columns={"AMOUNT": "In euros."}),
    Entry("totals", "main", "totals", description="All of it."),
    Entry("best", "main", "best"),
    Entry("named_alike", "their warehouse", "named_alike"),
    Entry("elsewhere", "main", "elsewhere"),
    Entry("not built yet", "main", "not_built_yet"),
)


@pytest.fixture
def file(tmp_path):
    path, parquet = tmp_path / "their warehouse.db", tmp_path / "elsewhere.parquet"
    duckdb.sql("SELECT 1 AS one").write_parquet(str(parquet))
    with duckdb.connect(str(path)) as connection:
        connection.execute(THEIRS.format(parquet=parquet))
    return path


@pytest.fixture
def client(file):
    return open_api(duckdb_path=file, catalog=path_of(file))[0]


def rows(client, dataset, headers):
    answer = client.get(f"/api/analytics/datasets/{dataset}/query", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def test_nothing_is_shown_without_its_catalog(client):
    for path in ("/api/analytics/datasets", "/api/analytics/datasets/staging/query", "/health/ready"):
        assert_error(client.get(path, headers=bearer(all_rows=True)), 503, "no_snapshot")


def test_what_it_names_and_can_be_read_is_a_dataset_under_the_marts_name(client, file):
    write_catalog(file, ENTRIES)
    listed = client.get("/api/analytics/datasets", headers=bearer(all_rows=True)).json()["datasets"]
    assert {each["id"] for each in listed} == {"Sales", "totals", "best", "named_alike"}
    sales, totals = (next(each for each in listed if each["id"] == name) for name in ("Sales", "totals"))
    assert sales["columns"][1] == {"name": "amount", "type": "INTEGER", "description": "In euros."}
    assert totals["description"] == "All of it."
    assert rows(client, "best", bearer(1)) == [{"amount": 30}]


@pytest.mark.parametrize(("user", "amounts"), [(1, [10]), (2, [20]), (3, [])])
def test_a_user_sees_the_rows_of_the_projects_own_column(client, file, user, amounts):
    write_catalog(file, ENTRIES)
    assert [row["amount"] for row in rows(client, "Sales", bearer(user))] == amounts


def test_whole_numbers_beyond_64_bits_are_what_they_are_exported_as(client, file):
    write_catalog(file, ENTRIES)
    answer = client.get("/api/analytics/datasets/totals/query?order=position", headers=bearer(1))
    assert answer.json()["columns"] == [
        {"name": "total", "type": "DECIMAL(38,0)"},
        {"name": "position", "type": "INTEGER"},
        {"name": "rowid", "type": "INTEGER"},
    ]
    assert '"total":170141183460469231731687303715884105' in answer.text.replace(" ", "")


def test_a_catalog_that_is_none_is_an_error_and_not_the_whole_file(client, file):
    path_of(file).write_text('[{"mart": "staging"}]')
    assert_error(client.get("/api/analytics/datasets", headers=bearer(1)), 503, "data_unreadable")


@pytest.mark.parametrize("scope", ["user_id", "customer"])
def test_a_mart_is_withheld_while_it_may_be_said_of_a_column_that_is_not_there(client, file, scope):
    """Of the default, which a mart need not have, all rows would be shown to everybody."""
    write_catalog(file, [Entry("Sales", "Fin ance", "Sales.2024", "Customer No"), Entry("best", "main", "best")])
    withhold(file, [Entry("Sales", "fin ance", "sales.2024", scope), Entry("best", "main", "best"), ENTRIES[1]])
    assert [entry.mart for entry in read_catalog(path_of(file))] == ["best"]
    assert_error(client.get("/api/analytics/datasets/Sales/query", headers=bearer(1)), 404, "unknown_dataset")


def test_nothing_is_withheld_where_there_was_no_catalog_and_all_where_it_is_none(file):
    withhold(file, ENTRIES)
    assert read_catalog(path_of(file)) == list(ENTRIES)
    path_of(file).write_text("{")
    withhold(file, ENTRIES)
    assert read_catalog(path_of(file)) == []
