import pytest

from .runner import Build
from .source import create_source


@pytest.fixture(scope="session")
def full_build(once):
    """Everything built once from the small source. Read only."""

    def build(root):
        made = Build(root, create_source(root / "source.duckdb"))
        result = made.dbt("build")
        assert result.returncode == 0, result.stdout

    root = once("dbt_full_build", build)
    return Build(root, root / "source.duckdb")
