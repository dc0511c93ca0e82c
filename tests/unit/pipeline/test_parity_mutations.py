"""Parity finds every mutant of every mart: as real dbt built it as a table (old), and as Parquet (new)."""

import duckdb
import pytest

from deploy.pipeline.parity.compare import compare, compare_mart
from deploy.pipeline.parity.report import Comparison, Kind, Verdict
from deploy.pipeline.parity.twins import attach_tables
from tests.marts import MARTS

from .mutations import complaints, pair_of

MUTATED_ROWS = 1_000


@pytest.fixture(scope="module")
def sides(phase_0, published):
    """A connection, and both sides of every mart as it reaches them."""
    with published.store.open() as snapshot, duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        new = {name: f"read_parquet('{snapshot.file(name)}')" for name in snapshot.manifest.marts}
        yield connection, attach_tables(connection, phase_0.file, "old"), new


def test_both_sides_have_all_marts_and_are_equal(sides):
    connection, old, new = sides
    assert old.keys() == new.keys() == MARTS
    marts = compare(connection, old, new)
    assert [(mart.name, mart.kinds, mart.rows) for mart in marts] == [(name, (), ()) for name in sorted(MARTS)]
    assert all(mart.old == mart.new and mart.old.rows > 0 for mart in marts)


@pytest.mark.parametrize("mart", sorted(MARTS))
def test_every_mutant_is_found_named_and_shown(sides, mart):
    connection, old, new = sides
    some = [f"(FROM {side[mart]} LIMIT {MUTATED_ROWS})" for side in (old, new)]
    mutants = list(pair_of(connection, *some).mutants())
    assert len(mutants) > 30
    escaped = {
        mutant.name: found
        for mutant in mutants
        if (found := [*complaints(mutant, compare_mart(connection, mart, mutant.old, mutant.new))])
    }
    assert escaped == {}


@pytest.mark.parametrize("mart", sorted(MARTS))
def test_the_mart_is_named_and_the_others_are_equal(sides, mart):
    connection, old, new = sides
    mutant = f"(FROM {new[mart]} LIMIT 1)"
    comparison = Comparison("old", "new", compare(connection, old, {**new, mart: mutant}))
    assert comparison.verdict == Verdict.DIFFERENT
    assert [found.name for found in comparison.marts if found.kinds] == [mart]


@pytest.mark.parametrize("mart", sorted(MARTS))
def test_a_mart_that_one_side_or_both_lack_is_named(sides, mart):
    connection, old, new = sides
    without = {name: relation for name, relation in new.items() if name != mart}
    for left, right in ((old, without), (without, old)):
        (found,) = (found for found in compare(connection, left, right) if found.kinds)
        assert (found.name, found.kinds) == (mart, (Kind.ABSENT,))
        assert [found.old is None, found.new is None] == [right is old, right is without]
    (found,) = compare(connection, {}, {}, expected=[mart])
    assert (found.name, found.kinds, found.old, found.new) == (mart, (Kind.ABSENT,), None, None)


@pytest.mark.parametrize("mart", sorted(MARTS))
def test_the_order_of_rows_does_not_count(sides, mart):
    connection, old, new = sides
    backwards = f"(SELECT * EXCLUDE (n) FROM (SELECT *, row_number() OVER () AS n FROM {new[mart]}) ORDER BY n DESC)"
    assert connection.execute(f"FROM {backwards}").fetchall() != connection.execute(f"FROM {new[mart]}").fetchall()
    assert compare_mart(connection, mart, old[mart], backwards).kinds == ()
