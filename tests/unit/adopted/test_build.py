"""A dbt project with conventions of its own is built and published as it is."""

import duckdb
import pytest

from .conftest import History

MARTS = {
    "Sales",
    "addresses",
    "best_sellers",
    "complaints",
    "marks",
    "price_list",
    "recalls",
    "turnover",
}


def rows(ask, history, stage, mart, user=None):
    answer = ask(f"/{mart}/query?snapshot={history.snapshot(stage)}", user)
    return [tuple(row.values()) for row in answer["rows"]]


# --- all of it --------------------------------------------------------------------------------------------------------
def test_the_project_and_its_own_database_stay_as_they_are(history):
    assert [history.facts[stage]["untouched"] for stage in ("first", "second", "partial")] == [True] * 3


def test_every_mart_is_published_and_nothing_else(history):
    assert history.shop.manifest().marts.keys() == MARTS


@pytest.mark.parametrize(
    ("mart", "expected"),
    [
        ("turnover", [("Bikes", 1, 2500), ("Parts", 9, 149.79)]),
        ("best_sellers", [("Tyre", 6), ("Bell", 3)]),
        ("price_list", [("Bell", "BEL", 11.84), ("Tandem", "TAN", 2975), ("Tyre", "TYR", 23.79)]),
        ("marks", [("BEL", 1), ("TAN", 1), ("TYR", 1)]),
        ("complaints", []),
        ("recalls", []),
    ],
)
def test_marts_of_every_materialization_have_their_rows(ask, history, mart, expected):
    found = [
        tuple(value if isinstance(value, str) else float(value) for value in row)
        for row in rows(ask, history, "first", mart)
    ]
    assert (sorted(found) if mart == "price_list" else found) == expected


def test_a_mart_that_the_owners_dbt_built_too_has_the_same_rows(history, installed):
    served = history.shop.rows(
        'SELECT sale_no, customer_no, pieces, "Unit Price", sold_at FROM "Sales" WHERE sale_no < 5'
    )
    with duckdb.connect(str(installed.database), read_only=True) as own:
        built = own.execute(
            'SELECT sale_no, customer_no, pieces, "Unit Price", sold_at FROM main_finance."Sales"'
        ).fetchall()
    assert sorted(served) == sorted(built) != []


def test_columns_are_those_that_were_built_with_the_projects_words(ask):
    described = ask("/Sales")
    columns = {column["name"]: column for column in described["columns"]}
    assert list(columns) == ["sale_no", "customer_no", "product", "pieces", "Unit Price", "sold_at", "loaded_by"]
    assert described["description"] == "One row per sale, as it was first seen."
    assert columns["sale_no"]["description"] == "Number of the receipt.", "documented as Sale_No"
    assert columns["Unit Price"] == {
        "name": "Unit Price",
        "type": "DECIMAL(10,2)",
        "description": "Of one piece, without VAT.",
    }
    assert {column["name"]: column["type"] for column in ask("/turnover")["columns"]}["pieces"] == "DECIMAL(38,0)"
    assert [column["name"] for column in ask("/recalls")["columns"]] == ["product", "since"]


def test_what_the_project_wrote_is_taken_as_written_and_the_rest_laid_out_as_ours(history):
    with history.shop.store.open() as snapshot:
        found = {
            name: duckdb.sql(f"SELECT DISTINCT compression FROM parquet_metadata('{snapshot.file(name)}')").fetchall()
            for name in ("addresses", "marks", "Sales", "price_list")
        }
        (order,) = zip(*duckdb.sql(f"SELECT sale_no FROM '{snapshot.file('Sales')}'").fetchall(), strict=True)
    snappy, zstd = [("SNAPPY",)], [("ZSTD",)]
    assert found == {"addresses": snappy, "marks": snappy, "Sales": zstd, "price_list": zstd}
    assert order == (4, 1, 2, 5, 3, 6), "by customer, and then as the project left them"


def test_nothing_is_left_over(history):
    assert [facts["left"] for facts in history.facts.values()] == [[]] * 4


def test_it_says_what_it_took_for_marts_and_who_sees_them(history):
    said = history.facts["first"]["said"]
    assert "`dbt ls --select 'path:models/marts'`" in said
    assert "MART_SELECTOR" in said
    assert "  Sales, from main_finance.Sales\n" in said
    assert "  Sales: 5 rows, each shown to the user in customer_no\n" in said
    assert "  turnover: 2 rows, shown to every user\n" in said


# --- whose rows -------------------------------------------------------------------------------------------------------
def test_the_column_that_was_named_hides_other_users_rows(ask):
    def sales(user):
        return [row["sale_no"] for row in ask("/Sales/query?select=sale_no", user)["rows"]]

    assert sales(1) == [4, 1]
    assert sales(2) == [2, 5]
    assert sales(3) == [], "and the guest is nobody, where all are compared as text"
    assert sorted(sales(None)) == [1, 2, 3, 4, 5, 6]
    assert ask("/Sales", 1)["row_count"] == 2
    assert {row["customer_no"] for row in ask("/addresses/query", 2)["rows"]} == {"2"}
    assert ask("/turnover/query", 1)["row_count"] == 2, "of which no column says whose it is"


# --- what goes on from build to build ---------------------------------------------------------------------------------
def addresses(ask, history, stage):
    return rows(ask, history, stage, "addresses")


def test_the_first_build_goes_on_from_the_projects_own_database(ask, history):
    assert addresses(ask, history, "first") == [("1", "Turin", False), ("1", "Rome", True), ("2", "Cork", True)]
    loads = {row[0]: row[-1] for row in rows(ask, history, "first", "Sales")}
    assert len(loads) == 5
    assert loads[1] == loads[2] == loads[3] == loads[4] != loads[5]


def test_a_second_build_continues_the_incremental_and_the_snapshots_history(ask, history):
    assert addresses(ask, history, "second") == [
        ("1", "Turin", False),
        ("1", "Rome", True),
        ("2", "Cork", False),
        ("2", "Oslo", True),
    ]
    before, after = ({row[0]: row[-1] for row in rows(ask, history, stage, "Sales")} for stage in ("first", "second"))
    assert {sale: after[sale] for sale in before} == before
    assert after.keys() - before.keys() == {6}
    assert after[6] not in before.values()


def test_a_failing_test_of_the_project_publishes_nothing(history: History):
    refused = history.facts["refused"]
    assert refused["code"] == 1
    assert "nothing was published" in refused["said"]
    assert "assert_nothing_is_sold_in_negative_numbers: fail: Got 1 result" in refused["said"]
    assert refused["snapshot"] == history.snapshot("second")


def test_a_partial_build_finds_its_upstreams_and_takes_over_the_rest(ask, history):
    inodes = {}
    for stage in ("second", "partial"):
        with history.shop.store.open(history.snapshot(stage)) as snapshot:
            inodes[stage] = {name: snapshot.file(name).stat().st_ino for name in snapshot.manifest.marts}
    assert {name for name in MARTS if inodes["second"][name] != inodes["partial"][name]} == {"turnover", "marks"}
    assert rows(ask, history, "partial", "turnover") == rows(ask, history, "second", "turnover") != []
    marks = [mark for mark, _ in rows(ask, history, "partial", "marks")]
    assert marks == ["BEL", "HOR", "TAN", "TYR"], "through a view, which reads what is there now"
    history.shop.rows("SELECT * FROM complaints")
