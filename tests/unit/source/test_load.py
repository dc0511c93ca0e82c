"""The embedded twin, and what the command line says."""

import subprocess
import sys

import duckdb
import pytest

from backend.errors import ConfigError
from backend.filepaths import REPO_ROOT
from deploy.source import load
from deploy.source.generate import generate
from deploy.source.settings import Source

DUCKDB_TYPES = {
    "users": {"user_id": "INTEGER", "email": "VARCHAR", "created_at": "TIMESTAMP WITH TIME ZONE", "note": "VARCHAR"},
    "accounts": {"account_id": "BIGINT", "user_id": "INTEGER", "balance": "DECIMAL(14,2)", "closed_on": "DATE"},
    "categories": {"category_id": "INTEGER", "parent_id": "INTEGER", "kind": "VARCHAR"},
    "merchants": {"merchant_id": "INTEGER", "city": "VARCHAR"},
    "transactions": {"transaction_id": "BIGINT", "amount": "DECIMAL(12,2)", "posted_at": "TIMESTAMP WITH TIME ZONE"},
    "transfers": {"transfer_id": "BIGINT", "amount": "DECIMAL(12,2)", "transferred_at": "TIMESTAMP WITH TIME ZONE"},
    "budgets": {"budget_id": "INTEGER", "month": "DATE", "amount": "DECIMAL(12,2)"},
}  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    return generate(0.1)


def test_the_file_holds_the_same_types_and_rows(tmp_path, tables):
    path = tmp_path / "below" / "source.duckdb"
    seeded = load.seed_embedded(path, tables)
    assert seeded.rows == {name: table.num_rows for name, table in tables.items()}
    with duckdb.connect(str(path), read_only=True) as connection:
        for name, table in tables.items():
            types = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {name})").fetchall())
            assert list(types) == table.column_names
            assert DUCKDB_TYPES[name].items() <= types.items()
            assert connection.execute(f"FROM {name} ORDER BY 1").to_arrow_table().to_pylist() == table.to_pylist()


def test_the_file_refuses_a_null_where_postgres_would(tmp_path, tables):
    load.seed_embedded(tmp_path / "source.duckdb", tables)
    with (
        duckdb.connect(str(tmp_path / "source.duckdb")) as connection,
        pytest.raises(duckdb.ConstraintException, match="NOT NULL"),
    ):
        connection.execute("INSERT INTO categories VALUES (999, NULL, NULL, 'income')")


def test_seeding_again_replaces_the_file_under_a_reader_who_keeps_the_old_one(tmp_path, tables):
    path = tmp_path / "source.duckdb"
    load.seed_embedded(path, tables)
    with duckdb.connect(str(path), read_only=True) as reader:
        load.seed_embedded(path, generate(0.2))
        assert reader.execute("SELECT count(*) FROM users").fetchone() == (20,)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (40,)


def test_a_seed_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, tables):
    path = tmp_path / "source.duckdb"
    load.seed_embedded(path, tables)
    before = path.read_bytes()
    with pytest.raises(duckdb.InvalidInputException):
        load.seed_embedded(path, tables | {"budgets": None})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "deploy.source", *arguments],
        cwd=REPO_ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_takes_scale_and_path_from_the_environment(tmp_path):
    path = tmp_path / "source.duckdb"
    done = run("seed-embedded", SOURCE_SCALE="0.05", SOURCE_DUCKDB_PATH=str(path))
    assert done.returncode == 0, done.stderr
    assert "10 users" in done.stdout
    assert path.exists()


def test_a_server_that_is_not_there_is_explained_in_two_lines(tmp_path):
    (tmp_path / "source_owner_password").write_text("hidden-from-view")
    done = run("seed-postgres", SOURCE_HOST="127.0.0.1", SOURCE_PORT="1", SECRETS_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "connecting to 127.0.0.1:1/finance as finance_owner failed" in done.stderr
    assert "is PostgreSQL up" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden-from-view" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [({"SOURCE_HOST": ""}, "SOURCE_HOST is not set"), ({"SOURCE_PORT": "x"}, "should be a port number, not 'x'")],
)
def test_a_setting_that_makes_no_sense_is_named(monkeypatch, tmp_path, environment, complaint):
    (tmp_path / "source_owner_password").write_text("secret\n")
    for name, value in {"SOURCE_HOST": "db", "SECRETS_DIR": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=complaint):
        Source.from_env()


def test_the_password_comes_from_the_secret_and_is_not_shown(monkeypatch, tmp_path):
    (tmp_path / "source_owner_password").write_text("top'secret\n")
    monkeypatch.setenv("SOURCE_HOST", "db")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    source = Source.from_env()
    assert source.password == "top'secret"
    assert "top'secret" not in repr(source)
