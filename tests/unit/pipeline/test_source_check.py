"""``check-source`` on the embedded source; on PostgreSQL: tests/e2e/test_source_postgres.py."""

from .driver import cli


def test_a_source_with_all_tables_is_one_line(place):
    result = cli(place, "check-source")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"7 tables can be read from {place.source}, which is only ever opened for reading\n"


def test_a_table_that_is_missing_is_named(place):
    place.alter("DROP TABLE budgets")
    result = cli(place, "check-source")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"reading the source in the file {place.source} failed" in result.stderr
    assert "budgets" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("SOURCE_DUCKDB_PATH names it")
