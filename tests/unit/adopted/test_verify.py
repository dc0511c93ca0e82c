"""``verify`` and ``check-source`` of an adopted project: it is equal, every damage is found, and nothing is touched."""

import shutil
import sys

import duckdb
import pytest

from backend.errors import SnapshotCorrupt
from backend.manifest import FILE_NAME
from deploy.pipeline.adopted import export, session
from deploy.pipeline.adopted.export import Export, Relation
from deploy.pipeline.adopted.plan import Plan
from deploy.pipeline.adopted.tables import close_copies, copy_marts
from deploy.pipeline.adopted.twins import AdoptedTwins
from deploy.pipeline.parity import verify
from deploy.pipeline.parity.compare import compare, compare_mart
from deploy.pipeline.parity.report import Kind, Report, Verdict
from tests.unit.pipeline.mutations import complaints, pair_of

from .conftest import FIRST, WRONG
from .shop import copied
from .test_build import MARTS

C, R, T, V, S = Kind.COLUMNS, Kind.ROW_COUNT, Kind.TYPES, Kind.CONTENT, Kind.SENTINEL


def command(shop, name, **variables):
    run = ("env", *(f"{name}={value}" for name, value in variables.items())) if variables else ()
    return shop.run(*run, sys.executable, "-m", "deploy.pipeline", name)


# --- all of it --------------------------------------------------------------------------------------------------------
def store_files(shop):
    return {
        path: (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in shop.store.root.rglob("*")
    }


def test_what_is_published_is_what_dbt_left_and_nothing_is_touched(history, tmp_path):
    shop = copied(history.shop, tmp_path)
    shop.ring_up("UPDATE sales SET product = 'Tyre' WHERE sale_no = 7")  # as all of it was never built with a Horn
    before, files = shop.hashes(), store_files(shop)
    result = command(shop, "verify", LEGACY_DUCKDB_PATH=tmp_path / "analytics.duckdb")
    assert result.returncode == 0, result.stdout + result.stderr
    report = Report.from_json(result.stdout)
    both, file = report.comparisons
    assert (report.verdict, both.verdict, report.reason) == (Verdict.EQUAL, Verdict.EQUAL, None)
    assert (file.verdict, file.reason) == (Verdict.LEFT_OUT, f"there is no {tmp_path / 'analytics.duckdb'} yet")
    marts = {mart.name: mart for mart in both.marts}
    assert marts.keys() == MARTS
    assert all(mart.old == mart.new for mart in marts.values())
    rows = {name: mart.old.rows for name, mart in marts.items()}
    assert rows == {
        "Sales": 7,
        "addresses": 4,  # of which two are history, that only the snapshot's state has
        "best_sellers": 2,
        "complaints": 0,
        "marks": 3,
        "price_list": 4,
        "recalls": 0,
        "turnover": 2,
    }
    assert (shop.hashes(), store_files(shop)) == (before, files)
    assert [*tmp_path.glob("verify-*"), *shop.left_over()] == []


def test_a_failing_test_of_the_project_is_unknown_in_dbts_words(installed, tmp_path):
    shop = copied(installed, tmp_path)
    shop.ring_up(WRONG)
    before = shop.hashes()
    result = command(shop, "verify")
    report = Report.from_json(result.stdout)
    assert (result.returncode, report.verdict, report.comparisons) == (2, Verdict.UNKNOWN, ())
    assert "assert_nothing_is_sold_in_negative_numbers: fail: Got 1 result" in report.reason
    assert shop.hashes() == before
    assert not shop.store.root.exists(), "where nothing was ever published, there is no store yet"
    assert [*tmp_path.glob("verify-*"), *tmp_path.glob("dbt-*")] == []


@pytest.mark.parametrize("what", ["manifest", "database"])
def test_a_state_that_can_not_be_gone_on_from_is_unknown(history, tmp_path, what, monkeypatch):
    shop = copied(history.shop, tmp_path)
    snapshot = shop.store.root / "snapshots" / shop.store.current_id()
    file = snapshot / FILE_NAME if what == "manifest" else next((snapshot / "state").glob("*.duckdb"))
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    monkeypatch.setenv("PARQUET_DIR", str(shop.store.root))
    twins = AdoptedTwins(tmp_path / "work", shop.project)
    with pytest.raises(SnapshotCorrupt, match="manifest" if what == "manifest" else "is not what was published"):
        twins._state()


# --- what is damaged between the export and the comparison ------------------------------------------------------------
@pytest.fixture(scope="module")
def twins(installed, tmp_path_factory):
    """Both sides, from the owner's own database, as nothing was published yet. Read only."""
    shop = copied(installed, tmp_path_factory.mktemp("twins"))
    shop.ring_up(FIRST)
    work = shop.root / "work"
    work.mkdir()
    twins = AdoptedTwins(work, shop.project)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**shop.variables, "PARQUET_DIR": str(shop.store.root)}.items():
            patch.setenv(name, value)
        twins.build()
    return twins


@pytest.fixture
def damaged(twins, tmp_path):
    """``damaged(mart, sql)``: what is found of each mart, with one that is now what the query gives; None: deleted."""
    shutil.copytree(twins.work, tmp_path, dirs_exist_ok=True)
    copy = AdoptedTwins(tmp_path, twins.root)
    copy.marts = twins.marts

    def found(mart, sql):
        file = tmp_path / "parquet" / f"{mart}.parquet"
        before = file.rename(tmp_path / "before.parquet")
        if sql:
            duckdb.sql(sql.format(mart=f"read_parquet('{before}')")).write_parquet(str(file))
        return verify._compare_builds(copy)

    return found


def test_both_sides_are_equal_from_the_owners_database_as_well(twins):
    comparison = verify._compare_builds(twins)
    assert (comparison.verdict, {mart.name for mart in comparison.marts}) == (Verdict.EQUAL, MARTS)
    rows = {mart.name: mart.old.rows for mart in comparison.marts}
    assert (rows["addresses"], rows["Sales"]) == (3, 5)


@pytest.mark.parametrize(
    ("mart", "sql", "kinds"),
    [
        ("turnover", "SELECT * REPLACE ((pieces + (pieces = 1)::INT)::DECIMAL(38,0) AS pieces) FROM {mart}", {V}),
        ("best_sellers", "SELECT * REPLACE (pieces::DOUBLE AS pieces) FROM {mart}", {T, V}),
        ("best_sellers", "SELECT * REPLACE (pieces::BIGINT AS pieces) FROM {mart}", {T}),
        ("price_list", "SELECT * REPLACE (if(mark = 'BEL', NULL, gross) AS gross) FROM {mart}", {V}),
        ("Sales", 'SELECT * REPLACE ("Unit Price"::DECIMAL(10,1) AS "Unit Price") FROM {mart}', {T, V}),
        (
            "Sales",
            "SELECT * REPLACE (sold_at + INTERVAL 1 MICROSECOND * (sale_no = 3)::INT AS sold_at) FROM {mart}",
            {V},
        ),
        ("addresses", "SELECT * FROM {mart} WHERE is_current", {R, V}),
        ("addresses", "SELECT * REPLACE (NOT is_current AS is_current) FROM {mart}", {V}),
        ("marks", "FROM {mart} UNION ALL (FROM {mart} LIMIT 1)", {R, V}),
        ("recalls", "SELECT NULL::VARCHAR AS product, NULL::TIMESTAMP AS since", {R, S, V}),
        ("complaints", "SELECT * RENAME (said AS heard) FROM {mart}", {C}),
        ("complaints", None, {Kind.ABSENT}),
    ],
)
def test_a_damaged_file_is_found_and_no_other_mart_is_blamed(damaged, mart, sql, kinds):
    comparison = damaged(mart, sql)
    assert comparison.verdict == Verdict.DIFFERENT
    assert {found.name: {*found.kinds} for found in comparison.marts if found.kinds} == {mart: kinds}


@pytest.mark.parametrize(
    ("mart", "columns"), [("marks", "*"), ("Sales", 'sale_no, customer_no, pieces, "Unit Price" AS price')]
)
def test_every_mutant_of_a_mart_is_found_named_and_shown(twins, mart, columns):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sides = [f"(SELECT {columns} FROM {side[mart]})" for side in twins.attach(connection)]
        mutants = list(pair_of(connection, *sides).mutants())
        assert len(mutants) > 20
        escaped = {
            mutant.name: found
            for mutant in mutants
            if (found := [*complaints(mutant, compare_mart(connection, mart, mutant.old, mutant.new))])
        }
    assert escaped == {}


# --- what the export itself would do wrong ----------------------------------------------------------------------------
@pytest.fixture
def connection(tmp_path):
    with duckdb.connect(str(tmp_path / "own.duckdb")) as opened:
        yield opened


@pytest.fixture
def both(connection, tmp_path):
    """``both(external=False)``: how the mart ``m``, as the session copies and exports it, differs on both sides."""
    (tmp_path / "parquet").mkdir()

    def found(*, external=False):
        relations = [Relation("m", "own", "main", "m", external, "user_id")]
        places = (tmp_path / "parquet", tmp_path / "external", tmp_path / "result", tmp_path / "tables.duckdb")
        session._written(connection, Plan((), relations, *places))
        return differs(tmp_path)

    return found


def differs(work):
    with duckdb.connect() as reader:
        (mart,) = compare(reader, *AdoptedTwins(work, work).attach(reader))
    return {*mart.kinds}


KINDS = """
    SELECT unnest(['NaN'::DOUBLE, '-0.0', '0.0', 'inf', NULL]) AS d, unnest([0, 1, 2, 3, NULL])::HUGEINT AS h,
        'a'::mood AS e, ['x', NULL] AS l, {'f': '-0.0'::FLOAT} AS s, MAP {'k': 1} AS m, TIMESTAMP_S '2025-01-01' AS t,
        12345678901234567890123456789012345678::UHUGEINT AS u, NULL AS n
"""


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
def test_types_that_parquet_lacks_and_values_that_look_alike_are_equal(connection, both, kind):
    connection.execute(f"CREATE TYPE mood AS ENUM ('a', 'b'); CREATE {kind} m AS {KINDS}")
    assert both() == set()


@pytest.mark.parametrize(
    "damage", ["{} + 0", "coalesce({}, 'NaN')", "CASE WHEN NOT isnan({}) THEN {} END", "{}::FLOAT::DOUBLE"]
)
def test_an_export_that_changes_a_value_is_found(connection, both, monkeypatch, damage):
    connection.execute("CREATE TABLE m AS SELECT unnest(['NaN'::DOUBLE, '-0.0', '0.0', '0.1', NULL]) AS d")
    monkeypatch.setattr(export, "_as", lambda name, *_: f"{damage.replace('{}', name)} AS {name}")
    assert V in both()


@pytest.mark.parametrize(
    ("clause", "kinds"), [("LIMIT 2", {R, V}), ("UNION ALL SELECT 3", {R, V}), ("EXCEPT SELECT 0", {R, V})]
)
def test_an_export_that_loses_or_adds_a_row_is_found(connection, both, monkeypatch, clause, kinds):
    connection.execute("CREATE VIEW m AS SELECT 3::BIGINT AS n FROM range(3)")
    if clause.startswith("EXCEPT"):
        clause += " EXCEPT SELECT 3"
    monkeypatch.setattr(export, "_sorted", lambda values, source, *_: f"SELECT {values} FROM {source} {clause}")
    assert both() == kinds


def test_the_sentinel_of_an_empty_external_model_is_found_where_its_file_is_taken(
    connection, both, monkeypatch, tmp_path
):
    """As dbt-duckdb leaves it: a row of NULLs in the file, and a view that hides it."""
    file = tmp_path / "external.parquet"
    connection.execute(f"COPY (SELECT NULL::VARCHAR AS product) TO '{file}'")
    connection.execute(f"CREATE VIEW m AS SELECT * FROM read_parquet('{file}') WHERE false")
    assert both(external=True) == set()
    (tmp_path / "tables.duckdb").unlink()
    (tmp_path / "parquet" / "m.parquet").unlink()
    monkeypatch.setattr(Export, "_file_of", lambda *_: file)
    assert both(external=True) == {R, S, V}


def test_both_sides_are_of_one_moment(connection, both, monkeypatch):
    connection.execute("CREATE TABLE base AS SELECT 1 AS n; CREATE VIEW m AS FROM base")
    copied_first = []

    def copy_and_write(*arguments):
        copy_marts(*arguments)
        connection.cursor().execute("INSERT INTO base VALUES (2)")
        copied_first.append(True)

    monkeypatch.setattr(session, "copy_marts", copy_and_write)
    assert both() == set()
    assert copied_first


def test_outside_of_one_transaction_the_same_write_would_differ(connection, tmp_path):
    connection.execute("CREATE TABLE base AS SELECT 1 AS n; CREATE VIEW m AS FROM base")
    (tmp_path / "parquet").mkdir()
    relations = [Relation("m", "own", "main", "m", external=False, scope="user_id")]
    copy_marts(connection, tmp_path / "tables.duckdb", relations)
    connection.execute("INSERT INTO base VALUES (2)")
    Export(connection, tmp_path / "parquet", tmp_path).run(relations)
    close_copies(connection)
    assert differs(tmp_path) == {R, V}


def test_a_view_that_gives_other_rows_each_time_is_no_mart_that_is_equal(connection, both):
    connection.execute("CREATE VIEW m AS SELECT random() AS n FROM range(100)")
    assert both() == {V}


# --- the source -------------------------------------------------------------------------------------------------------
def test_check_source_says_what_is_attached_and_has_the_sources(installed):
    before = installed.hashes()
    result = command(installed, "check-source")
    assert (result.returncode, result.stdout) == (
        0,
        "the profile shop, target dev, connects; attached: till, with all 3 sources in it\n",
    )
    assert installed.hashes() == before
    assert [*installed.root.glob("dbt-*")] == []


def test_check_source_of_what_can_not_be_attached_has_dbts_words(installed, tmp_path):
    missing = tmp_path / "missing.duckdb"
    result = command(installed, "check-source", SHOP_TILL=missing)
    assert (result.returncode, result.stdout) == (1, "")
    assert f'Cannot open database "{missing}" in read-only mode: database does not exist' in result.stderr


def test_check_source_names_a_source_that_is_read_and_not_there(installed, tmp_path):
    shop = copied(installed, tmp_path)
    declared = shop.project / "models" / "sources" / "till.yml"
    elsewhere = "      - {name: complaints_of_old, meta: {external_location: 'old.csv'}}\n      - name: unread\n"
    declared.write_text(declared.read_text() + elsewhere)
    reader = shop.project / "models" / "prep" / "old_complaints.sql"
    reader.write_text("select * from {{ source('till', 'complaints_of_old') }}")
    shop.ring_up("DROP TABLE complaints")
    result = command(shop, "check-source")
    assert (result.returncode, result.stdout) == (1, "")
    assert "connects to till, which lacks till.main.complaints\n" in result.stderr
