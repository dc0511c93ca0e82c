"""The query grammar by example: what each form means, and where each mistake is found."""

import json
from datetime import date
from decimal import Decimal
from urllib.parse import urlencode

import duckdb
import pytest

from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore

from .api import QUERY, assert_error, bearer, open_api
from .marts import ROWS_PER_USER, transactions

MANY = "/api/analytics/query"
MINE = [row for row in transactions(1) if row.user_id == 1]
QUOTED = "user 1, row 3 'quoted' \"twice\" 🙂 ü"


def ask(client, user=1, **parameters):
    response = client.get(f"{QUERY}?{urlencode(parameters, doseq=True)}", headers=bearer(user))
    assert response.status_code == 200, response.text
    return json.loads(response.text, parse_float=Decimal)


def matching(client, **filters):
    """Transactions by number, of user 1, whose id is 1000 and the number."""
    rows = ask(client, select="transaction_id", limit=1000, **filters)["rows"]
    return [row["transaction_id"] - 1000 for row in rows]


def test_aggregates_over_everything(any_client):
    answer = ask(
        any_client,
        select="count(),n:description.count(),amount.sum(),mean:amount.avg(),posted_on.min(),posted_on.max()",
    )
    amounts = [row.amount for row in MINE]
    assert answer["rows"] == [
        {
            "count": 40,
            "n": 32,
            "sum": sum(amounts),
            "mean": sum(amounts) / 40,
            "min": "2021-01-01",
            "max": "2021-01-14",
        }
    ]
    assert {column["name"]: column["type"] for column in answer["columns"]} == {
        "count": "BIGINT",
        "n": "BIGINT",
        "sum": "DECIMAL(38,2)",
        "mean": "DOUBLE",
        "min": "DATE",
        "max": "DATE",
    }
    assert answer["next"] is None


def test_aggregates_over_nothing(any_client):
    rows = ask(any_client, select="count(),amount.sum(),amount.avg(),amount.min()", amount="lt.0")["rows"]
    assert rows == [{"count": 0, "sum": None, "avg": None, "min": None}]
    assert ask(any_client, select="amount,count()", amount="lt.0")["rows"] == []


def test_columns_that_are_no_aggregates_are_grouped_by(any_client):
    answer = ask(any_client, select="amount,times:count()", order="times.desc")
    expected = {}
    for row in MINE:
        expected[row.amount] = expected.get(row.amount, 0) + 1
    ordered = sorted(expected.items(), key=lambda item: (-item[1], item[0]))  # ties by what is grouped by
    assert [(row["amount"], row["times"]) for row in answer["rows"]] == ordered


def test_an_alias_names_a_column_and_dates_can_be_truncated(any_client):
    answer = ask(any_client, select="week:posted_on.trunc(week),total:amount.sum()", order="week.desc")
    assert answer["columns"] == [{"name": "week", "type": "DATE"}, {"name": "total", "type": "DECIMAL(38,2)"}]
    assert [row["week"] for row in answer["rows"]] == ["2021-01-11", "2021-01-04", "2020-12-28"]
    first = [row.amount for row in MINE if row.posted_on < date(2021, 1, 4)]
    assert answer["rows"][-1]["total"] == sum(first)


def test_without_an_aggregate_nothing_is_grouped(any_client):
    answer = ask(any_client, select="posted_on.trunc(year)", limit=1000)
    assert answer["rows"] == [{"posted_on": "2021-01-01"}] * ROWS_PER_USER


def test_an_order_is_by_the_answers_names_before_the_datasets(any_client):
    by_alias = ask(any_client, select="amount:transaction_id", order="amount.desc", limit=1)
    assert by_alias["rows"] == [{"amount": 1039}]
    by_column = ask(any_client, select="amount", order="transaction_id.desc", limit=1)
    assert by_column["rows"] == [{"amount": MINE[-1].amount}]


def test_names_may_be_quoted_and_spaced(any_client):
    answer = ask(any_client, select='"the ""sum""":"amount".sum(), n : count()'.replace('""', '\\"'), order='"n"')
    assert list(answer["rows"][0]) == ['the "sum"', "n"]
    assert matching(any_client, **{'"transaction_id"': "eq.1003"}) == [3]


def test_a_star_is_every_column_and_may_have_company(any_client):
    answer = ask(any_client, select="*,month:posted_on.trunc(month)", limit=1)
    assert [column["name"] for column in answer["columns"]][-2:] == ["generation", "month"]
    assert len(answer["columns"]) == 7


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({"amount": "gte.106.25"}, lambda row: row.amount >= Decimal("106.25")),
        ({"amount": "gt.105.25"}, lambda row: row.amount > Decimal("105.25")),
        ({"amount": "lte.100.25"}, lambda row: row.amount <= Decimal("100.25")),
        ({"amount": "lt.101.25"}, lambda row: row.amount < Decimal("101.25")),
        ({"amount": "neq.100.25"}, lambda row: row.amount != Decimal("100.25")),
        ({"amount": "not.gt.105.25"}, lambda row: not row.amount > Decimal("105.25")),
        ({"amount": ["gte.101", "lt.103"]}, lambda row: 101 <= row.amount < 103),
        ({"amount": "in.(100.25,106.25)"}, lambda row: row.amount in (Decimal("100.25"), Decimal("106.25"))),
        ({"amount": "in.()"}, lambda _: False),
        ({"description": "not.in.()"}, lambda _: True),
        ({"description": "is.null"}, lambda row: row.description is None),
        ({"description": "is.NOT_NULL"}, lambda row: row.description is not None),
        ({"description": "not.is.null"}, lambda row: row.description is not None),
        ({"description": f"neq.{QUOTED}"}, lambda row: row.description not in (None, QUOTED)),
        ({"description": f"not.eq.{QUOTED}"}, lambda row: row.description not in (None, QUOTED)),
        (
            {"description": 'in.("user 1, row 3 \'quoted\' \\"twice\\" 🙂 ü")'},
            lambda row: row.description == QUOTED,
        ),
        ({"description": "like.*row 3 *"}, lambda row: "row 3 " in (row.description or "")),
        ({"description": "like.%row 3_ %"}, lambda row: row.transaction_id >= 1030 and row.description is not None),
        ({"description": "like.*ROW*"}, lambda _: False),
        ({"description": "ilike.*ROW 3 *"}, lambda row: "row 3 " in (row.description or "")),
        ({"description": "not.like.*row 3 *"}, lambda row: row.description and "row 3 " not in row.description),
        ({"description": "like.*\\% *"}, lambda _: False),
        ({"description": "like.*\\r\\o\\w 3 *"}, lambda row: "row 3 " in (row.description or "")),
        ({"posted_on": "gt.2021-01-12"}, lambda row: row.posted_on > date(2021, 1, 12)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_filter_finds(any_client, filters, holds):
    assert matching(any_client, **filters) == [row.transaction_id - 1000 for row in MINE if holds(row)]


def test_filters_of_a_body_may_be_lists(any_client):
    query = {"dataset": "fct_transactions", "select": "count()", "amount": ["gte.101", "lt.103"], "user_id": "eq.1"}
    answer = any_client.post(MANY, json={"queries": [query]}, headers=bearer(1)).json()
    assert answer["results"][0]["rows"] == [{"count": sum(101 <= row.amount < 103 for row in MINE)}]
    none = {"queries": [{"dataset": "fct_transactions", "amount": []}]}
    assert_error(any_client.post(MANY, json=none, headers=bearer(1)), 422, "invalid_request")


def test_a_limit_of_none_tells_the_columns(any_client):
    answer = ask(any_client, select="amount", limit=0)
    assert (answer["rows"], answer["row_count"], answer["next"]) == ([], 0, None)
    assert answer["columns"] == [{"name": "amount", "type": "DECIMAL(12,2)"}]


@pytest.mark.parametrize(
    ("parameters", "span"),
    [
        ("limit=10", "0-9/40"),
        ("limit=10&offset=35", "35-39/40"),
        ("offset=40", "*/40"),
        ("limit=0", "*/40"),
        ("amount=lt.0", "*/0"),
        ("select=amount,count()&limit=2", "0-1/7"),
        ("select=count()&amount=lt.0", "0-0/1"),
    ],
)
def test_an_exact_count_is_of_all_pages_and_of_ones_own_rows(any_client, parameters, span):
    preferring = {**bearer(1), "Prefer": "handling=lenient, count=exact"}
    response = any_client.get(f"{QUERY}?{parameters}", headers=preferring)
    assert response.headers["content-range"] == span
    assert response.headers["preference-applied"] == "count=exact"
    assert response.json() == any_client.get(f"{QUERY}?{parameters}", headers=bearer(1)).json()


@pytest.mark.parametrize("prefer", ["count=planned", "handling=lenient", ""])
def test_no_count_unless_asked_for(any_client, prefer):
    response = any_client.get(QUERY, headers={**bearer(1), "Prefer": prefer})
    assert response.status_code == 200
    assert not {"content-range", "preference-applied"} & set(response.headers)


def test_a_cursor_pages_through_groups(any_client):
    parameters = {"select": "amount,count()", "order": "count.desc", "amount": ["gt.100.25", "neq.103.25"]}
    whole = ask(any_client, **parameters)["rows"]
    answer = ask(any_client, **parameters, limit=2)
    rows = answer["rows"]
    while answer["next"]:
        answer = ask(any_client, cursor=answer["next"], amount=parameters["amount"])
        rows += answer["rows"]
    assert rows == whole
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("parameters", "place", "expected", "came"),
    [
        ("select=amount,nope", "'select', character 8", "a column of fct_transactions (user_id, ", "'nope'"),
        ("select=", "'select', character 1", "'*', a column, ", "the end"),
        ("select=amount,", "'select', character 8", "'*', a column, ", "the end"),
        ("select=amount.total()", "'select', character 8", "a function of DECIMAL(12,2) columns (", "'total()'"),
        ("select=description.sum()", "'select', character 13", "(count, min, max)", "'sum()'"),
        ("select=amount.sum", "'select', character 11", "'('", "the end"),
        ("select=amount.sum(x)", "'select', character 12", "')'", "'x)'"),
        ("select=count(amount)", "'select', character 7", "')'", "'amount)'"),
        ("select=posted_on.trunc()", "'select', character 17", "one of year, quarter, month, week, day", "')'"),
        ("select=posted_on.trunc(hour)", "'select', character 17", "one of year, ", "'hour)'"),
        ("select=amount.trunc(day)", "'select', character 8", "a function of DECIMAL", "'trunc(day)'"),
        ("select=amount,amount", "'select', character 8", "each name once, with an alias", "'amount'"),
        ("select=a:amount,A:amount", "'select', character 10", "each name once", "'A:amount'"),
        ("select=amount.sum(),user_id.sum()", "'select', character 14", "where 'sum' is taken", "'user_id.sum()'"),
        ("select=amount::text", "'select', character 8", "casts (::) are not supported", "':text'"),
        ("select=a%0Ab:amount", "'select', character 1", "an alias of printable characters", "'a\\nb:amount'"),
        ('select="amount', "'select', character 8", "a closing double quote", "the end"),
        ('select="":amount', "'select', character 1", "'*', a column, ", "'\"\":amount'"),
        ("select=accounts(name)", "'select', character 1", "a column of fct_transactions", "'accounts(name)'"),
        ("order=amount,nope.desc", "'order', character 8", "a column of fct_transactions", "'nope.desc'"),
        ("order=amount.down", "'order', character 7", "[.asc|.desc][.nullsfirst|.nullslast]", "'.down'"),
        ("order=amount.nullsfirst.desc", "'order', character 7", "[.asc|.desc]", "'.nullsfirst.desc'"),
        ("order=amount,amount.desc", "'order', character 8", "each column once", "'amount.desc'"),
        ("order=", "'order', character 1", "a column to sort by", "the end"),
        ("select=count()&order=amount", "'order', character 1", "a column of the answer (count)", "'amount'"),
        ("limit=ten", "'limit', character 1", "a whole number from 0 to 10000", "'ten'"),
        ("offset=", "'offset', character 1", "a whole number from 0", "the end"),
        ("amount=1", "'amount', character 1", "an operator (eq, neq, ", "'1'"),
        ("amount=not.not.eq.1", "'amount', character 5", "an operator (eq, neq, ", "'not.eq.1'"),
        ("amount=eq", "'amount', character 3", "'.' and a value", "the end"),
        ("amount=eq(any).{1}", "'amount', character 3", "'.' and a value", "'(any).{1}'"),
        ("amount=not.eq.ten", "'amount', character 8", "a decimal number with at most 10 digits before", "'ten'"),
        ("amount=in.(1,ten)", "'amount', character 7", "a decimal number", "'ten)'"),
        ("amount=in.1,2", "'amount', character 4", "'(' and a list of values", "'1,2'"),
        ("amount=in.(1,2", "'amount', character 8", "',' or ')' after a value", "the end"),
        ("amount=in.(1)2", "'amount', character 7", "nothing after the list", "'2'"),
        ('description=in.("a"b)', "'description', character 8", "',' or ')' after a value", "'b)'"),
        ('description=in.("a)', "'description', character 8", "a closing double quote", "the end"),
        ("amount=like.1*", "'amount', character 1", "like and ilike are for text", "'like.1*'"),
        ("description=like.a\\", "'description', character 6", "doesn't end within an escape", "'a\\\\'"),
        ("description=is.true", "'description', character 4", "one of null, not_null (type VARCHAR)", "'true'"),
        ("description=fts.cat", "'description', character 1", "an operator (eq, neq, ", "'fts.cat'"),
        ("amount=gte.1&amount=lt.x", "'amount', value 2, character 4", "a decimal number", "'x'"),
        ('"amount"x=eq.1', "'\"amount\"x', character 9", "nothing after the quoted name", "'x'"),
        ("or=(amount.eq.1)", "'or', character 1", "logic trees (or, and) are not supported", "'(amount.eq.1)'"),
        ("not.and=(amount.eq.1)", "'not.and', character 1", "filters by column", "'(amount.eq.1)'"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_where_it_is(any_client, parameters, place, expected, came):
    error = assert_error(any_client.get(f"{QUERY}?{parameters}", headers=bearer(1)), 400, "invalid_parameter")
    found, _, rest = error["message"].partition(": expected ")
    assert found == f"parameter {place}"
    assert expected in rest
    assert rest.endswith(f", got {came}")


def test_a_pattern_of_many_wildcards_is_no_burden(client):
    """Trying each way to divide the texts among them would never end."""
    assert matching(client, description=f"like.{'*_' * 15}~") == []
    assert len(matching(client, description=f"ilike.{'*_' * 15}*")) == 32
    response = client.get(QUERY, params={"description": f"like.{'a' * 1001}"}, headers=bearer(1))
    error = assert_error(response, 400, "invalid_parameter")
    assert "character 6: expected a pattern of at most 1000 characters" in error["message"]


ODD = {
    "colour": ("(['red', 'blue', 'red'])[n]::ENUM('red', 'blue')", "VARCHAR"),
    "bits": ("(['101', '11', '0'])[n]::BIT", "VARCHAR"),
    "second": ("TIMESTAMP_S '2024-02-29 23:59:58' + to_seconds(n)", "TIMESTAMP"),
    "document": ("(['{\"a\": 1}', '[2]', '3'])[n]::JSON", "JSON"),
    "tags": ("[n, NULL]", "INTEGER[]"),
    "weights": ("[n, 2]::DECIMAL(4,2)[2]", "DECIMAL(4,2)[]"),
    "single": ("(['0.1', '0.2', '-0.0'])[n]::FLOAT", "FLOAT"),
    "unsigned": ("(18446744073709551612 + n)::UBIGINT", "UBIGINT"),
    "wide": ("60000000000000000000000000000000000000::DECIMAL(38,0)", "DECIMAL(38,0)"),
    "span": ("to_days(n)", "INTERVAL"),
}
ODDITIES = "/api/analytics/datasets/oddities/query"


@pytest.fixture(scope="module", params=["directory", "file"])
def odd_client(request, tmp_path_factory):
    """Types that Parquet lacks, or has its own idea of: three rows of everybody.

    In a plain directory, as the store has no intervals.
    """
    directory = tmp_path_factory.mktemp("oddities")
    select = f"SELECT n, {', '.join(f'{sql} AS {name}' for name, (sql, _) in ODD.items())} FROM range(1, 4) r(n)"
    with duckdb.connect(str(directory / "analytics.duckdb")) as connection:
        connection.execute(f"CREATE TABLE oddities AS {select}")
        (directory / "parquet" / "mart").mkdir(parents=True)
        connection.execute(f"COPY oddities TO '{directory}/parquet/mart/oddities.parquet'")
    if request.param == "directory":
        opened, _ = open_api(parquet_dir=directory / "parquet")
    else:
        opened, _ = open_api(duckdb_path=directory / "analytics.duckdb")
    with opened:
        yield opened


@pytest.mark.parametrize(
    ("parameters", "rows"),
    [
        ("select=n&order=colour", '[{"n":2},{"n":1},{"n":3}]'),
        ("select=n&colour=gt.blue", '[{"n":1},{"n":3}]'),
        ("select=colour.min(),n:count()&colour=ilike.R*", '[{"min":"red","n":2}]'),
        ("select=colour,n:count()", '[{"colour":"blue","n":1},{"colour":"red","n":2}]'),
        ("select=n&order=bits", '[{"n":3},{"n":1},{"n":2}]'),
        ("select=bits.max()&bits=in.(0,101)", '[{"max":"101"}]'),
        ("select=second.trunc(minute),n:count()&limit=1", '[{"second":"2024-02-29T23:59:00","n":1}]'),
        ("select=second.max()&second=lt.2024-03-01T00:00:01", '[{"max":"2024-03-01T00:00:00"}]'),
        ('select=n&document=eq.{"a": 1}', '[{"n":1}]'),
        ("select=n&document=in.({bad,[2])", '[{"n":2}]'),
        ("select=document.min(),n:count()&document=like.*2*", '[{"min":"[2]","n":1}]'),
        ("select=tags,n:count()&tags=is.not_null&limit=1", '[{"tags":[1,null],"n":1}]'),
        ("select=weights,n:count()&order=weights.desc&limit=1", '[{"weights":[3.00,2.00],"n":1}]'),
        ("select=single.sum(),low:single.min()&n=eq.3", '[{"sum":0.0,"low":0.0}]'),
        ("select=unsigned.sum()", '[{"sum":55340232221128654842}]'),
        ("select=unsigned.avg()", '[{"avg":1.8446744073709552e+19}]'),
        ("select=n&span=is.null", "[]"),
        ("select=span.count()", '[{"count":3}]'),
    ],
)  # fmt: skip
def test_types_that_differ_between_the_sources_answer_alike(odd_client, parameters, rows):
    response = odd_client.get(f"{ODDITIES}?{parameters}", headers=bearer(1))
    assert response.status_code == 200, response.text
    assert response.text.partition('"rows":')[2].partition(',"row_count"')[0] == rows


@pytest.mark.parametrize("parameters", ["select=wide.sum()", "select=wide.sum()&n=lt.3", "select=wide.avg()"])
def test_a_sum_beyond_38_digits_is_refused(odd_client, parameters):
    assert_error(odd_client.get(f"{ODDITIES}?{parameters}", headers=bearer(1)), 400, "out_of_range")


@pytest.mark.parametrize("parameters", ["span=eq.1", "tags=in.(1)", "weights=not.eq.1"])
def test_what_has_no_literals_has_only_is_null(odd_client, parameters):
    error = assert_error(odd_client.get(f"{ODDITIES}?{parameters}", headers=bearer(1)), 400, "invalid_parameter")
    assert "is.null or is.not_null" in error["message"]


@pytest.mark.parametrize("select", ["span,count()", "n.sum(),*"])
def test_intervals_are_no_groups(odd_client, select):
    error = assert_error(odd_client.get(f"{ODDITIES}?select={select}", headers=bearer(1)), 400, "invalid_parameter")
    assert "columns without INTERVAL (span is INTERVAL)" in error["message"]
    assert odd_client.get(f"{ODDITIES}?select=span", headers=bearer(1)).status_code == 200


def test_a_sum_of_floats_is_the_same_every_time_and_everywhere(tmp_path):
    """Whatever threads there are: in the mart's order, which Python repeats."""
    values = [(n * 7919 % 100_003) / 7 - 5e3 for n in range(300_000)]
    expected = 0.0
    for value in values:
        expected += value
    with duckdb.connect(str(tmp_path / "analytics.duckdb")) as connection:
        connection.execute("CREATE TABLE readings AS SELECT unnest(?::DOUBLE[]) AS value", [values])
        with SnapshotStore(tmp_path / "parquet").build("run", holder="test") as build:
            connection.execute(f"COPY readings TO '{build.path / 'readings.parquet'}' (ROW_GROUP_SIZE 20480)")
            build.publish([MartSpec("readings", "Readings", "", (Column("value", "DOUBLE"),))])
    for source in ({"parquet_dir": tmp_path / "parquet"}, {"duckdb_path": tmp_path / "analytics.duckdb"}):
        client, _ = open_api(**source, duckdb_threads=4)
        path = "/api/analytics/datasets/readings/query?select=value.sum(),value.avg()"
        for _ in range(3):
            rows = client.get(path, headers=bearer(1)).json()["rows"]
            assert rows == [{"sum": expected, "avg": expected / len(values)}]
