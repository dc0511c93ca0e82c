"""What is published comes back from Parquet exactly, or is refused by its column's name, with a way out that works."""

import re

import duckdb
import pytest

from backend.audit import FINGERPRINT, Written
from backend.checksum import file_sha256
from backend.errors import AuditFailed
from backend.manifest import Column, MartSpec
from backend.scripts.bootstrap_duckdb import refresh_duckdb_file
from backend.snapshots import SnapshotStore
from deploy.pipeline.parity.compare import compare_mart
from deploy.pipeline.parity.report import Kind

# Type: (values, the type they have in Parquet). Ends of their ranges, where types have ends.
KEPT = {
    "BOOLEAN": (["true"], "BOOLEAN"),
    "TINYINT": (["-128", "127"], "TINYINT"),
    "UTINYINT": (["255"], "UTINYINT"),
    "SMALLINT": (["-32768"], "SMALLINT"),
    "USMALLINT": (["65535"], "USMALLINT"),
    "INTEGER": (["-2147483648"], "INTEGER"),
    "UINTEGER": (["4294967295"], "UINTEGER"),
    "BIGINT": (["-9223372036854775808"], "BIGINT"),
    "UBIGINT": (["18446744073709551615"], "UBIGINT"),
    "FLOAT": (["0.1", "'nan'", "'-inf'"], "FLOAT"),
    "DOUBLE": (["0.1", "'nan'", "'inf'", "5e-324"], "DOUBLE"),
    "DECIMAL(4,1)": (["-999.9"], "DECIMAL(4,1)"),
    "DECIMAL(38,0)": (["9" * 38, "-" + "9" * 38], "DECIMAL(38,0)"),
    "DECIMAL(38,38)": ([f"'0.{'9' * 38}'"], "DECIMAL(38,38)"),
    "VARCHAR": (["''", "'é'", "'e\u0301 🙂'"], "VARCHAR"),
    "BLOB": (["''::BLOB", "'\\x00\\xFF'::BLOB"], "BLOB"),
    "BIT": (["'0'", "'101'"], "VARCHAR"),
    "UUID": (["'ffffffff-ffff-ffff-ffff-ffffffffffff'"], "UUID"),
    "JSON": (["'{\"a\": 1.00}'", "'null'"], "JSON"),
    "ENUM('a', 'b''c')": (["'a'", "'b''c'"], "VARCHAR"),
    "DATE": (["'5877642-06-25 (BC)'", "'5881580-07-10'", "'infinity'"], "DATE"),
    "TIME": (["'00:00:00'", "'23:59:59.999999'", "'24:00:00'"], "TIME"),
    "TIMESTAMP": (["'290309-12-22 (BC)'", "'294247-01-10 04:00:54.775806'", "'-infinity'"], "TIMESTAMP"),
    "TIMESTAMP_S": (["'2024-01-01 00:00:01'", "'294247-01-10 04:00:54'"], "TIMESTAMP"),
    "TIMESTAMP_MS": (["'2024-01-01 00:00:01.123'", "'infinity'"], "TIMESTAMP"),
    "TIMESTAMP_NS": (["'2024-01-01 00:00:01.123456789'", "'infinity'"], "TIMESTAMP_NS"),
    "TIMESTAMPTZ": (["'2024-01-01 00:00:01.123456+05:30'", "'infinity'"], "TIMESTAMP WITH TIME ZONE"),
    "INTEGER[]": (["[]", "[1, NULL]"], "INTEGER[]"),
    "INTEGER[2]": (["[1, NULL]"], "INTEGER[]"),
    "DECIMAL(38,2)[][]": (["[[1.10], NULL, []]"], "DECIMAL(38,2)[][]"),
    "STRUCT(\"B c\" UUID, a ENUM('x'))": (["{'B c': NULL, 'a': 'x'}"], 'STRUCT("B c" UUID, a VARCHAR)'),
    "MAP(DATE, BIT[])": (["MAP {}", "MAP {'2024-01-01': ['1', NULL]}"], "MAP(DATE, VARCHAR[])"),
}
# Type: a value of it that Parquet wouldn't keep.
LOST = {
    "HUGEINT": "9007199254740993",
    "UHUGEINT": "9007199254740993",
    "BIGNUM": "'9007199254740993'",
    "INTERVAL": "'0.0015 seconds'",
    "TIME WITH TIME ZONE": "'23:59:59+05:30'",
    "TIME_NS": "'12:00:00.123456789'",
    "UNION(n INTEGER, s VARCHAR)": "union_value(s := 'x')",
    "VARIANT": "{'b': 1, 'a': 2}::VARIANT",
    "GEOMETRY": "'POINT (1 2)'",
}


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "store")


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def publish(store, connection, columns, casts=None):
    """What lies in the table ``mart``, declared with these types, by a builder that says what it meant to write.

    ``casts`` are the types that the values have in Parquet, where they are others.
    """
    values = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in (casts or {}).items()) or "*"
    with store.build("run", holder="test") as build:
        path = build.path / "mart.parquet"
        connection.execute(f"COPY mart TO '{path}' (FORMAT parquet)")
        content = connection.execute(f"SELECT {FINGERPRINT} FROM (SELECT {values} FROM mart) AS t").fetchone()[0]
        spec = MartSpec("mart", "Mart", "", tuple(Column(name, kind) for name, kind in columns.items()))
        return build.publish([spec], written={"mart": Written(content, file_sha256(path))})


def filled(connection, kind, values):
    rows = ", ".join(f"(CAST({value} AS {kind}))" for value in [*values, "NULL"])
    connection.execute(f"CREATE OR REPLACE TABLE mart AS SELECT v FROM (VALUES {rows}) AS t(v)")


@pytest.mark.parametrize("rows", ["some", "none"])
@pytest.mark.parametrize("kind", KEPT)
def test_a_type_is_published_exactly_and_survives_the_way_back(store, connection, tmp_path, kind, rows):
    values, in_parquet = KEPT[kind]
    filled(connection, kind, values)
    if rows == "none":
        connection.execute("DELETE FROM mart")
    manifest = publish(store, connection, {"v": kind}, {"v": in_parquet})
    assert [column.type for column in manifest.marts["mart"].columns] == [in_parquet]
    refresh_duckdb_file(store, tmp_path / "analytics.duckdb")
    connection.execute(f"ATTACH '{tmp_path}/analytics.duckdb' AS file (READ_ONLY)")
    published = f"read_parquet('{store.root}/mart/mart.parquet')"
    was = connection.execute("SELECT CAST(v AS VARCHAR) FROM mart").fetchall()
    for relation in (published, "file.main.mart"):
        assert connection.execute(f"SELECT DISTINCT typeof(v) FROM {relation}").fetchall() in ([(in_parquet,)], [])
        assert connection.execute(f"SELECT CAST(v AS VARCHAR) FROM {relation}").fetchall() == was
        assert compare_mart(connection, "mart", "mart", relation).kinds == ()


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("shape", ["{}", "{}[]", "STRUCT(a {})", "MAP(INTEGER, {}[])"])
def test_a_type_that_parquet_would_change_is_refused_with_a_way_out(store, connection, kind, shape):
    column = 'da "span'
    connection.execute("CREATE TABLE mart AS SELECT 1 AS n")
    with pytest.raises(AuditFailed) as refused:
        publish(store, connection, {"n": "INTEGER", column: shape.format(kind)})
    message = refused.value.message
    assert f'mart: column "da ""span" is {kind}' in message
    assert ("…" in message) is (shape != "{}")
    assert store.current_id() is None


@pytest.mark.parametrize("kind", LOST)
def test_the_way_out_keeps_the_value(store, connection, kind):
    filled(connection, kind, [LOST[kind]]) if kind != "VARIANT" else connection.execute(
        f"CREATE TABLE mart AS SELECT {LOST[kind]} AS v"
    )
    with pytest.raises(AuditFailed) as refused:
        publish(store, connection, {"v": kind})
    (cast,) = re.findall(r'write (.*"v".*) in the model', refused.value.message)
    connection.execute(f"CREATE TABLE model AS SELECT {cast} AS v FROM mart")
    connection.execute("DROP TABLE mart")
    connection.execute("ALTER TABLE model RENAME TO mart")
    ((in_model, meant),) = connection.execute("SELECT typeof(v), CAST(v AS VARCHAR) FROM mart LIMIT 1").fetchall()
    publish(store, connection, {"v": in_model})
    found = connection.execute(f"SELECT CAST(v AS VARCHAR) FROM '{store.root}/mart/mart.parquet' LIMIT 1").fetchall()
    assert found == [(meant,)]


@pytest.mark.parametrize(("kind", "value"), LOST.items())
def test_a_parity_check_sees_what_parquet_changed(connection, tmp_path, kind, value):
    connection.execute(f"CREATE TABLE mart AS SELECT 1 AS n, CAST({value} AS {kind}) AS v")
    connection.execute(f"COPY mart TO '{tmp_path}/mart.parquet'")
    found = compare_mart(connection, "mart", "mart", f"read_parquet('{tmp_path}/mart.parquet')")
    assert set(found.kinds) & {Kind.TYPES, Kind.CONTENT}


def test_a_struct_without_names_is_refused(store, connection):
    connection.execute("CREATE TABLE mart AS SELECT 1 AS n")
    with pytest.raises(AuditFailed, match=r'column "v" is declared as STRUCT\(INTEGER, VARCHAR\).* need names'):
        publish(store, connection, {"v": "STRUCT(INTEGER, VARCHAR)"})


def test_a_declared_type_that_there_is_not_is_refused(store, connection):
    connection.execute("CREATE TABLE mart AS SELECT 1 AS v")
    with pytest.raises(AuditFailed, match="mood"):
        publish(store, connection, {"v": "mood"})


def test_a_partial_build_takes_over_what_has_another_type_in_parquet(store, connection):
    connection.execute("CREATE TABLE mart AS SELECT 'a'::ENUM('a') AS v")
    spec = MartSpec("mart", "Mart", "", (Column("v", "ENUM('a')"),))
    publish(store, connection, {"v": "ENUM('a')"}, {"v": "VARCHAR"})
    with store.build("run", holder="test") as build:
        build.link(["mart"])
        assert build.publish([spec]).marts["mart"].columns == (Column("v", "VARCHAR"),)


def test_a_builder_that_did_not_cast_is_told_to(store, connection):
    connection.execute("CREATE TABLE mart AS SELECT 1 AS n, 'a'::ENUM('a') AS v")
    with pytest.raises(AuditFailed, match=r'"v" is ENUM\(\'a\'\), in Parquet VARCHAR: write CAST\("v" AS VARCHAR\) in'):
        publish(store, connection, {"n": "INTEGER", "v": "ENUM('a')"})
