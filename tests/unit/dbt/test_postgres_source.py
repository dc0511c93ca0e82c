import importlib.util

import duckdb
import pytest

from backend.filepaths import DBT_PROJECT_DIR

PASSWORD = 'it\'s "one"; DROP TABLE users;--'
CONFIG = {"secret": "source", "host": "db", "port": "5432", "database": "finance", "user": "analytics_reader"}


@pytest.fixture
def postgres_source():
    spec = importlib.util.spec_from_file_location("postgres_source", DBT_PROJECT_DIR / "plugins/postgres_source.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def connection():
    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with duckdb.connect(config=config) as connection:
        yield connection


def test_the_extension_is_loaded_and_the_secret_keeps_the_password(postgres_source, connection, monkeypatch):
    monkeypatch.setenv("DBT_ENV_SECRET_SOURCE_PASSWORD", PASSWORD)
    postgres_source.Plugin("postgres_source", CONFIG).configure_connection(connection)
    loaded = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE loaded").fetchall()
    assert ("postgres_scanner",) in loaded
    name, persistent, shown = connection.execute(
        "SELECT name, persistent, secret_string FROM duckdb_secrets()"
    ).fetchall()[0]
    assert (name, persistent) == ("source", False)
    assert "host=db" in shown
    assert "password=redacted" in shown


def test_without_a_password_it_says_which_variable_is_missing(postgres_source, connection, monkeypatch):
    monkeypatch.delenv("DBT_ENV_SECRET_SOURCE_PASSWORD", raising=False)
    with pytest.raises(RuntimeError, match="DBT_ENV_SECRET_SOURCE_PASSWORD is not set"):
        postgres_source.Plugin("postgres_source", CONFIG).configure_connection(connection)


def test_a_wheel_for_another_duckdb_is_named(postgres_source, monkeypatch):
    monkeypatch.setattr(postgres_source.duckdb, "__version__", "9.9.9")
    with pytest.raises(RuntimeError, match=r"found v.* \(install duckdb-extension-postgres-scanner==9\.9\.9\)"):
        postgres_source.extension_path()
