"""Names that would mean something else in a file, a URL or SQL are refused before anything is published."""

import duckdb
import pytest

from backend.errors import AuditFailed, SnapshotCorrupt
from backend.manifest import Column, MartSpec
from backend.names import MAX_BYTES
from backend.scripts.bootstrap_duckdb import refresh_duckdb_file
from backend.snapshots import SnapshotStore

GOOD = [
    "select", "order", "Ledger", "net income", "a.b", "o'brien", 'say "x"', "100%", "%2F", "#1", "a&b=c;d", "a+b",
    "1st", "🙂", "👩‍👩‍👧", "é", "e\u0301", "{id}", "$x", "~", "--", "x.parquet", "manifest.json", "_snapshot",
    "n" * MAX_BYTES,
]  # fmt: skip
BAD = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "../a",
    "/etc/a",
    "a\\b",
    "a*",
    "a?",
    "a[b]",
    "a\0",
    "a\nb",
    "é" * 121,
    "\ud800",
]
ALIKE = [("Sales", "sales"), ("É", "é"), ("\u00e9", "e\u0301"), ("straße", "STRASSE"), ("twice", "twice")]


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "store")


def publish(store, marts):
    """One row for each name and its columns, whose value is where it stands."""
    with store.build("run", holder="test") as build, duckdb.connect() as connection:
        for number, (name, columns) in enumerate(marts):
            if name in GOOD:
                values = ", ".join(f'{number} AS "{column.replace(chr(34), chr(34) * 2)}"' for column in columns)
                path = f"{build.path}/{name}.parquet".replace("'", "''")
                connection.execute(f"COPY (SELECT {values}) TO '{path}' (FORMAT parquet, USE_TMP_FILE true)")
        return build.publish(
            [MartSpec(name, "L", "D", tuple(Column(c, "INTEGER") for c in columns)) for name, columns in marts]
        )


def test_good_names_are_files_tables_and_columns(store, tmp_path):
    columns = ["n", *(name for name in GOOD if name != "n"), "a/b", "a*", "a\nb", ".", "c" * 5000]
    marts = [(name, columns) for name in GOOD if name != "e\u0301"]
    publish(store, marts)
    refresh_duckdb_file(store, tmp_path / "analytics.duckdb")
    with store.open() as snapshot, duckdb.connect(str(tmp_path / "analytics.duckdb"), read_only=True) as connection:
        snapshot.verify()
        for number, (name, _) in enumerate(marts):
            table = name.replace('"', '""')
            result = connection.execute(f'SELECT * FROM main."{table}"')
            assert [field[0] for field in result.description] == columns
            assert result.fetchall() == [(number,) * len(columns)]


@pytest.mark.parametrize("name", BAD)
def test_a_dataset_of_a_bad_name_is_refused(store, name):
    before = publish(store, [("Ledger", ["n"])])
    with pytest.raises(AuditFailed) as refused:
        publish(store, [("Ledger", ["n"]), (name, ["n"])])
    assert f"{name!r}: its name " in refused.value.message
    assert "give the model another name, or an alias" in refused.value.message
    assert store.current_id() == before.id


@pytest.mark.parametrize("names", ALIKE)
def test_datasets_that_differ_in_case_or_form_only_are_refused(store, names):
    with pytest.raises(AuditFailed) as refused:
        publish(store, [(name, ["n"]) for name in names])
    for name in names:
        assert f"{name!r}: {names[0]!r}, {names[1]!r} are one name where case is ignored" in refused.value.message


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (["n", ""], "no column can be called '': it has no character"),
        (["n", "a\0b"], r"no column can be called 'a\x00b': SQL has no way to write it"),
        (
            ["A", "a"],
            "no column can be called 'A': 'A', 'a' are one name where case is ignored; rename it in the model",
        ),
        (["n", "n"], "no column can be called 'n': 'n', 'n' are one name"),
        ([], "it has no columns; a mart needs one"),
    ],
)
def test_bad_columns_are_refused(store, columns, why):
    with pytest.raises(AuditFailed) as refused:
        publish(store, [("bad", columns)])
    assert f"bad: {why}" in refused.value.message
    assert store.current_id() is None


def test_columns_that_duckdb_tells_apart_may_differ_so_little(store):
    publish(store, [("Ledger", ["Ä", "ä", "\u00e9", "e\u0301"])])
    with store.open() as snapshot, duckdb.connect() as connection:
        fields = connection.execute(f"FROM '{snapshot.file('Ledger')}'").description
    assert [field[0] for field in fields] == ["Ä", "ä", "\u00e9", "e\u0301"]


def test_whose_rows_they_are_is_said_in_any_case(store):
    publish(store, [("Ledger", ["n", "USER_ID"])])
    with store.open() as snapshot:
        assert snapshot.manifest.marts["Ledger"].user_column == "USER_ID"


def test_a_pattern_or_a_key_in_the_stores_own_path_means_nothing(tmp_path):
    store = SnapshotStore(tmp_path / "[a] k=7" / "b*")
    found_by_pattern = tmp_path / "a k=7" / "b*" / "building" / "run"
    found_by_pattern.mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1::INTEGER AS n FROM range(2)) TO '{found_by_pattern}/Ledger.parquet'")
    assert publish(store, [("Ledger", ["n"])]).marts["Ledger"].rows == 1
    refresh_duckdb_file(store, tmp_path / "analytics.duckdb")
    with duckdb.connect(str(tmp_path / "analytics.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT * FROM Ledger").fetchall() == [(0,)]


def test_files_of_somebody_else_have_to_have_good_names_too(tmp_path):
    (tmp_path / "mart").mkdir()
    with duckdb.connect() as connection:
        for name in ("Sales", "sales"):
            connection.execute(f"COPY (SELECT 1 AS n) TO '{tmp_path}/mart/{name}.parquet'")
    with pytest.raises(SnapshotCorrupt, match=r"'Sales': 'Sales', 'sales' are one name where case is ignored"):
        SnapshotStore(tmp_path).open()
