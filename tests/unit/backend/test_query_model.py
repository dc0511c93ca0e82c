"""Every query of the grammar gives what the model of it says, from a snapshot and from a file; nothing breaks it."""

import json
import math
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import duckdb
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore

from . import model
from .api import bearer, open_api
from .model import COLUMNS, MOMENTS, NUMBERS, UNITS, Condition, Item, Key

ROWS = model.rows()
QUERY = "/api/analytics/datasets/facts/query"
MANY = "/api/analytics/query"
SPEC = MartSpec("facts", "Facts", "", tuple(Column(name, kind) for name, kind in COLUMNS.items()))
EXAMPLES = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """The same rows as a snapshot, in several row groups, and as a table."""
    directory = tmp_path_factory.mktemp("facts")
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    with duckdb.connect(str(directory / "analytics.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE facts ({columns})")
        marks = ", ".join(f"CAST(? AS {kind})" for kind in COLUMNS.values())
        connection.executemany(f"INSERT INTO facts VALUES ({marks})", [list(row.values()) for row in ROWS])
        with SnapshotStore(directory / "parquet").build("run", holder="test") as build:
            connection.execute(f"COPY facts TO '{build.path / 'facts.parquet'}' (ROW_GROUP_SIZE 64)")
            build.publish([SPEC])
    on_snapshot, _ = open_api(parquet_dir=directory / "parquet", max_limit=1000)
    on_file, _ = open_api(duckdb_path=directory / "analytics.duckdb", max_limit=1000)
    with on_snapshot, on_file:
        yield on_snapshot, on_file


names = st.sampled_from(list(COLUMNS))
plain = st.builds(Item, names)
truncated = st.builds(
    Item, st.sampled_from(MOMENTS), st.just("trunc"), st.sampled_from(UNITS), alias=st.sampled_from([None, "moment"])
).filter(lambda item: item.column != "day" or item.unit not in ("hour", "minute"))
aggregates = st.one_of(
    st.builds(Item, st.none(), st.just("count")),
    st.builds(Item, names, st.sampled_from(["count", "min", "max"])),
    st.builds(Item, st.sampled_from(NUMBERS), st.sampled_from(["sum", "avg"])),
).flatmap(lambda item: st.builds(lambda alias: Item(item.column, item.function, alias=alias), aliases))
aliases = st.sampled_from([None, "total", "x y", "ä", "Grand 'total'"])
selects = st.one_of(
    st.lists(st.one_of(plain, truncated), min_size=1, max_size=4, unique_by=lambda item: item.name.lower()),
    st.lists(st.one_of(plain, truncated, aggregates), min_size=1, max_size=4, unique_by=lambda item: item.name.lower()),
)


limits = st.one_of(st.just(1000), st.integers(0, 60))


@st.composite
def conditions(draw):
    column = draw(st.one_of(st.just("note"), names))
    operators = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is"]
    if column == "note":
        operators = ["like", "ilike", "in"] * 3 + operators
    operator = draw(st.sampled_from(operators))
    found = st.sampled_from([row[column] for row in ROWS if row[column] is not None])
    if operator == "is":
        states = ["null", "not_null"] + (["true", "false", "unknown"] if column == "flag" else [])
        values = (draw(st.sampled_from(states)),)
    elif operator in ("like", "ilike"):
        # Like a note, but for wildcards here and there: random text would match none.
        note = draw(found)
        pattern = (draw(st.sampled_from(["\\" + letter, letter.swapcase(), "_", "*", "%"])) for letter in note)
        values = ("".join(pattern) + draw(st.sampled_from(["", "%", "\\\\"])),)
    elif operator == "in":
        values = tuple(draw(st.lists(found, max_size=3)))
    else:
        values = (draw(found),)
    return Condition(column, operator, values, draw(st.booleans()))


@st.composite
def queries(draw):
    items = draw(selects)
    grouped = any(item.aggregates for item in items)
    sortable = [item.name for item in items] + ([] if grouped else list(COLUMNS))
    keys = st.builds(
        Key,
        st.sampled_from(sortable),
        st.sampled_from(["", ".asc", ".desc"]),
        st.sampled_from(["", ".nullsfirst", ".nullslast"]),
    )
    order = draw(st.lists(keys, max_size=3, unique_by=lambda key: key.name))
    return items, draw(st.lists(conditions(), max_size=2)), order


def parameters(items, filters, order):
    asked = [("select", ",".join(item.text for item in items)), *((item.column, item.text) for item in filters)]
    return [*asked, ("order", ",".join(key.text for key in order))] if order else asked


def as_shown(value, kind):
    """The value as the text that stands in JSON, but for quotes; booleans and floats as they are."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat()
        return (text.rstrip("0") if "." in text else text) + ("+00:00" if value.tzinfo else "")
    if kind.startswith("DECIMAL"):
        return f"{Decimal(value):.{kind.partition(',')[2].rstrip(')')}f}"
    return float(value) if kind == "DOUBLE" else str(value)


def as_came(value, kind):
    return float(value) if kind == "DOUBLE" and value is not None else value


def same(came, expected):
    if isinstance(expected, float):
        return came is not None and (came == expected or (math.isnan(came) and math.isnan(expected)))
    return came == expected


_NEAR = 1e-14


def ordered_alike(whole, items, order):
    """Whether averages that are sorted by are far enough from each other for floats to sort as they do."""
    sorted_by = [items.index(item) for item in items if item.name in {key.name for key in order}]
    columns = [sorted({row[n] for row in whole if isinstance(row[n], Fraction)}) for n in sorted_by]
    return all(b - a > _NEAR * max(abs(a), abs(b)) for column in columns for a, b in pairwise(column))


@EXAMPLES
@given(user=st.sampled_from([1, 2, 3]), query=queries(), limit=limits, offset=st.sampled_from([0, 0, 1, 30]))
def test_a_query_gives_what_the_model_says(clients, user, query, limit, offset):
    whole = model.answer(ROWS, user, *query)
    assume(ordered_alike(whole, query[0], query[2]))
    asked = [*parameters(*query), ("limit", str(limit)), ("offset", str(offset))]
    responses = [
        client.get(QUERY, params=asked, headers={**bearer(user), "Prefer": "count=exact"}) for client in clients
    ]
    for response in responses:
        assert response.status_code == 200, response.text
        answer = json.loads(response.text, parse_float=str, parse_int=str)
        items = query[0]
        assert answer["columns"] == [{"name": item.name, "type": item.type} for item in items]
        page = whole[offset : offset + limit]
        assert len(answer["rows"]) == len(page)
        for row, expected in zip(answer["rows"], page, strict=True):
            for item, value in zip(items, expected, strict=True):
                came = as_came(row[item.name], item.type)
                if isinstance(value, Fraction):  # the exact average; what comes is a float near it
                    assert came == pytest.approx(float(value), rel=_NEAR)
                else:
                    assert same(came, as_shown(value, item.type)), (item, came, value)
        span = f"{offset}-{offset + len(page) - 1}" if page else "*"
        assert response.headers["content-range"] == f"{span}/{len(whole)}"
        assert (answer["next"] is not None) == (0 < limit < len(whole) - offset)
    one, other = (json.loads(response.text)["rows"] for response in responses)
    assert json.dumps(one) == json.dumps(other)


@settings(max_examples=15, deadline=None)
@given(user=st.sampled_from([1, 2, 3]), query=queries(), limit=st.sampled_from([4, 17]))
def test_pages_add_up_to_the_whole(clients, user, query, limit):
    for client in clients:
        asked = parameters(*query)
        whole = client.get(QUERY, params=[*asked, ("limit", "1000")], headers=bearer(user)).json()["rows"]
        answer = client.get(QUERY, params=[*asked, ("limit", str(limit))], headers=bearer(user)).json()
        rows = answer["rows"]
        while answer["next"]:
            answer = client.get(QUERY, params={"cursor": answer["next"]}, headers=bearer(user)).json()
            rows += answer["rows"]
        assert rows == whole


@settings(max_examples=20, deadline=None)
@given(query=queries())
def test_a_body_means_what_the_url_means(clients, query):
    for client in clients:
        asked = parameters(*query)
        alone = client.get(QUERY, params=asked, headers=bearer(1)).json()
        properties = {}
        for name, text in asked:
            properties.setdefault(name, []).append(text)
        body = {name: texts if len(texts) > 1 else texts[0] for name, texts in properties.items()}
        response = client.post(MANY, json={"queries": [{"dataset": "facts", **body}]}, headers=bearer(1)).json()
        assert response["results"] == [alone | {"next": response["results"][0]["next"]}]


pieces = st.sampled_from(
    [
        *COLUMNS, *UNITS, *"\"\\,.:()*%' \0\n+-;", "::", "count", "sum", "avg", "min", "max", "trunc", "asc", "desc",
        "nullsfirst", "eq", "neq", "gt", "lte", "in", "like", "ilike", "is", "not", "null", "true", "unknown", "or",
        "and", "1", "-1.5", "NaN", "1e309", "99999999999999999999999999999999999999999", "2024-01-01", "infinity",
        "any", "{1}", "->>", "...", "user_id=2", "' OR 1=1 --", '"user_id"', "()", "count()", ".sum()", "a:", "🙂",
        "\ud800",
    ]
)  # fmt: skip
texts = st.one_of(st.lists(pieces, max_size=8).map("".join), st.text(max_size=30))
parameter_names = st.one_of(st.sampled_from(["select", "order", "limit", "offset", "snapshot", "cursor"]), names, texts)


@settings(max_examples=120, deadline=None)
@given(asked=st.lists(st.tuples(parameter_names, texts), max_size=4))
def test_no_text_in_any_parameter_breaks_anything(clients, asked):
    for client in clients:
        in_url = [(name, text) for name, text in asked if "\ud800" not in name + text]
        response = client.get(QUERY, params=in_url, headers=bearer(1))
        assert response.status_code in (200, 400, 410), response.text
        if response.status_code != 200:
            assert list(response.json()["error"]) == ["code", "message", "hint"]
        body = json.dumps({"queries": [{**dict(asked), "dataset": "facts"}]})
        response = client.post(MANY, content=body, headers=bearer(1))
        assert response.status_code in (200, 400, 410, 422), response.text
