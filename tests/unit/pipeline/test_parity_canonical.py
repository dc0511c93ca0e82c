"""The canonical form tells any two values of a type apart, and is the same wherever the value is stored."""

import struct
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploy.pipeline.parity.canonical import canonical

# Of what forms are made of, so that values come to look like each other's forms.
TEXT = st.text(alphabet="\",N[]{}:'\\a é\0", max_size=5) | st.sampled_from(["NULL", "nan", "0.0", '",N', '"",""'])
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, float("nan"), -float("nan"), float("inf"), -float("inf"), 2.0**53])
MOMENTS = st.integers(-(2**55), 2**55)

SCALARS = {
    pa.string(): TEXT,
    pa.binary(): st.binary(max_size=3) | st.sampled_from([b"\\x00", b"\x00", b'"']),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12),
    pa.float64(): FLOATS,
    pa.float32(): st.floats(width=32) | st.sampled_from([0.0, -0.0]),
    pa.decimal128(18, 3): st.decimals(-1000, 1000, places=3) | st.sampled_from([Decimal("1.000"), Decimal("10.000")]),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): MOMENTS,
    pa.timestamp("us", tz="UTC"): MOMENTS,
}


def nullable(values):
    return st.none() | values


def of_lists(kind_and_values):
    kind, values = kind_and_values
    return pa.list_(kind), st.lists(nullable(values), max_size=3)


def of_structs(parts):
    fields = [(f"f'{number}\"", kind) for number, (kind, _) in enumerate(parts)]
    values = st.fixed_dictionaries(
        {name: nullable(values) for (name, _), (_, values) in zip(fields, parts, strict=True)}
    )
    return pa.struct(fields), values


def of_maps(kind_and_values):
    kind, values = kind_and_values
    return pa.map_(pa.string(), kind), st.dictionaries(TEXT, nullable(values), max_size=2).map(lambda d: [*d.items()])


TYPES = st.recursive(
    st.sampled_from(list(SCALARS.items())),
    lambda inner: inner.map(of_lists) | st.lists(inner, min_size=1, max_size=2).map(of_structs) | inner.map(of_maps),
    max_leaves=4,
)


@st.composite
def columns(draw):
    """An Arrow column of some type, with values and NULLs."""
    kind, values = draw(TYPES)
    return pa.array(draw(st.lists(nullable(values), min_size=2, max_size=6)), kind)


def identity(value):
    """What makes a scalar another one than others of its type: 0.0 is not -0.0, and any NaN is NaN."""
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("d", value)  # noqa: PLR0124 - that is what NaN is
    return value


def parts(value):
    """The parts of a list, struct or map in turn, those of a map's entries likewise; None for a scalar."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return [part for item in value for part in (item if isinstance(item, tuple) else [item])]
    return None


def read(form):
    """A form read back: nested lists of texts and None, and what follows it."""
    if form[0] == "N":
        return None, form[1:]
    if form[0] in "[{":
        values, rest = [], form[1:]
        while rest[0] not in "]}":
            value, rest = read(rest)
            values.append(value)
        return values, rest[1:]
    text, end = "", 1
    while form[end : end + 2] != '",':
        text += form[end]
        end += 2 if form[end] == '"' else 1
    return text, form[end + 2 :]


def assert_says(value, said):
    """That ``said``, read from a form, has the parts of ``value``; texts are what they are."""
    if value is None or said is None:
        assert value is said
    elif (inner := parts(value)) is not None:
        assert len(inner) == len(said)
        for pair in zip(inner, said, strict=True):
            assert_says(*pair)
    elif isinstance(value, str):
        assert said == value


def forms(connection, relation):
    ((_, sqltype, *_),) = connection.execute(f"SELECT v FROM {relation} LIMIT 0").description
    return [form for (form,) in connection.execute(f"SELECT {canonical('v', sqltype)} FROM {relation}").fetchall()]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.mark.parametrize("kind", SCALARS, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_forms_of_scalars_are_equal_just_when_the_scalars_are(connection, kind, data):
    column = pa.array(data.draw(st.lists(nullable(SCALARS[kind]), min_size=2, max_size=20)), kind)
    connection.register("arrow", pa.table({"v": column}))
    values = [identity(value) for value in column.to_pylist()]
    found = forms(connection, "arrow")
    assert [[a == b for b in found] for a in found] == [[a == b for b in values] for a in values]


@settings(max_examples=200, deadline=None)
@given(column=columns())
def test_every_part_of_a_nested_value_can_be_read_from_its_form(connection, column):
    connection.register("arrow", pa.table({"v": column}))
    for value, form in zip(column.to_pylist(), forms(connection, "arrow"), strict=True):
        said, rest = read(form)
        assert rest == ""
        assert_says(value, said)


@settings(max_examples=60, deadline=None)
@given(column=columns())
def test_the_form_stays_the_same_in_a_table_and_in_parquet(connection, column, tmp_path_factory):
    assume("-0.0" not in str(column.to_pylist()))  # which DuckDB's dictionaries hold as 0.0, if that came first (0012)
    connection.register("arrow", pa.table({"v": column}))
    path = tmp_path_factory.getbasetemp() / "canonical.parquet"
    connection.execute("CREATE OR REPLACE TEMP TABLE stored AS FROM arrow")
    connection.execute(f"COPY stored TO '{path}' (FORMAT parquet)")
    assert forms(connection, "arrow") == forms(connection, "stored") == forms(connection, f"read_parquet('{path}')")


@pytest.mark.parametrize(
    ("stored", "parquet"),
    [
        ("'a'::ENUM('a', 'b')", "'a'"),
        ("'101'::BIT", "'101'"),
        ("'2024-01-01 00:00:01'::TIMESTAMP_S", "'2024-01-01 00:00:01'::TIMESTAMP"),
        ("'2024-01-01 00:00:01.5'::TIMESTAMP_MS", "'2024-01-01 00:00:01.5'::TIMESTAMP"),
        ("[1, 2]::INTEGER[2]", "[1, 2]"),
        ("[[1], [2]]::INTEGER[1][2]", "[[1], [2]]"),
    ],
)
def test_what_parquet_has_no_type_for_has_the_form_of_what_it_becomes(connection, stored, parquet):
    assert forms(connection, f"(SELECT {stored} AS v)") == forms(connection, f"(SELECT {parquet} AS v)")
