"""PyPI's PostgREST client asks queries of one dataset as it would ask PostgREST."""

import pytest
from postgrest import APIError, SyncPostgrestClient

from .api import bearer
from .marts import ROWS_PER_USER, transactions

MINE = [row for row in transactions(1) if row.user_id == 1]


@pytest.fixture
def table(any_client):
    postgrest = SyncPostgrestClient(
        "http://testserver/api/analytics/datasets", headers=bearer(1), http_client=any_client, retry_enabled=False
    )
    return postgrest.from_("fct_transactions/query")


def ids(query):
    return [row["transaction_id"] for row in query.execute().data["rows"]]


def test_rows_filters_order_and_range(table):
    query = (
        table.select("transaction_id", "money:amount")
        .gte("posted_on", "2021-01-03")
        .lt("posted_on", "2021-01-10")
        .not_.is_("description", None)
        .order("money", desc=True, nullsfirst=False)
        .order("transaction_id")
        .range(2, 6)
    )
    found = [
        row for row in MINE if "2021-01-03" <= row.posted_on.isoformat() < "2021-01-10" and row.description is not None
    ]
    ordered = sorted(found, key=lambda row: (-row.amount, row.transaction_id))
    assert ids(query) == [row.transaction_id for row in ordered[2:7]]


@pytest.mark.parametrize(
    ("narrow", "holds"),
    [
        (lambda q: q.eq("amount", "100.25"), lambda row: str(row.amount) == "100.25"),
        (lambda q: q.neq("amount", "100.25"), lambda row: str(row.amount) != "100.25"),
        (lambda q: q.gt("amount", 105), lambda row: row.amount > 105),
        (lambda q: q.lte("amount", 101), lambda row: row.amount <= 101),
        (lambda q: q.in_("description", [MINE[3].description, "a,b", '"']), lambda row: row is MINE[3]),
        (lambda q: q.like("description", "%row 3 %"), lambda row: row is MINE[3]),
        (lambda q: q.ilike("description", "*ROW 3 *"), lambda row: row is MINE[3]),
        (lambda q: q.not_.ilike("description", "*row*"), lambda _: False),
        (lambda q: q.is_("description", "not_null"), lambda row: row.description is not None),
        (lambda q: q.in_("amount", []), lambda _: False),
        (lambda q: q.match({"user_id": 1, "transaction_id": 1004}), lambda row: row is MINE[4]),
    ],
)
def test_each_filter(table, narrow, holds):
    assert ids(narrow(table.select("transaction_id"))) == [row.transaction_id for row in MINE if holds(row)]


def test_aggregates_and_groups(table):
    data = table.select("month:posted_on.trunc(month)", "total:amount.sum()", "count()").execute().data
    assert data["rows"] == [
        {"month": "2021-01-01", "total": float(sum(r.amount for r in MINE)), "count": ROWS_PER_USER}
    ]


def test_an_exact_count(table):
    response = table.select("*", count="exact").lt("amount", 102).limit(1).execute()
    assert response.count == sum(row.amount < 102 for row in MINE)
    assert len(response.data["rows"]) == 1


@pytest.mark.parametrize(
    "mistaken",
    [lambda table: table.select("nope"), lambda table: table.select("*").or_("amount.eq.1,amount.eq.2")],
)
def test_a_mistake_is_an_error(table, mistaken):
    """Without what is in our envelope: the client looks for a message at the top of the body."""
    with pytest.raises(APIError):
        mistaken(table).execute()
