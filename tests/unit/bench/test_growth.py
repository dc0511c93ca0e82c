"""Made-up curves: what is held against what, and where they are said to bend."""

import json

import duckdb
import pytest

from tests.bench.figures import Spread
from tests.bench.generated import ROWS_PER_USER, Generated
from tests.bench.growth_report import TARGETS, markdown
from tests.bench.points import Growth, Point
from tests.bench.questions import TRANSACTIONS


def growth(curve, figure, **rounds):
    """A figure at each place, of so many rounds; places that are numbers begin with an underscore."""
    return Growth(
        {"date": "a day"},
        [
            Point(curve, figure, int(at[1:]) if at.startswith("_") else at.replace("_", " "), value)
            for at, values in rounds.items()
            for value in values
        ],
    )


def verdicts(measured):
    return [verdict for target in TARGETS if (verdict := target.verdict(measured))[2] != "not measured"]


@pytest.mark.parametrize(
    ("measured", "what", "found", "met"),
    [
        (growth("rows", "Q1 p50 ms", _10=[2, 2], _100=[9, 9], _1000=[4, 4]), "rows: Q1 p50", "2 (2..2)", True),
        (growth("rows", "Q2 p50 ms", _10=[2, 3], _100=[5, 6]), "rows: Q2 p50", "2.25 (2..2.5)", False),
        (growth("datasets", "memory MB", _10=[9999], _100=[2147]), "datasets: memory MB", "2147 (2147..2147)", True),
        (growth("rows", "memory MB", _10=[1], _100=[2148]), "rows: memory MB", "2148 (2148..2148)", False),
        (growth("rows", "publish another mart s", _1=[1], _2=[2.1]), "rows: publish another mart", "2.1", False),
        (
            growth("build", "parsed anew, CPU s", dbt_build=[10, 10], pipeline=[11.5, 11]),
            "build, parsed anew, CPU",
            "1.12 (1.1..1.15)",
            True,
        ),
        (growth("build", "parsed before, wall s", dbt_build=[10], pipeline=[11.6]), "build, parsed", "1.16", False),
        (growth("start", "start to ready s", default_data=[1.4, 1.6, 1.7]), "start: ", "1.6 (1.4..1.7)", False),
    ],
)
def test_each_target_is_held_against_what_it_names(measured, what, found, met):
    ((text, spread, verdict),) = verdicts(measured)
    assert text.startswith(what)
    assert spread.startswith(found)
    assert verdict == ("met" if met else "**not met**")


def test_one_size_alone_has_no_verdict_on_growth():
    assert verdicts(growth("rows", "Q1 p50 ms", _10=[2])) == []


def test_ratios_are_of_what_was_measured_in_the_same_round():
    measured = growth("rows", "Q1 p50 ms", _10=[1, 10, 5], _100=[2, 20])
    assert measured.ratio("rows", "Q1 p50 ms", 100, 10) == Spread(2, 2, 2)


def test_a_curve_bends_where_it_more_than_doubles_from_one_size_to_the_next():
    lines = markdown(growth("rows", "Q3 p50 ms", _10=[2], _100=[4], _1000=[9], _10000=[17])).splitlines()
    assert "| Q3 p50 ms | 2 | 4 (2) | 9 (4.5) | 17 (8.5) |" in lines
    (bend,) = [line for line in lines if line.startswith("- Q3")]
    assert bend.startswith("- Q3 p50 ms, at 1,000: 2.25 times what it is at the size before. What reads a whole mart")


def test_every_figure_of_a_run_has_an_advice_of_its_own(tmp_path):
    for curve in ("rows", "datasets"):
        for name in ("start to ready s", "memory MB", "publish the mart s", "another mart visible after s"):
            assert "It should not" not in markdown(growth(curve, name, _1=[1], _10=[9]))
    assert "It should not" in markdown(growth("datasets", "Q1 p50 ms", _1=[1], _10=[9]))


def test_the_figures_are_read_as_they_were_written(tmp_path):
    measured = growth("rows", "Q1 p50 ms", _10=[2, 3], _100=[5, 6])
    measured.write(tmp_path / "growth.json")
    assert Growth.read(tmp_path / "growth.json") == measured


def test_generated_marts_lie_as_ours_do_and_differ_only_where_they_are_written_anew(tmp_path):
    marts = Generated(tmp_path / "site", rows=30_000, others=2)
    path = str(marts.site.mart / f"{TRANSACTIONS}.parquet")
    with duckdb.connect() as connection:
        groups = connection.execute(
            "SELECT DISTINCT row_group_num_rows, compression FROM parquet_metadata(?) ORDER BY 1", [path]
        )
        assert groups.fetchall() == [(9520, "ZSTD"), (10240, "ZSTD")]
        per_user = "SELECT DISTINCT count(*) FROM read_parquet(?) GROUP BY user_id"
        assert connection.execute(per_user, [path]).fetchall() == [(ROWS_PER_USER,)]
        backwards = (
            "SELECT count(*) FROM (SELECT (user_id, posted_at) < lag((user_id, posted_at)) "
            "OVER (ORDER BY file_row_number) AS back FROM read_parquet(?, file_row_number => true)) WHERE back"
        )
        assert connection.execute(backwards, [path]).fetchall() == [(0,)]
    before = marts.site.store.open().manifest
    published, _ = marts.publish([marts.another])
    changed = {name for name, mart in published.marts.items() if mart.sha256 != before.marts[name].sha256}
    assert changed == {marts.another}
    assert json.loads(published.to_json())["parent"] == before.id
