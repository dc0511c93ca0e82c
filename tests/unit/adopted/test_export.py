"""What a relation holds is what its file holds, or it is not published."""

from datetime import UTC, datetime

import duckdb
import pytest

from backend.audit import audit_directory, parquet_columns
from backend.errors import AuditFailed, BuildFailed
from backend.manifest import MartSpec
from deploy.pipeline.adopted.export import Export, Relation


@pytest.fixture
def connection(tmp_path):
    with duckdb.connect(str(tmp_path / "own.duckdb")) as opened:
        yield opened


@pytest.fixture
def export(connection, tmp_path):
    """``export(name)``: the rows of the file that the mart became, after the audit."""
    directory = tmp_path / "marts"
    directory.mkdir()
    (tmp_path / "external").mkdir()

    def exported(name, *, external=False, scope="user_id"):
        relation = Relation(name, "own", "main", name, external, scope)
        written = Export(connection, directory, tmp_path / "external").run([relation])
        file = directory / f"{name}.parquet"
        spec = MartSpec(name, "", "", tuple(parquet_columns(connection, file)))
        audit_directory(directory, [spec], written=written, linked={}, built_at=datetime.now(UTC))
        return duckdb.read_parquet(str(file))

    return exported


def test_whole_numbers_that_parquet_would_round_keep_every_digit(connection, export):
    connection.execute("CREATE TABLE huge AS SELECT 12345678901234567890123456789::HUGEINT AS n, 7::UHUGEINT AS u")
    assert export("huge").fetchall() == [(12345678901234567890123456789, 7)]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("[1::HUGEINT]", "HUGEINT"),
        ("{'inside': 1::HUGEINT}", "HUGEINT"),
        ("'12'::BIGNUM", "BIGNUM"),
        ("TIME_NS '12:00:00.123456789'", "TIME_NS"),
        ("INTERVAL '50 days'", "INTERVAL"),
    ],
)
def test_what_parquet_would_change_is_refused_and_the_column_is_named(connection, export, value, kind):
    connection.execute(f"CREATE TABLE changed AS SELECT {value} AS deep")
    with pytest.raises(BuildFailed, match=rf'changed can\'t be exported as it is: column "deep" is {kind}.* CAST'):
        export("changed")


def test_types_that_parquet_lacks_become_their_relatives(connection, export):
    connection.execute(
        "CREATE TABLE kinds AS SELECT 'a'::ENUM('a', 'b') AS e, '101'::BIT AS b, TIMESTAMP_S '2025-01-01' AS t"
    )
    assert [str(kind) for kind in export("kinds").types] == ["VARCHAR", "VARCHAR", "TIMESTAMP"]


def test_a_view_is_read_once(connection, export):
    connection.execute("CREATE VIEW dice AS SELECT random() AS n FROM range(100)")
    assert len(export("dice").fetchall()) == 100, "and the audit found what was written"


def test_a_row_of_nothing_but_null_is_refused_like_the_sentinel_that_it_can_not_be_told_from(connection, export):
    connection.execute("CREATE TABLE totals AS SELECT sum(i) AS total FROM range(0) AS r(i)")
    with pytest.raises(AuditFailed, match="totals: its only row is NULL in every column"):
        export("totals")


def test_rows_of_a_user_lie_together_in_the_order_of_the_model(connection, export):
    connection.execute('CREATE TABLE rows AS SELECT i % 3 AS "USER_ID", 30000 - i AS n FROM range(30000) AS r(i)')
    found = export("rows").fetchall()
    assert found == sorted(found, key=lambda row: (row[0], -row[1]))
    assert len(found) == 30000


def test_files_in_other_formats_are_exported_from_their_view(connection, export, tmp_path):
    file = tmp_path / "out.csv"
    connection.execute(f"COPY (SELECT 1 AS a) TO '{file}'")
    connection.execute(f"CREATE VIEW listed AS SELECT * FROM read_csv('{file}')")
    assert export("listed", external=True).fetchall() == [(1,)]


def test_a_copy_of_what_a_model_wrote_does_not_change_with_it(connection, export, tmp_path):
    file = tmp_path / "theirs.parquet"
    connection.execute(f"COPY (SELECT 1 AS a) TO '{file}'")
    connection.execute(f"CREATE VIEW theirs AS SELECT * FROM read_parquet('{file}')")
    exported = export("theirs", external=True)
    file.write_bytes(b"overwritten in place")
    assert exported.fetchall() == [(1,)]


def test_what_can_not_be_read_names_the_mart_and_what_to_do(export):
    with pytest.raises(BuildFailed, match=r'exporting the mart gone from "own"\."main"\."gone" failed') as caught:
        export("gone")
    assert "MART_SELECTOR" in caught.value.hint
