"""The reader's checker is worth nothing unless it fails: the obvious designs, and it has to catch each of them."""

import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import duckdb
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.auth import issue
from backend.config import Settings
from backend.duckdb.client import Database
from backend.manifest import Column, MartSpec, label_for
from backend.snapshots import SnapshotStore
from tests.serving import served
from tests.unit.dbt.runner import Build
from tests.unit.dbt.source import create_source

from .reader.clients import USERS, Client, Readers, Target
from .reader.naive import Naive
from .reader.oracle import HostDirectory
from .reader.queries import ALL_ROWS, BATCHES, Query, Read
from .reader.raced import FIRST_SCAN, SECOND_SCAN, Raced

SECRET = "s" * 64
BANK = Read("batch", ALL_ROWS, BATCHES["the bank's books"], "the bank's books")
# Sorted: what DuckDB does for a limit alone does not lose these races.
SORTED = (replace(query, order=query.order or query.select[:1]) for query in BANK.queries)
SORTED_BANK = replace(BANK, queries=tuple(SORTED))
ONE_USER = Read("batch", 1, BATCHES["one user's books"], "one user's books")
ACCOUNTS = Read("rows", ALL_ROWS, (Query("dim_accounts"),))
WALK = Read("page", 1, (Query("fct_transactions", limit=150),))
PAID = """
    UPDATE accounts SET balance = balance - 25 WHERE account_id = 1;
    UPDATE accounts SET balance = balance + 25 WHERE account_id = 3;
    INSERT INTO transactions VALUES (900001, 1, 1, 2, -25, 'EUR', NULL, TIMESTAMPTZ '2024-12-31 12:00:00+00')
"""
"""User 1 spends something; money moved, and all sums are as before."""


@pytest.fixture(scope="module")
def marts(tmp_path_factory):
    """Real marts, as dbt writes them, and the source and build file to go on with. Read only."""
    root = tmp_path_factory.mktemp("marts")
    made = Build(root, create_source(root / "source.duckdb"))
    result = made.dbt("run")
    assert result.returncode == 0, result.stdout
    return made


@contextmanager
def reading(app, source=None):
    """What the checker finds of the app, and a client each of a user and of all rows to ask it with."""
    with served(app) as url:
        readers = Readers(Target(url, {user: token(user) for user in USERS}, source), clients=0)
        users = {user: Client(readers, user) for user in (1, ALL_ROWS)}
        yield SimpleNamespace(findings=readers.findings, users=users)
        for client in users.values():
            client.close()


def api_on(database, settings=None):
    return create_app(settings=settings or Settings(), database=database, secret=SECRET)


def token(user):
    return issue(SECRET, user_id=user, all_rows=user == ALL_ROWS, ttl=timedelta(hours=1))


def ask(reader, *reads):
    """What was found wrong with the answers to these, and nothing that was found before."""
    findings = reader.findings
    before = len(findings.examples)
    for read in reads:
        client = reader.users[read.user]
        client.walk(read) if read.kind == "page" else client.ask(read)
    return findings.examples[before:]


# --- dbt writes straight into what is served ----------------------------------------------------------------------


def test_marts_replaced_one_after_another_are_caught_mixed(marts, tmp_path):
    shutil.copytree(marts.root, tmp_path, dirs_exist_ok=True)
    live = Build(tmp_path, tmp_path / "source.duckdb")
    with duckdb.connect(str(live.source)) as connection:
        connection.execute(PAID)
    with reading(api_on(Naive(live.parquet))) as reader:
        assert ask(reader, BANK, ONE_USER) == []
        assert live.dbt("run", "--select", "dim_accounts", "--vars", "land: true").returncode == 0
        halfway = ask(reader, BANK, ONE_USER)
        assert any("closing balances against accounts" in found for found in halfway)
        assert any("balances against movements" in found for found in halfway)
        assert any("accounts of the outside world against monthly cash flow" in found for found in halfway)
        assert live.dbt("run").returncode == 0
        assert ask(reader, BANK, ONE_USER) == []


# --- a file replaced between the opens of one query ---------------------------------------------------------------

LAID_OUT = """
    COPY (
        SELECT * FROM (
            SELECT user_id, account_id, kind, opening_balance, balance FROM read_parquet('{marts}/dim_accounts.parquet')
            UNION ALL
            SELECT 1000 + i, 1000000 + i, ['checking', 'savings', 'external'][1 + i % 3], 1000000 + i,
                1000000 + i + CASE i WHEN 1000 THEN -{moved} WHEN 3000 THEN {moved} ELSE 0 END
            FROM range(4096 - (SELECT count(*) FROM read_parquet('{marts}/dim_accounts.parquet'))) AS t(i)
        ) ORDER BY account_id {direction}
    ) TO '{file}' (FORMAT parquet, COMPRESSION {compression}, ROW_GROUP_SIZE 2048)
"""
"""The accounts, and others that nobody uses, in two row groups; ``moved`` changes owner from the one to the other.

Without compression and with hardly a value twice, files of all states have their columns at the same bytes.
"""


@pytest.fixture(scope="module")
def accounts(marts, tmp_path_factory):
    """States of the mart dim_accounts, each of them consistent with all other marts."""
    root = tmp_path_factory.mktemp("accounts")
    for name, moved, direction, compression in (
        ("first", 0, "ASC", "uncompressed"),
        ("moved", 100, "ASC", "uncompressed"),
        ("reversed", 0, "DESC", "uncompressed"),
        ("compressed", 100, "DESC", "zstd"),
    ):
        text = LAID_OUT.format(
            marts=marts.parquet, file=root / name, moved=moved, direction=direction, compression=compression
        )
        duckdb.execute(text)
    assert len({columns_at(root / name) for name in ("first", "moved", "reversed")}) == 1
    return root


def columns_at(file):
    found = duckdb.execute(f"SELECT data_page_offset, total_compressed_size FROM parquet_metadata('{file}')")
    return tuple(found.fetchall())


RACES = {
    "an error": ("compressed", FIRST_SCAN, SORTED_BANK, ("FAILED",)),
    "rows of both files": ("moved", SECOND_SCAN, SORTED_BANK, ("VIOLATION", "balances sum to")),
    "missing rows": ("reversed", FIRST_SCAN, ONE_USER, ("VIOLATION", "None follows from the other mart")),
}


@pytest.mark.parametrize("race", RACES)
def test_a_file_replaced_during_a_read_is_caught(race, marts, accounts, tmp_path):
    state, at, read, found = RACES[race]
    shutil.copytree(marts.parquet, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "dim_accounts.parquet"
    shutil.copyfile(accounts / "first", file)
    raced = Raced()

    def replace():
        shutil.copyfile(accounts / state, tmp_path / "next")
        os.replace(tmp_path / "next", file)

    naive = Naive(tmp_path, raced)
    with reading(api_on(naive)) as reader:
        assert ask(reader, read) == []
        raced.arm(file, at, replace)
        caught = ask(reader, read)
        assert raced.happened.is_set()
        assert any(all(text in line for text in found) for line in caught), caught
        assert ask(reader, read) == [], "each of the two states alone is right"
    assert bool(naive.errors) == (race == "an error")


@pytest.mark.parametrize("race", RACES)
def test_a_snapshot_published_during_a_read_changes_nothing(race, marts, accounts, tmp_path):
    state, at, read, _ = RACES[race]
    store = SnapshotStore(tmp_path / "store")
    publish(store, marts.parquet, {"dim_accounts": accounts / "first"})
    raced = Raced()
    with store.open() as pinned:
        naive = Naive(pinned.path, raced)
        with reading(api_on(naive)) as reader:
            raced.arm(
                pinned.file("dim_accounts"),
                at,
                lambda: publish(store, marts.parquet, {"dim_accounts": accounts / state}),
            )
            assert ask(reader, read) == []
            assert raced.happened.is_set()
    assert store.current_id() > pinned.id


def publish(store, directory, instead=None):
    """A snapshot of the marts in the directory, but for those that have a file of their own."""
    instead = instead or {}
    specs = []
    with store.build("run", holder="a test") as build:
        for path in sorted(directory.glob("*.parquet")):
            shutil.copyfile(instead.get(path.stem, path), build.path / path.name)
            described = duckdb.execute(f"DESCRIBE FROM read_parquet('{build.path / path.name}')").fetchall()
            columns = tuple(Column(name, kind) for name, kind, *_ in described)
            specs.append(MartSpec(path.stem, label_for(path.stem), "", columns))
        return build.publish(specs).id


# --- retention that ignores readers -------------------------------------------------------------------------------


def delete_all_but_the_newest(store):
    gone = store.ids()[:-1]
    for snapshot in gone:
        shutil.rmtree(store.root / "snapshots" / snapshot)
    return gone


def the_stores_own(store):
    return store.retain(keep=1, minutes=0)


@pytest.mark.parametrize(("retention", "spares"), [(delete_all_but_the_newest, False), (the_stores_own, True)])
def test_retention_that_ignores_readers_is_caught(retention, spares, marts, tmp_path):
    """A client in the middle of its pages, whose snapshot the API has closed meanwhile for others."""
    store = SnapshotStore(tmp_path)
    unread = publish(store, marts.parquet)
    publish(store, marts.parquet)
    settings = Settings(pinned_snapshots=1)
    database = Database(settings, parquet_dir=store.root, duckdb_path=None)
    with reading(api_on(database, settings), HostDirectory(store.root)) as reader:

        def others_read_newer_ones():
            for _ in range(3):
                publish(store, marts.parquet)
                reader.users[ALL_ROWS].ask(Read("listing", ALL_ROWS))
            assert unread in retention(store)
            return True

        reader.users[1].walk(WALK, pause=others_read_newer_ones)
    findings = reader.findings
    assert findings.violated == 0, findings.examples
    if spares:
        assert findings.failed == 0, findings.examples
        assert findings.reads["page"] > 1
    else:
        assert findings.failed == 1
        assert "410" in findings.examples[0]


# --- an API that lies ---------------------------------------------------------------------------------------------


def lying(app, lie):
    """The app, but ``lie(query string)`` is what it is asked, and ``lie(body)`` what it is said to have answered."""

    async def asgi(scope, receive, send):
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start, parts = {}, []

        async def altered(message):
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = lie(b"".join(parts))
            headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await app({**scope, "headers": plain, "query_string": lie(scope["query_string"])}, receive, altered)

    return asgi


def answer(app, read):
    method, path, params, body = read.request()
    headers = {"Authorization": f"Bearer {token(read.user)}"}
    return TestClient(app).request(method, path, params=params, json=body, headers=headers).content


def rows_of(body):
    return body[body.index(b'"rows":[') :].split(b'],"row_count"')[0]


LIES = {
    "a digit": (BANK, lambda new, _: (new[0], re.sub(rb'("balance":[-0-9]+\.)0', rb"\g<1>1", new[0], count=1))),
    "two rows in turn": (ACCOUNTS, lambda new, _: (rows_of(new[1]), two_in_turn(rows_of(new[1])))),
    "a row less": (ACCOUNTS, lambda new, _: (new[1], one_less(new[1]))),
    "a mart of the snapshot before": (BANK, lambda new, old: (rows_of(new[0]), rows_of(old[0]))),
    "the second page first": (WALK, lambda *_: (b"limit=150", b"limit=150&offset=150")),
    "no next page": (WALK, lambda new, _: (re.search(rb'"next":"[^"]+"', new[2])[0], b'"next":null')),
    "half an answer": (ACCOUNTS, lambda new, _: (new[1], new[1][:100])),
}


def two_in_turn(rows):
    first, second, rest = rows.removeprefix(b'"rows":[').split(b"},", 2)
    return b'"rows":[' + b"},".join([second, first, rest])


def one_less(body):
    answer = json.loads(body, parse_float=str)
    rows = rows_of(body)
    count = b'"row_count":%d' % answer["row_count"]
    return body.replace(rows, rows[: rows.rindex(b",{")]).replace(count, b'"row_count":%d' % (answer["row_count"] - 1))


@pytest.mark.parametrize("lie", LIES)
def test_an_api_that_lies_is_caught(lie, marts, accounts, tmp_path):
    """The checks by which answers are held against the snapshot that they name."""
    read, told = LIES[lie]
    store = SnapshotStore(tmp_path)
    database = Database(Settings(), parquet_dir=store.root, duckdb_path=None)
    app = api_on(database)
    truth = []
    for state in ("first", "moved"):
        publish(store, marts.parquet, {"dim_accounts": accounts / state})
        truth.append([answer(app, honest) for honest in (BANK, ACCOUNTS, WALK)])
    words, instead = told(truth[1], truth[0])
    lies = [lie]

    def lie_once(text):
        if lies and words in text:
            lies.clear()
            return text.replace(words, instead, 1)
        return text

    with reading(lying(app, lie_once), HostDirectory(store.root)) as reader:
        caught = ask(reader, read)
        assert not lies
        assert caught
        assert ask(reader, read) == []
