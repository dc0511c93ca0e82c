"""``check-source`` on the embedded source; on PostgreSQL: tests/e2e/test_source_postgres.py."""

import pytest

from deploy.pipeline.source import check_source
from deploy.source.settings import SourceUnavailable

from .driver import cli


@pytest.mark.parametrize("by_image", [True, False])
def test_a_source_with_all_tables_is_one_line(place, tmp_path, by_image):
    """Whether somebody parsed the project before, as in the image, or not."""
    result = cli(place, "check-source", DBT_TARGET_PATH=str(place.parsed if by_image else tmp_path / "nothing"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"7 tables can be read from {place.source}, which is only ever opened for reading\n"


def test_a_table_that_is_missing_is_named(place):
    place.alter("DROP TABLE budgets")
    with pytest.raises(SourceUnavailable, match="Table with name budgets does not exist") as caught:
        check_source(place.project.source_tables)
    assert str(place.source) in caught.value.message
    assert "SOURCE_DUCKDB_PATH" in caught.value.hint
