"""Few rows found without DuckDB: no byte of an answer tells, and what they can't answer DuckDB does."""

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api import problems
from backend.api.admission import Admission
from backend.api.analytics import at_hand
from backend.duckdb.tables import Tables
from backend.manifest import Column, MartSpec
from backend.quoting import quoted
from backend.snapshots import SnapshotStore

from .api import bearer, open_api
from .test_kept_answers import shown
from .test_kept_rows import kept, path
from .test_tables import settle

ROWS = 900
NOTES = (
    "['', 'a', 'A', 'ab', 'zz', 'über', '🙂', ',\"n\":7', 'say \"hi\", \"n\":', 'back\\slash', 'new' || chr(10), "
    "'del' || chr(127), 'null', NULL, '},{', '100 %']"
)
COLUMNS = {
    "n": ("BIGINT", "i"),
    "user_id": ("INTEGER", "i // 300"),
    "few": ("SMALLINT", "i * 7 % 5 - 2"),
    "much": ("BIGINT", "CASE i % 3 WHEN 0 THEN 9223372036854775807 WHEN 1 THEN -9223372036854775808 ELSE i END"),
    "unsigned": ("UINTEGER", "4294967295 - i % 4"),
    "money": ("DECIMAL(12,2)", "(i * 37 % 900 - 450) / 7"),
    "long": ("DECIMAL(18,3)", "CASE WHEN i % 2 = 0 THEN 999999999999999.999 ELSE -999999999999999.999 END"),
    "part": ("DECIMAL(4,4)", "(i % 19 - 9) / 1000"),
    "wide": ("DECIMAL(30,2)", "i * 1000000007"),
    "day": ("DATE", "DATE '1969-11-15' + CAST(i % 700 * 3 AS INTEGER)"),
    "local": ("TIMESTAMP", "TIMESTAMP '1969-12-31 23:59:59.999999' + INTERVAL (i % 50) HOUR"),
    "instant": ("TIMESTAMPTZ", "TIMESTAMPTZ '2024-02-29 12:00:00.5+00' - INTERVAL (i * 31 % 100) MINUTE"),
    "old": ("DATE", "DATE '0999-12-31' + CAST(i AS INTEGER)"),
    "missing": ("INTEGER", "CASE WHEN i % 4 > 0 THEN i % 9 END"),
    "ratio": ("DOUBLE", "i / 7"),
    "flag": ("BOOLEAN", "i % 3 = 0"),
    "note": ("VARCHAR", f"{NOTES}[1 + i * 5 % 16]"),
    'said "x"': ("VARCHAR", "'x' || i % 3"),
    "100%b": ("INTEGER", "i % 6"),
}
NESTED = {**COLUMNS, "object": ("STRUCT(n INTEGER)", "{'n': i}")}
MARTS = {
    "facts": (COLUMNS, "", "i"),
    "first": (dict(sorted(COLUMNS.items(), key=lambda column: column[0] == "n")), "", "i"),  # its last is the number
    "ended": (dict(sorted(COLUMNS.items(), key=lambda column: column[0] == "note")), "", "i"),  # and of this a text
    "shared": ({name: column for name, column in COLUMNS.items() if name != "user_id"}, "", "i"),
    "unsorted": (COLUMNS, "", "i % 7, i"),
    "nested": (NESTED, "", "i"),
    "long": (COLUMNS, "", "i"),
    "empty": (COLUMNS, "LIMIT 0", "i"),
}
MANY = 20_000  # rows of "long", of which a user has more than are gone through


@pytest.fixture(scope="module")
def apis(tmp_path_factory):
    """An API that keeps rows of all marts, and one that reads files."""
    store = SnapshotStore(tmp_path_factory.mktemp("at-hand") / "parquet")
    with duckdb.connect() as connection, store.build("run", holder="test", wait=30) as build:
        connection.execute("SET TimeZone = 'UTC'")
        for name, (columns, limit, order) in MARTS.items():
            rows = MANY if name == "long" else ROWS
            values = ", ".join(
                f"CAST({value.replace('// 300', f'// {rows // 3}')} AS {kind}) AS {quoted(column)}"
                for column, (kind, value) in columns.items()
            )
            select = f"SELECT {values} FROM range({rows}) t(i) ORDER BY {order} {limit}"
            connection.execute(f"COPY ({select}) TO '{build.path}/{name}.parquet'")
        build.publish(
            [
                MartSpec(name, name, "", tuple(Column(column, kind) for column, (kind, _) in columns.items()))
                for name, (columns, _, _) in MARTS.items()
            ]
        )
    keeping, database = open_api(parquet_dir=store.root, kept_answers=0, max_limit=10_000)
    without, _ = open_api(parquet_dir=store.root, kept_answers=0, max_limit=10_000, table_memory=0)
    with keeping, without:
        settle(database, set(MARTS))
        for name in MARTS:
            keeping.get(path(name), headers=bearer(1))
        kept(database, set(MARTS))
        yield keeping, without


LITERALS = {
    "n": ["7", "-1", "007", "+450", "899"],
    "few": ["0", "-2", "9"],
    "much": ["9223372036854775807", "-9223372036854775808", "5"],
    "unsigned": ["4294967295", "0"],
    "money": ["0", "-.5", "1.10", "+7.", "64.2900", "-64.29"],
    "long": ["999999999999999.999", "-999999999999999.99900", "0.0"],
    "part": ["0.0010", "-.009", ".00900", "0"],
    "wide": ["0", "1000000007.00"],
    "day": ["1970-01-01", "1969-12-31", "1975-07-01"],
    "local": ["1970-01-01", "1970-01-01T00:59:59.999999", "1969-12-31 23:59:59.999999", "1970-01-02T11:00"],
    "instant": ["2024-02-29T12:00:00.5Z", "2024-02-29T13:30:00.5+02:00", "2024-02-29T12:00", "2024-02-29"],
    "old": ["0999-12-31", "1001-01-01"],
    "missing": ["3"],
    "ratio": ["1", "NaN"],
    "note": ["", "a", "über", "🙂", ',"n":7', 'say "hi", "n":', "back\\slash", "new\n", "del\x7f", "null", "100 %"],
    "100%b": ["3"],
}  # fmt: skip
numbers = st.sampled_from([name for name in LITERALS if name not in ("note", "ratio", "missing", "old", "wide")])
names = st.one_of(numbers, numbers, st.sampled_from([*COLUMNS]))


@st.composite
def conditions(draw):
    name = draw(st.one_of(numbers, numbers, st.sampled_from([*LITERALS])))
    operator = draw(st.sampled_from(["eq", "neq", "gt", "gte", "lt", "lte", "in", "is"]))
    literals = st.sampled_from(LITERALS[name])
    if operator == "is":
        value = draw(st.sampled_from(["null", "not_null"]))
    elif operator == "in":
        escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in draw(st.lists(literals, max_size=3))]
        value = "(" + ",".join(f'"{text}"' for text in escaped) + ")"
    else:
        value = draw(literals)
    return name, f"{draw(st.sampled_from(['', '', 'not.']))}{operator}.{value}"


def written(name):
    return '"' + name.replace('"', '\\"') + '"' if name in ('said "x"', "100%b") else name


columns = names.map(written)
renamed = st.builds(lambda alias, name: f"{alias}:{name}", st.sampled_from(["other", "ä", '"50 %"']), columns)
aggregates = st.one_of(
    st.just("count()"),
    st.builds(
        "total:{}.sum()".format, st.sampled_from(["few", "much", "money", "long", "part", "unsigned", "n", "wide"])
    ),
    st.builds("{}.{}()".format, columns, st.sampled_from(["min", "max", "count"])),
    st.just("average:money.avg()"),
)
keys = st.one_of(
    st.sampled_from(["few", "money", "part", "day", "note", '"said \\"x\\""', "missing", "instant", '"100%b"']),
    st.builds("cut:{}.trunc({})".format, st.just("day"), st.sampled_from(["year", "quarter", "month", "week", "day"])),
    st.just("cut:local.trunc(month)"),
)
unique = {"unique_by": lambda item: item.rpartition(":")[0] or item.rpartition(".")[2]}
selects = st.one_of(
    st.just("*"),
    st.lists(st.one_of(columns, renamed), min_size=1, max_size=4, **unique).map(",".join),
    st.lists(st.one_of(keys, aggregates), min_size=1, max_size=4, **unique).map(",".join),
)
orders = st.lists(
    st.builds(
        "{}{}{}".format,
        st.one_of(columns, st.sampled_from(["cut", "total", "count", "min", "few", "note"])),
        st.sampled_from(["", ".desc"]),
        st.sampled_from(["", ".nullsfirst", ".nullslast"]),
    ),
    max_size=3,
    unique_by=lambda key: key.split(".")[0],
)


@st.composite
def questions(draw):
    asked = [("select", draw(selects)), *draw(st.lists(conditions(), max_size=2))]
    if order := draw(orders):
        asked.append(("order", ",".join(order)))
    for name, values in (("limit", [0, 1, 7, 300, 10_000]), ("offset", [0, 3, 299])):
        if draw(st.booleans()):
            asked.append((name, str(draw(st.sampled_from(values)))))
    return asked


@settings(max_examples=600, deadline=None)
@given(
    mart=st.sampled_from(["facts", "facts", "first", "shared", *MARTS]),
    asked=questions(),
    user=st.sampled_from([0, 1, 2, 7, -1]),
    everybody=st.booleans(),
)
def test_no_byte_tells_of_them(apis, mart, asked, user, everybody):
    given_to = {"params": asked, "headers": bearer(user, all_rows=everybody)}
    came, expected = (shown(api.get(path(mart), **given_to), without=["etag"]) for api in apis)
    assert came == expected


QUESTIONS = {
    "": 1,
    "n=gt.450&order=instant.desc,n&limit=100": 1,
    "select=n,money,note,flag,ratio&few=in.(0,1)&money=not.lt.0&day=gte.1970-01-01&offset=3": 1,
    "select=month:day.trunc(month),money.sum(),count()&order=month.desc": 1,
    "select=note,few,n.max(),n.count()&order=max.desc,note.desc.nullsfirst&note=neq.a&n=is.not_null": 0,
    "select=note,few,n.max(),n.count()&order=max.desc,note.desc.nullsfirst&note=neq.a": 1,
    "select=note,count()&order=note.nullsfirst": 1,
    "select=note,count()&order=count,note.desc": 1,
    "select=note,count()&order=note.desc.nullslast": 1,
    "select=count(),part.min()": 1,
    "select=count()&n=lt.0": 1,
    "select=n.max()&n=lt.0": 0,
    "order=ratio": 0,
    "order=missing": 0,
    "old=gt.1000-01-01": 0,
    "missing=eq.3": 0,
    "note=like.*a*": 0,
    "note=gt.a": 0,
    "note=eq.new%0A": 0,
    "wide=eq.0": 0,
    "select=money.avg()": 0,
    "select=local.trunc(month)": 0,
    "select=local.max()": 0,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_they_answer_what_is_whole_numbers_underneath(apis, monkeypatch, question):
    assert answered(apis, monkeypatch, f"{path('facts')}?{question}", bearer(1)) == QUESTIONS[question]


@pytest.mark.parametrize(
    ("mart", "headers", "found"),
    [
        ("facts", bearer(1, all_rows=True), 1),
        ("facts", bearer(7), 1),
        ("first", bearer(1), 1),
        ("shared", bearer(1), 1),
        ("empty", bearer(1), 1),
        ("unsorted", bearer(1), 0),
        ("unsorted", bearer(1, all_rows=True), 1),
        ("long", bearer(1), 0),
    ],
)
def test_they_answer_for_whoever_has_few_side_by_side(apis, monkeypatch, mart, headers, found):
    assert answered(apis, monkeypatch, f"{path(mart)}?order=n.desc", headers) == found


@pytest.mark.parametrize(("limit", "most"), [("_MOST_VALUES", 599), ("_MOST_BYTES", 50_000)])
def test_what_takes_long_is_left_to_duckdb(apis, monkeypatch, limit, most):
    """300 rows of some 250 bytes, two values of each: a key to sort by, and the row."""
    url = f"{path('facts')}?order=n.desc&limit=1"
    assert answered(apis, monkeypatch, url, bearer(1)) == 1
    monkeypatch.setattr(at_hand, limit, most)
    assert answered(apis, monkeypatch, url, bearer(1)) == 0


def test_they_wait_for_nobody(apis, monkeypatch):
    """Neither for a slot nor for a thread: one at a time they are done before others could be asked."""
    keeping, _ = apis

    def refused(*_, **__):
        raise problems.too_many_queries("none is free")

    monkeypatch.setattr(Admission, "admitted", refused)

    def status(question, user=1):
        return keeping.get(f"{path('facts')}?{question}", headers=bearer(user)).status_code

    assert status("order=n.desc") == 200
    assert status("order=ratio.desc") == 429
    assert status("limit=9" + "&n=gt.100" * 20, user=7) == 200
    assert status("limit=9" + "&n=gt.100" * 400, user=7) == 429, "to read what is long may take long"
    many = {"queries": [{"dataset": "facts", "n": "gt.100", "limit": 5}, {"dataset": "shared", "select": "count()"}]}
    assert keeping.post("/api/analytics/query", json=many, headers=bearer(1)).status_code == 200
    many["queries"][1]["select"] = "ratio.avg()"
    assert keeping.post("/api/analytics/query", json=many, headers=bearer(1)).status_code == 429


def test_they_count_as_questions_of_what_is_kept(apis, monkeypatch):
    """Else it would give way to what is asked for less."""
    counted, asked = [], Tables.asked
    monkeypatch.setattr(Tables, "asked", lambda *given: counted.append(given[1:]) or asked(*given))
    for question in ("order=n.desc", "select=few,count()", "order=ratio", "select=ratio"):
        apis[0].get(f"{path('facts')}?{question}", headers=bearer(1))
    assert counted == [("facts", "json"), ("facts", "json"), ("facts", "json"), ("facts", "json")]


def test_a_text_at_the_end_of_a_row_is_whole(apis, monkeypatch):
    """One of them looks like the end of a row."""
    assert answered(apis, monkeypatch, f"{path('ended')}?select=n,note", bearer(1)) == 1


def test_single_columns_of_rows_with_rows_inside_are_not_at_hand(apis, monkeypatch):
    """A key is looked for by its name, which may be inside of another value, too."""
    assert answered(apis, monkeypatch, f"{path('nested')}?order=n.desc", bearer(1)) == 1
    assert answered(apis, monkeypatch, f"{path('nested')}?select=n", bearer(1)) == 0


def answered(apis, monkeypatch, url, headers):
    """How often the question was answered without DuckDB; in any case the same."""
    pages, page = [], at_hand.page
    with monkeypatch.context() as patch:
        patch.setattr(at_hand, "page", lambda *given: pages.append(page(*given)) or pages[-1])
        came, expected = (shown(api.get(url, headers=headers), without=["etag"]) for api in apis)
    assert came[0] == 200
    assert came == expected
    return sum(page is not None for page in pages)
