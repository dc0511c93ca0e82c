import pytest

from backend.scripts.bootstrap_duckdb import refresh_duckdb_file
from backend.snapshots import SnapshotStore

from .browser import chromium, open_tab  # noqa: F401 - fixtures
from .marts import publish
from .site import serving

pytest.register_assert_rewrite("tests.page.promises")


@pytest.fixture(scope="session")
def first_store(tmp_path_factory):
    """One snapshot, of generation 1; nobody publishes another one."""
    store = SnapshotStore(tmp_path_factory.mktemp("first") / "parquet")
    publish(store, 1)
    return store


@pytest.fixture
def store(tmp_path):
    """One snapshot, of generation 1, and a test's own."""
    store = SnapshotStore(tmp_path / "parquet")
    publish(store, 1)
    return store


@pytest.fixture
def duckdb_file(store, tmp_path):
    """The same as tables of a file."""
    path = tmp_path / "analytics.duckdb"
    refresh_duckdb_file(store, path)
    return path


@pytest.fixture(scope="session")
def site(first_store):
    with serving(parquet_dir=first_store.root) as site:
        yield site


@pytest.fixture
def own_site(store):
    with serving(parquet_dir=store.root) as site:
        yield site


@pytest.fixture
def file_site(duckdb_file):
    """Phase 0. A build that holds the file is not waited for."""
    with serving(duckdb_path=duckdb_file, lock_wait_seconds=0) as site:
        yield site
