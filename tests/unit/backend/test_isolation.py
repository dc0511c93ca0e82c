"""Nothing that one user asks for depends on another user's rows, neither what is shown nor what is counted.

The whole API is asked, and next to it one on a store that has never held any other user's row: both must answer the
same, down to the text of an error. What the grammar refuses is refused by both.
"""

import io
from collections import Counter
from dataclasses import fields

import duckdb
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.snapshots import SnapshotStore

from .api import QUERY, bearer, open_api
from .marts import ROWS_PER_USER, SPECS, USERS, Transaction, create_tables, transactions

NOBODY = 99  # a user without rows
EVERYONE = None
CALLERS = (*USERS, NOBODY)
ROWS = transactions(1)
NAMES = [field.name for field in fields(Transaction)]
MANY = "/api/analytics/query"
THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


# --- the whole and its parts ------------------------------------------------------------------------------------------
def write(connection, user):
    """The marts with every row, or with only those that the user may see."""
    create_tables(connection, 1)
    if user is not EVERYONE:
        connection.execute("DELETE FROM fct_transactions WHERE user_id <> ?", [user])


def open_with(directory, source, user):
    directory.mkdir()
    if source == "file":
        path = directory / "analytics.duckdb"
        with duckdb.connect(str(path)) as connection:
            write(connection, user)
        return open_api(duckdb_path=path)[0]
    with SnapshotStore(directory).build("run", holder="test") as build, duckdb.connect() as connection:
        write(connection, user)
        for spec in SPECS:
            connection.execute(f"COPY {spec.name} TO '{build.path / spec.name}.parquet' (ROW_GROUP_SIZE 2048)")
        build.publish(SPECS)
    return open_api(parquet_dir=directory)[0]


@pytest.fixture(scope="module", params=["snapshot", "file"])
def apis(request, tmp_path_factory):
    """User -> the API with that user's rows alone; EVERYONE -> with all."""
    directory = tmp_path_factory.mktemp("isolation")
    return {user: open_with(directory / f"{user}", request.param, user) for user in (EVERYONE, *CALLERS)}


# --- what is asked ----------------------------------------------------------------------------------------------------
columns = st.sampled_from(NAMES)
aliases = st.sampled_from(["a", "total", "month", "user_id", "n"])
functions = st.sampled_from(["count", "sum", "avg", "min", "max"])
values = st.one_of(
    st.sampled_from(ROWS).flatmap(lambda row: st.sampled_from([str(getattr(row, name)) for name in NAMES])),
    st.sampled_from(["0", "1", "2", "2023-01-05", "*", "user*", "%", "null", "x"]),
)


def literal(name):
    """A value that some user has in the column: the operators are worth most with such."""
    return st.sampled_from(sorted({str(getattr(row, name)) for row in ROWS if getattr(row, name) is not None}))


def quoted(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def outputs(draw):
    """One term of ``select``."""
    kind = draw(st.sampled_from(["column", "column", "aggregate", "aggregate", "count", "trunc", "*"]))
    term = {
        "column": draw(columns),
        "aggregate": f"{draw(columns)}.{draw(functions)}()",
        "count": "count()",
        "trunc": f"posted_on.trunc({draw(st.sampled_from(['day', 'month', 'year']))})",
        "*": "*",
    }[kind]
    return f"{draw(aliases)}:{term}" if draw(st.integers(0, 3)) == 0 else term


@st.composite
def conditions(draw):
    """One filter: (column, ``operator.value``)."""
    name = draw(columns)
    value = draw(st.one_of(literal(name), literal(name), values))
    operator = draw(st.sampled_from(["eq", "eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "is", "in"]))
    if operator == "is":
        value = draw(st.sampled_from(["null", "true", "false", "unknown", "not_null"]))
    elif operator == "in":
        value = f"({','.join(quoted(item) for item in draw(st.lists(literal(name), min_size=1, max_size=4)))})"
    elif "like" in operator:
        value = draw(st.sampled_from(["*", "user*", "*row 1*", "*2*", "%", "_", value]))
    negated = draw(st.sampled_from(["", "", "not."]))
    return name, f"{negated}{operator}.{value}"


@st.composite
def orders(draw):
    term = draw(st.one_of(columns, aliases, st.sampled_from(["count", "sum", "amount.sum()"])))
    direction = draw(st.sampled_from(["", ".asc", ".desc"]))
    return term + direction + draw(st.sampled_from(["", "", ".nullsfirst", ".nullslast"]))


OTHER_NAMES = ["or", "and", "not.or", "format", "snapshot", "cursor", "having", "group", "user_id", "select", "x"]
OTHER_VALUES = """
    (user_id.eq.2,user_id.eq.3)|(amount.gt.0)|csv|arrow|parquet|json|user_id.count()|eq.2|1|not.is.null|neq.0|in.(1,2,3)|
    *,count()|eq.1) OR (1=1|user_id") OR ("1"="1|count()|all
"""
others = st.tuples(st.sampled_from(OTHER_NAMES), st.sampled_from([value.strip() for value in OTHER_VALUES.split("|")]))
any_limit = st.one_of(st.none(), st.integers(0, 60))
few = st.integers(1, 5)


@st.composite
def parameters(draw, *, limit=any_limit):
    """The parameters of one query, in the order of the URL."""
    found = []
    select = draw(st.one_of(st.just([]), st.lists(outputs(), min_size=1, max_size=3, unique=True)))
    if select:
        found.append(("select", ",".join(select)))
    found += draw(st.lists(conditions(), max_size=2, unique_by=draw(st.sampled_from([lambda item: item[0], repr]))))
    if order := draw(st.lists(orders(), max_size=2, unique=True)):
        found.append(("order", ",".join(order)))
    if (rows := draw(limit)) is not None:
        found.append(("limit", str(rows)))
    if draw(st.booleans()):
        found.append(("offset", str(draw(st.integers(0, ROWS_PER_USER + 1)))))
    return found


@st.composite
def simple(draw, *, limit=any_limit):
    """Parameters that make sense, whatever the grammar has grown to."""
    name = draw(columns)
    order = draw(columns)
    found = [("select", ",".join(draw(st.lists(columns, min_size=1, max_size=4, unique=True))))]
    found += draw(st.sampled_from([[], [(name, f"eq.{draw(literal(name))}")]]))
    found += draw(st.sampled_from([[], [("order", f"{order}.desc"), ("offset", "1")]]))
    rows = draw(limit)
    return [*found, ("limit", str(rows or 1))]


requests = st.one_of(
    simple(),
    parameters(),
    st.tuples(parameters(), st.lists(others, min_size=1, max_size=2)).map(lambda found: [*found[0], *found[1]]),
)
preferences = st.sampled_from([{}, {}, {"Prefer": "count=exact"}, {"Prefer": "count=planned"}])
formats = st.sampled_from([{}, {}, {"Accept": "text/csv"}, {"Accept": "application/vnd.apache.arrow.stream"}])


# --- what is answered -------------------------------------------------------------------------------------------------
# Of the state that was read, or of the request: they differ between two stores whoever asks.
STATE = {"snapshot", "last_refresh", "next"}
OWN_VALUES = {
    *("content-disposition", "date", "etag", "last-modified", "link", "traceparent"),
    *("x-next-cursor", "x-request-id", "x-snapshot-id"),
}


def timeless(content):
    """JSON without what differs between two stores, but with whether there is a next page."""
    if isinstance(content, list):
        return [timeless(item) for item in content]
    if not isinstance(content, dict):
        return content
    rows = {name: value for name, value in content.items() if name not in STATE}
    if "next" in content:
        rows["there is a next page"] = content["next"] is not None
    return {name: value if name == "rows" else timeless(value) for name, value in rows.items()}


def content(response):
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "application/json":
        return timeless(response.json())
    if "arrow" in kind:
        table = pyarrow.ipc.open_stream(io.BytesIO(response.content)).read_all()
    elif "parquet" in kind:
        table = pyarrow.parquet.read_table(io.BytesIO(response.content))
    else:
        return response.content
    return table.schema.names, table.to_pylist()


def seen(response):
    """All that the caller learns from an answer."""
    headers = {name: None if name in OWN_VALUES else value for name, value in response.headers.items()}
    for name in ("content-length", "content-encoding"):  # of the texts that differ; the content is compared itself
        headers.pop(name, None)
    return response.status_code, headers, content(response)


def assert_alike(apis, user, ask):
    """Ask both; the answer of the whole API."""
    whole, alone = ask(apis[EVERYONE]), ask(apis[user])
    assert seen(whole) == seen(alone)
    assert whole.status_code < 500
    return whole, alone


def next_of(response):
    if response.status_code != 200 or response.headers["content-type"] != "application/json":
        return None
    return response.json()["next"]


# --- the property -----------------------------------------------------------------------------------------------------
def test_no_query_depends_on_the_rows_of_others(apis):
    answered = Counter()

    @THOROUGH
    @given(user=st.sampled_from(CALLERS), asked=requests, prefer=preferences, accept=formats)
    def holds(user, asked, prefer, accept):
        headers = {**bearer(user), **prefer, **accept}
        whole, alone = assert_alike(apis, user, lambda api: api.get(QUERY, params=asked, headers=headers))
        answered[whole.status_code] += 1
        for _ in range(2):
            cursors = {EVERYONE: next_of(whole), user: next_of(alone)}
            if cursors[EVERYONE] is None:
                break
            whole, alone = (
                apis[key].get(QUERY, params={"cursor": cursors[key]}, headers=headers) for key in (EVERYONE, user)
            )
            assert seen(whole) == seen(alone)

    holds()
    assert answered[200] >= 10, answered  # else it would be about errors alone


def test_no_query_of_a_batch_depends_on_the_rows_of_others(apis):
    answered = Counter()

    def query(items):
        values = {}
        for name, value in items:
            values.setdefault(name, []).append(value)
        return {"dataset": "fct_transactions"} | {n: v[0] if len(v) == 1 else v for n, v in values.items()}

    @THOROUGH
    @given(user=st.sampled_from(CALLERS), asked=st.lists(requests, min_size=1, max_size=2), prefer=preferences)
    def holds(user, asked, prefer):
        headers = {**bearer(user), **prefer}
        body = {"queries": [query(items) for items in asked]}
        whole, _ = assert_alike(apis, user, lambda api: api.post(MANY, json=body, headers=headers))
        answered[whole.status_code] += 1

    holds()
    assert answered[200] >= 10, answered


def test_a_cursor_of_another_user_shows_ones_own_rows(apis):
    answered = Counter()

    @THOROUGH
    @given(
        user=st.sampled_from(CALLERS),
        signer=st.sampled_from([bearer(other) for other in USERS] + [bearer(all_rows=True)]),
        asked=st.one_of(simple(limit=few), parameters(limit=few)),
    )
    def holds(user, signer, asked):
        cursor = next_of(apis[EVERYONE].get(QUERY, params=asked, headers=signer))
        if cursor is None:
            return
        whole = apis[EVERYONE].get(QUERY, params={"cursor": cursor}, headers=bearer(user))
        params = dict(asked)
        skipped = int(params.pop("offset", 0)) + int(params["limit"])
        items = [item for item in asked if item[0] != "offset"]
        alone = apis[user].get(QUERY, params=[*items, ("offset", str(skipped))], headers=bearer(user))
        for answer in (whole, alone):
            answer.headers.pop("cache-control", None)  # says that only one of them names a state
        assert seen(whole) == seen(alone)
        answered[whole.status_code] += 1

    holds()
    assert answered[200] >= 10, answered


@pytest.mark.parametrize("path", ["/api/analytics/datasets", "/api/analytics/datasets/fct_transactions"])
@pytest.mark.parametrize("user", CALLERS)
def test_no_count_of_a_dataset_is_of_others_rows(apis, user, path):
    whole, _ = assert_alike(apis, user, lambda api: api.get(path, headers=bearer(user)))
    assert whole.status_code == 200
