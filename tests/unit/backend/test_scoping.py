"""No combination of parameters shows a row that isn't the caller's, and what is shown is what was asked for."""

from dataclasses import fields
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.snapshots import SnapshotStore

from .api import QUERY, bearer, open_api
from .marts import ROWS_PER_USER, USERS, Transaction, publish, transactions, write_file

ROWS = transactions(1)
NAMES = [field.name for field in fields(Transaction)]
PLAIN = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["snapshot", "file"])
def client(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("scoping")
    if request.param == "snapshot":
        publish(SnapshotStore(directory), 1)
        opened, _ = open_api(parquet_dir=directory)
    else:
        write_file(directory / "analytics.duckdb", 1)
        opened, _ = open_api(duckdb_path=directory / "analytics.duckdb")
    with opened:
        yield opened


def shown(row, name):
    value = getattr(row, name)
    return float(value) if isinstance(value, Decimal) else value if isinstance(value, (int, type(None))) else str(value)


keys = st.tuples(st.sampled_from(NAMES), st.booleans())


@PLAIN
@given(
    user=st.sampled_from(USERS),
    select=st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
    order=st.lists(keys, unique_by=lambda key: key[0], max_size=3),
    found=st.one_of(
        st.none(), st.tuples(st.sampled_from(ROWS), st.sets(st.sampled_from(NAMES), min_size=1, max_size=2))
    ),
    limit=st.integers(1, 50),
    offset=st.integers(0, ROWS_PER_USER + 1),
)
def test_valid_queries_give_the_callers_rows_as_asked(  # noqa: PLR0917 - hypothesis names them
    client, user, select, order, found, limit, offset
):
    filters = {}
    if found:  # the row may be another user's
        row, columns = found
        filters = {name: getattr(row, name) for name in columns if getattr(row, name) is not None}
    parameters = {
        "select": ",".join(select),
        "limit": limit,
        "offset": offset,
        **{name: f"eq.{value}" for name, value in filters.items()},
    }
    if order:
        parameters["order"] = ",".join(f"{name}.{'desc' if down else 'asc'}" for name, down in order)
    response = client.get(QUERY, params=parameters, headers=bearer(user))
    assert response.status_code == 200

    expected = [
        row
        for row in ROWS
        if row.user_id == user and all(getattr(row, name) == value for name, value in filters.items())
    ]
    for name, down in reversed(order):  # sorted() is stable, also in reverse: ties stay in the mart's order
        expected.sort(key=lambda row: _sortable(getattr(row, name)), reverse=down)
    page = [{name: shown(row, name) for name in select} for row in expected[offset : offset + limit]]
    assert response.json()["rows"] == page
    assert (response.json()["next"] is None) == (offset + limit >= len(expected))


def _sortable(value):
    return (1, b"") if value is None else (0, value.encode() if isinstance(value, str) else value)


hostile = st.sampled_from(
    ["*", "user_id", "1", "eq.2", "eq.1 OR 1=1", "eq.2'--", '"', "user_id.desc;--", "1) OR (1=1", "0", "all", "null"]
)
texts = st.one_of(hostile, st.text(max_size=20))
names = st.one_of(st.sampled_from(["select", "order", "limit", "offset", "snapshot", "cursor", *NAMES]), texts)


@PLAIN
@given(user=st.sampled_from(USERS), parameters=st.lists(st.tuples(names, texts), max_size=4))
def test_whatever_is_written_no_other_users_row_is_shown(client, user, parameters):
    response = client.get(QUERY, params=parameters, headers=bearer(user))
    assert response.status_code in (200, 400, 410)
    if response.status_code == 200:
        for row in response.json()["rows"]:
            assert any(
                all(shown(own, name) == value for name, value in row.items()) for own in ROWS if own.user_id == user
            )
