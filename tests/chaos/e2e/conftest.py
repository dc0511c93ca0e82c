import pytest

from tests.chaos import matrix
from tests.e2e.conftest import images, pytest_configure

__all__ = ["images", "pytest_configure"]


@pytest.fixture(scope="session")
def sites(images):
    sites = matrix.Sites()
    yield sites
    sites.close()
