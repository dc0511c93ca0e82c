"""The source on a real PostgreSQL: who may do what, and what holds while it is written to."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import duckdb_extension_postgres_scanner
import psycopg
import pytest

from backend.errors import ConfigError
from backend.filepaths import REPO_ROOT
from deploy.pipeline.source import check_source
from deploy.source import load, traffic
from deploy.source.generate import generate
from deploy.source.settings import Source, SourceUnavailable
from deploy.source.tables import SCHEMAS
from tests.marts import WRONG_BALANCES

DATABASE = "finance"
SUMS = "SELECT sum(balance), sum(opening_balance) FROM accounts"


@pytest.fixture
def source(postgres):
    return Source(postgres.host, postgres.port, DATABASE, postgres.owner_password)


@pytest.fixture
def empty(source):
    """The source before anything was created in it."""
    with source.connect() as connection, connection.transaction():
        for name in reversed(SCHEMAS):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
    return source


@pytest.fixture
def seeded(source):
    """The source, filled by whoever came first."""
    load.seed_postgres(source, lambda: generate(0.2))
    return source


@pytest.fixture
def reader(postgres, seeded):
    with connect_reader(postgres) as connection:
        yield connection


def connect_reader(postgres, database=DATABASE):
    return psycopg.connect(
        host=postgres.host,
        port=postgres.port,
        dbname=database,
        user="analytics_reader",
        password=postgres.reader_password,
        autocommit=True,
    )


def fetch(connection, statement):
    return connection.execute(statement).fetchall()


def movements(connection):
    return fetch(connection, "SELECT (SELECT count(*) FROM transactions) + (SELECT count(*) FROM transfers)")[0][0]


def wait_for(connection, count, seconds=60):
    """Waits, by asking, until there are at least that many movements."""
    deadline = time.monotonic() + seconds
    while (found := movements(connection)) < count:
        assert time.monotonic() < deadline, f"only {found} of {count} movements after {seconds} s"


@contextmanager
def running_traffic(source, *, rate=500.0, writers=1):
    """Traffic in threads; fails when one of them did."""
    stop, failures = threading.Event(), []

    def work():
        try:
            traffic.run(source, rate=rate, stop=stop)
        except Exception as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_default_seed_holds_what_was_generated(empty):
    seeded = load.seed_postgres(empty, generate)
    assert seeded.fresh
    expected = generate()
    assert seeded.rows == {name: table.num_rows for name, table in expected.items()}
    with empty.connect() as connection:
        for name in ("users", "accounts", "merchants", "transfers"):
            columns = expected[name].to_pydict().values()
            assert fetch(connection, f"SELECT * FROM {name} ORDER BY 1") == list(zip(*columns, strict=True))
        assert fetch(connection, WRONG_BALANCES) == []


def test_seeding_a_filled_database_does_nothing(seeded):
    with seeded.connect() as connection:
        before = fetch(connection, "SELECT xmin::text, count(*) FROM accounts GROUP BY 1 ORDER BY 1")
        again = load.seed_postgres(seeded, lambda: pytest.fail("nothing should have been generated"))
        assert not again.fresh
        assert again.rows["users"] > 0
        assert fetch(connection, "SELECT xmin::text, count(*) FROM accounts GROUP BY 1 ORDER BY 1") == before


def test_an_interrupted_seed_leaves_nothing_and_the_next_one_succeeds(empty):
    def twice_the_budgets():
        tables = generate(0.05)
        return tables | {"budgets": tables["budgets"].slice(0, 1).take([0, 0])}

    with pytest.raises(psycopg.errors.UniqueViolation):
        load.seed_postgres(empty, twice_the_budgets)
    with empty.connect() as connection:
        assert fetch(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    assert load.seed_postgres(empty, lambda: generate(0.05)).fresh


def test_seeders_that_race_seed_once(empty):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(load.seed_postgres(empty, lambda: generate(0.05))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.fresh for result in results) == [False, True]


def test_the_reader_reads_every_table(reader):
    assert all(fetch(reader, f"SELECT count(*) FROM {name}")[0][0] > 0 for name in SCHEMAS)


def test_the_reader_reads_tables_that_come_later(reader, seeded):
    with seeded.connect() as owner:
        owner.execute("CREATE TABLE added_later AS SELECT 1 AS one")
        try:
            assert fetch(reader, "SELECT one FROM added_later") == [(1,)]
        finally:
            owner.execute("DROP TABLE added_later")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO categories VALUES (9999, NULL, 'x', 'income')",
        "UPDATE accounts SET balance = balance",
        "DELETE FROM budgets",
        "TRUNCATE budgets",
        "DROP TABLE budgets",
        "SELECT setval('transactions_transaction_id_seq', 1)",
        "SELECT 1 FROM accounts FOR UPDATE",
        "CREATE TABLE mine (x integer)",
        "CREATE TEMPORARY TABLE mine (x integer)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET ROLE finance_owner",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_the_reader_can_do_nothing_else_even_when_it_asks_to_write(reader, statement):
    with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)):
        reader.execute(statement)
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement)


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_the_reader_gets_into_no_other_database(postgres, database):
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect_reader(postgres, database)


@pytest.fixture
def as_reader(seeded, postgres, tmp_path, monkeypatch):
    """The environment of a build; returns how to become another user, by name and password."""
    monkeypatch.setenv("DBT_TARGET", "postgres")
    monkeypatch.setenv("SOURCE_HOST", postgres.host)
    monkeypatch.setenv("SOURCE_PORT", str(postgres.port))
    monkeypatch.setenv("SOURCE_DB", DATABASE)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))

    def become(user, password):
        monkeypatch.setenv("SOURCE_USER", user)
        (tmp_path / "source_reader_password").write_text(password)

    become("analytics_reader", postgres.reader_password)
    return become


def test_check_source_proves_that_the_reader_reads_all_and_can_write_to_none(as_reader, postgres):
    place = f"analytics_reader at {postgres.host}:{postgres.port}/{DATABASE}"
    assert check_source(sorted(SCHEMAS)) == f"{place} can read all 7 tables, and can write to none"


def test_check_source_refuses_who_may_write(as_reader, seeded):
    with seeded.connect() as owner:
        owner.execute("GRANT UPDATE (amount) ON budgets TO analytics_reader")
        try:
            with pytest.raises(SourceUnavailable, match=r"may write: table budgets \("):
                check_source(sorted(SCHEMAS))
        finally:
            owner.execute("REVOKE UPDATE (amount) ON budgets FROM analytics_reader")
    as_reader("finance_owner", seeded.password)
    with pytest.raises(SourceUnavailable, match=r"may write: table accounts, .*, table users, schema public \("):
        check_source(sorted(SCHEMAS))


def test_check_source_names_the_table_that_can_not_be_read(as_reader, seeded):
    with seeded.connect() as owner:
        owner.execute("REVOKE SELECT ON transfers FROM analytics_reader")
        try:
            with pytest.raises(SourceUnavailable, match="permission denied for table transfers") as caught:
                check_source(sorted(SCHEMAS))
        finally:
            owner.execute("GRANT SELECT ON transfers TO analytics_reader")
    assert "SELECT on the tables" in caught.value.hint
    with pytest.raises(SourceUnavailable, match=r'relation "public\.nowhere" does not exist'):
        check_source(["nowhere"])
    as_reader("analytics_reader", "wrong")
    with pytest.raises(SourceUnavailable, match="password authentication failed"):
        check_source(sorted(SCHEMAS))


def test_a_wrong_password_is_refused_and_explained(postgres):
    stranger = Source(postgres.host, postgres.port, DATABASE, "wrong")
    with pytest.raises(SourceUnavailable, match="password authentication failed") as caught:
        load.seed_postgres(stranger, generate)
    assert "source_owner_password" in caught.value.hint


def test_the_sum_of_balances_is_constant_at_every_moment_while_traffic_runs(reader, seeded):
    start = movements(reader)
    [(constant, opening)] = fetch(reader, SUMS)
    assert constant == opening != 0
    seen = set()
    with running_traffic(seeded, writers=2):
        deadline = time.monotonic() + 120
        while len(seen) < 60:
            assert time.monotonic() < deadline, f"traffic was seen at {len(seen)} moments only"
            with reader.transaction():
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                assert fetch(reader, SUMS) == [(constant, opening)]
                assert fetch(reader, WRONG_BALANCES) == []
                seen.add(movements(reader) - start)
    assert max(seen) >= 60
    assert fetch(reader, WRONG_BALANCES) == []


def test_traffic_writes_both_kinds_of_movement_and_never_in_a_closed_account(reader, seeded):
    [(transaction_id,)] = fetch(reader, "SELECT max(transaction_id) FROM transactions")
    [(transfer_id,)] = fetch(reader, "SELECT max(transfer_id) FROM transfers")
    with running_traffic(seeded):
        wait_for(reader, movements(reader) + 200)
    assert fetch(reader, f"SELECT count(*) > 50 FROM transactions WHERE transaction_id > {transaction_id}") == [(True,)]
    assert fetch(reader, f"SELECT count(*) > 20 FROM transfers WHERE transfer_id > {transfer_id}") == [(True,)]
    late = "SELECT 1 FROM transactions JOIN accounts USING (account_id) WHERE posted_at::date > closed_on"
    assert fetch(reader, late) == []


def test_writers_at_once_never_deadlock(empty, postgres):
    load.seed_postgres(empty, lambda: generate(0.01))
    with connect_reader(postgres) as reader:
        before = fetch(reader, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        with running_traffic(empty, rate=10_000.0, writers=4):
            wait_for(reader, movements(reader) + 1_000)
        assert fetch(reader, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == before
        assert fetch(reader, WRONG_BALANCES) == []


def test_traffic_comes_back_after_postgres_threw_it_out(reader, seeded):
    with running_traffic(seeded), seeded.connect() as owner:
        wait_for(reader, movements(reader) + 20)
        for _ in range(3):
            thrown_out = fetch(
                owner,
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE usename = current_user AND pid <> pg_backend_pid()",
            )
            assert thrown_out == [(True,)]
            wait_for(reader, movements(reader) + 20)
    assert fetch(reader, WRONG_BALANCES) == []


def test_traffic_on_an_empty_source_says_what_to_do(empty):
    with pytest.raises(ConfigError, match="no open accounts"):
        traffic.run(empty, rate=1.0, stop=threading.Event())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_traffic_cleanly(reader, seeded, postgres, tmp_path, number):
    (tmp_path / "source_owner_password").write_text(postgres.owner_password)
    environment = {
        "SOURCE_HOST": postgres.host,
        "SOURCE_PORT": str(postgres.port),
        "SOURCE_DB": DATABASE,
        "SECRETS_DIR": str(tmp_path),
    }
    before = movements(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.source", "traffic", "--rate", "100"],
        cwd=REPO_ROOT,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(reader, before + 20)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, b"")
    assert fetch(reader, WRONG_BALANCES) == []


def test_duckdb_sees_the_same_types_and_rows_as_in_the_embedded_twin(empty, postgres, tmp_path):
    load.seed_postgres(empty, lambda: generate(0.1))
    twin = tmp_path / "source.duckdb"
    load.seed_embedded(twin, generate(0.1))
    [extension] = Path(duckdb_extension_postgres_scanner.__file__).parent.rglob("*.duckdb_extension")
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(
            "CREATE SECRET reader (TYPE postgres, HOST $host, PORT $port, DATABASE $database,"
            " USER 'analytics_reader', PASSWORD $password)",
            {
                "host": postgres.host,
                "port": postgres.port,
                "database": DATABASE,
                "password": postgres.reader_password,
            },
        )
        connection.execute("ATTACH '' AS real (TYPE postgres, SECRET reader, READ_ONLY)")
        connection.execute(f"ATTACH '{twin}' AS twin (READ_ONLY)")
        for name in SCHEMAS:
            described = [
                connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {database}.{name})").fetchall()
                for database in ("real.public", "twin.main")
            ]
            assert described[0] == described[1]
            rows = [
                connection.execute(f"FROM {database}.{name} ORDER BY 1").to_arrow_table().to_pylist()
                for database in ("real.public", "twin.main")
            ]
            assert rows[0] == rows[1]
