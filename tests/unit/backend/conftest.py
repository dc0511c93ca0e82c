import pytest

from backend.snapshots import SnapshotStore

from .api import open_api
from .declared import write_declared
from .marts import publish, write_file


@pytest.fixture
def store(tmp_path):
    """One snapshot, of generation 1."""
    store = SnapshotStore(tmp_path / "parquet")
    publish(store, 1)
    return store


@pytest.fixture
def duckdb_file(tmp_path):
    """The same rows as tables."""
    path = tmp_path / "analytics.duckdb"
    write_file(path, 1)
    return path


@pytest.fixture
def client(store):
    """The API on a snapshot."""
    client, _ = open_api(parquet_dir=store.root)
    with client:
        yield client


@pytest.fixture(params=["snapshot", "file"])
def any_client(request, tmp_path):
    """The API on a snapshot, and the API on a DuckDB file."""
    if request.param == "snapshot":
        opened, _ = open_api(parquet_dir=request.getfixturevalue("store").root)
    else:
        opened, _ = open_api(duckdb_path=request.getfixturevalue("duckdb_file"))
    with opened:
        yield opened


@pytest.fixture(scope="module")
def declared_client(tmp_path_factory):
    """The API on a DuckDB file with all marts of the project, as they are declared."""
    path = tmp_path_factory.mktemp("declared") / "analytics.duckdb"
    write_declared(path)
    opened, _ = open_api(duckdb_path=path)
    with opened:
        yield opened
