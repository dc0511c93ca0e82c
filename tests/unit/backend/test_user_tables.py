"""Rows of a large mart's user as a table of their own: no byte of an answer tells, whatever becomes of it."""

import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.duckdb import generation, table, user_tables
from backend.duckdb.client import Connection
from backend.duckdb.table import BLOCK_BYTES
from backend.duckdb.tables import Tables
from backend.duckdb.user_tables import UserTables
from backend.manifest import Column, MartSpec
from backend.snapshots import SnapshotStore
from tests.e2e.stack import wait_for

from .api import bearer, open_api
from .marts import damage
from .test_kept_answers import shown
from .test_row_groups import COLUMNS, PER_USER, ROWS, SCOPES, conditions, noted, path, questions, spec, written

# Of these the rows can be kept, for lack of a column called rowid.
PLAIN = {name: column for name, column in COLUMNS.items() if name != "rowid"}
MARTS = (*SCOPES, "plain")
OF_USERS = ("of_numbers", "of_texts", "plain")

ROOM = 64_000_000
NAMED = "SELECT count(*) FROM duckdb_databases() WHERE NOT internal AND database_name LIKE '%/%'"


def publish(store, generation, anew=MARTS):
    """These marts, and all others of the snapshot before."""
    with store.build(f"run-{generation}", holder="test", wait=30) as build:
        for mart in anew:
            scope, columns = SCOPES.get(mart, SCOPES["of_numbers"]), PLAIN if mart == "plain" else COLUMNS
            written(build.path / f"{mart}.parquet", scope, columns, generation=generation)
        build.link([mart for mart in MARTS if mart not in anew])
        columns = Column("user_id", "INTEGER"), *(Column(name, kind) for name, (kind, _) in PLAIN.items())
        plain = MartSpec("plain", "Plain", "", columns)
        return build.publish([*(spec(mart, scope) for mart, scope in SCOPES.items()), plain])


@pytest.fixture
def store(tmp_path):
    store = SnapshotStore(tmp_path / "parquet")
    publish(store, 1)
    return store


@pytest.fixture(autouse=True, scope="module")
def large():
    """Whatever has more than a thousand rows is large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "_LARGE", 1000)
        yield


@pytest.fixture
def no_mart_is_a_table(monkeypatch):
    """For lack of room, say."""
    monkeypatch.setattr(Tables, "_chosen", lambda *_: {})


@pytest.fixture
def parts(monkeypatch):
    return noted(monkeypatch)


def opened(store, **limits):
    """An API whose tables' instance is there."""
    api, database = open_api(parquet_dir=store.root, kept_answers=0, **{"table_memory": ROOM} | limits)

    def instance():
        with database.connection() as connection:
            return connection._tables is not None

    wait_for(instance, "there is an instance for tables", seconds=60, every=0.01)
    return api, database


@pytest.fixture
def api(store, no_mart_is_a_table):
    client, database = opened(store)
    with client:
        yield client, database


def ask(client, user, *, mart="of_numbers", times=1, limit=PER_USER):
    answers = [client.get(path(mart) + f"?limit={limit}", headers=bearer(user)) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    return [shown(answer, without=["etag"]) for answer in answers]


def of_users(database):
    """Whose tables there are, and how many databases the instance has for them."""
    with database.connection() as connection:
        ((count,),) = connection._tables.cursor.execute(NAMED).fetchall()
        return [user for _, user in connection._tables.users._tables], count


# --- answers ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["marts are files", "marts are tables"])
def shared(request, tmp_path_factory):
    """An API that makes tables of users' rows, and one that makes none of anything."""
    store = SnapshotStore(tmp_path_factory.mktemp("user-tables") / "parquet")
    publish(store, 1)
    chosen = Tables._chosen

    def none_kept(*given):
        found = chosen(*given) if request.param == "marts are tables" else {}
        return {key: size for key, size in found.items() if key[1] is None}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tables, "_chosen", none_kept)
        client, database = opened(store)
    tables = database._generations.tables
    tables._chosen = functools.partial(none_kept, tables)
    whole, _ = open_api(parquet_dir=store.root, kept_answers=0, table_memory=0)
    number = len(MARTS) if request.param == "marts are tables" else 0
    with client, whole:
        wait_for(lambda: database.status().tables == number, request.param, seconds=60, every=0.01)
        yield client, whole, database


@settings(max_examples=100, deadline=None)
@given(
    asked=st.tuples(st.sampled_from(OF_USERS), st.integers(0, 30)),
    given_once=questions,
    where=conditions,
)
def test_no_byte_tells_of_them(shared, asked, given_once, where):
    client, whole, database = shared
    mart, user = asked
    question = {"params": [*given_once.items(), *where], "headers": {**bearer(user), "Prefer": "count=exact"}}
    expected = shown(whole.get(path(mart), **question), without=["etag"])
    assert [shown(client.get(path(mart), **question), without=["etag"]) for _ in range(3)] == [expected] * 3
    assert user in of_users(database)[0]


def test_who_asks_again_has_a_table_of_just_these_rows(api, parts):
    client, database = api
    first, second, third = ask(client, 3, times=3)
    assert first == second == third
    assert len(parts) == 2, "the third time no file is read"
    assert of_users(database) == ([3], 1)
    with database.connection() as connection:
        dataset = connection.rows_of(connection.datasets["of_numbers"], 3)
        rows = connection.execute(f"SELECT count(*), any_value(user_id) FROM {dataset.relation}", on=dataset)
        assert rows.fetchall() == [(PER_USER, 3)]
    assert database.status().table_bytes == connection._tables.users.size >= BLOCK_BYTES


def test_what_it_has_is_at_hand(api, monkeypatch):
    """Its rows are kept as they are answered, too, so that DuckDB is asked for nothing."""
    client, database = api
    first, *_ = ask(client, 3, mart="plain", times=2)
    asked = []
    execute = Connection.execute
    monkeypatch.setattr(Connection, "execute", lambda *given, **named: asked.append(given) or execute(*given, **named))
    assert ask(client, 3, mart="plain") == [first]
    assert asked == []
    with database.connection() as connection:
        kept = connection.rows_of(connection.datasets["plain"], 3).kept["json"]
        assert database.status().table_bytes == connection._tables.users.size >= BLOCK_BYTES + kept.size
        assert kept.count == PER_USER


def test_marts_that_need_none_get_none(api):
    client, database = api
    for mart in ("of_nobody", "unsorted", "of_dates"):
        ask(client, 3, mart=mart, times=3)
    everybody = {"headers": bearer(3, all_rows=True)}
    for _ in range(3):
        assert client.get(path("of_numbers") + "?select=count()", **everybody).json()["rows"] == [{"count": ROWS}]
    assert of_users(database) == ([], 0)


def test_rows_that_are_kept_are_preferred(store):
    client, database = opened(store)
    with client:
        wait_for(lambda: database.status().tables == len(MARTS), "marts are tables", seconds=60, every=0.01)
        [expected] = ask(client, 3, mart="plain")

        def kept():
            assert ask(client, 3, mart="plain") == [expected]
            with database.connection() as connection:
                return connection.datasets["plain"].kept

        wait_for(kept, "rows are kept", seconds=60, every=0.01)
        before = of_users(database)
        ask(client, 5, mart="plain", times=3)
        assert of_users(database) == before


# --- publishes and damage ---------------------------------------------------------------------------------------------
def test_they_are_good_for_as_long_as_the_file_is(store, api, parts):
    client, database = api
    [before, _] = ask(client, 3, times=2)
    publish(store, 2, ["of_texts"])
    parts.clear()
    [after] = ask(client, 3)
    assert (parts, of_users(database)[0]) == ([], [3])
    assert after != before
    publish(store, 3)
    ask(client, 3)
    assert len(parts) == 1
    wait_for(lambda: of_users(database) == ([], 0), "nobody has the file any more", seconds=60, every=0.01)
    assert database.status().table_bytes == 0


@pytest.mark.usefixtures("no_mart_is_a_table")
def test_none_is_made_of_a_file_that_was_damaged_meanwhile(store, monkeypatch):
    """The file is read where it lies, for want of memory; the snapshot before it is still good."""
    monkeypatch.setattr(UserTables, "drop_others", lambda *_: None)  # which is too late
    second = publish(store, 2)
    client, database = opened(store, resident_memory=0)
    with client:
        [before] = ask(client, 3)
        assert second.id in str(before)
        damage(store, second.id, "of_numbers")
        os.utime(store.root / "snapshots" / second.id / "of_numbers.parquet")
        [after] = ask(client, 3)
        assert second.id not in str(after)
        assert of_users(database) == ([], 0)
        ask(client, 3, times=2)
        assert of_users(database) == ([3], 1)


# --- room -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def for_two(store, no_mart_is_a_table):
    """Room for the rows of two users."""
    client, database = opened(store)
    with client:
        ask(client, 3, times=2)
        size = database.status().table_bytes
    client, database = opened(store, table_memory=2 * 2 * size + BLOCK_BYTES)
    with client:
        yield client, database


def test_nobodys_rows_give_way_to_anothers_who_asks_as_they_do(for_two, parts):
    client, database = for_two
    expected = {user: ask(client, user, times=2)[1] for user in range(5)}
    parts.clear()
    for _ in range(3):
        assert {user: ask(client, user)[0] for user in range(5)} == expected
    assert of_users(database) == ([0, 1], 2)
    assert len(parts) == 3 * 3


def test_rows_that_nobody_asked_for_lately_give_way(for_two, monkeypatch):
    client, database = for_two
    monkeypatch.setattr(user_tables, "_IDLE_SECONDS", 0)
    for user in (0, 1):
        ask(client, user, times=2)
    room = database.status().table_bytes
    ask(client, 0)
    ask(client, 2, times=2)
    assert of_users(database) == ([0, 2], 2)
    assert database.status().table_bytes <= room
    with database.connection() as connection:
        assert table.held(connection._tables.cursor) == room


@pytest.mark.usefixtures("no_mart_is_a_table")
def test_what_turns_out_too_large_is_not_tried_all_the_time(store, monkeypatch):
    made = []
    monkeypatch.setattr(user_tables, "made", lambda *given: made.append(table.made(*given)) or made[-1])
    monkeypatch.setattr(user_tables, "BLOCK_BYTES", 1)  # so that it is tried
    client, database = opened(store, table_memory=2 * BLOCK_BYTES - 2)
    with client:
        ask(client, 3, times=5)
        assert len(made) == 1
        assert of_users(database) == ([], 0)


def test_tables_of_marts_give_way(store):
    """They have all the room until users' rows are asked for."""
    alone, database = opened(store)
    with alone:
        wait_for(lambda: database.status().tables == len(MARTS), "marts are tables", seconds=60, every=0.01)
        size = database.status().table_bytes
    client, database = opened(store, table_memory=size)
    with client:
        wait_for(lambda: database.status().tables == len(MARTS), "marts are tables", seconds=60, every=0.01)
        ask(client, 5)
        ask(client, 3, times=2)
        assert of_users(database)[0] == [3]
        wait_for(lambda: database.status().tables < len(MARTS), "one gave way", seconds=60, every=0.01)
        assert database.status().table_bytes <= size


def test_nothing_is_dropped_while_one_is_made_whose_size_it_would_be_taken_from(api, monkeypatch):
    client, database = api
    ask(client, 3, times=2)
    with database.connection() as connection:
        users = connection._tables.users
    dropping = threading.Thread(target=users.drop_others, args=[set()])

    def made_meanwhile(*given):
        dropping.start()
        found = table.made(*given)
        assert dropping.is_alive()
        return found

    monkeypatch.setattr(user_tables, "made", made_meanwhile)
    ask(client, 5, times=2)
    dropping.join()
    assert of_users(database) == ([5], 1)
    with database.connection() as connection:
        assert table.held(connection._tables.cursor) == users.size


# --- failure ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "error",
    [
        duckdb.FatalException("database has been invalidated"),
        duckdb.OutOfMemoryException("failed to allocate"),
        duckdb.CatalogException("there is one of that name"),
    ],
)
def test_where_none_can_be_made_the_file_answers(api, monkeypatch, caplog, error):
    client, database = api
    [expected] = ask(client, 3)

    def failing(*given):
        table.made(*given)
        raise error

    monkeypatch.setattr(user_tables, "made", failing)
    assert ask(client, 3, times=3) == [expected] * 3
    fatal = isinstance(error, duckdb.FatalException)
    assert caplog.text.count("'event': 'tables_discarded'") == fatal
    assert caplog.text.count("'event': 'rows_of_user_not_in_memory'") == (not fatal)
    if not fatal:
        assert of_users(database) == ([], 0)


def test_one_that_is_gone_is_answered_from_the_file(api):
    client, database = api
    [_, expected] = ask(client, 3, times=2)
    with database.connection() as connection:
        [key] = connection._tables.users._tables
        table.detach(connection._tables.users.instance, user_tables._name(key))
    assert ask(client, 3, times=2) == [expected] * 2


def test_who_comes_second_has_the_table_of_the_first(api):
    client, database = api
    ask(client, 3, times=2)
    with database.connection() as connection:
        users = connection._tables.users
        [key] = users._tables
        assert users.make(key, connection.datasets["of_numbers"], "/nowhere", lambda: True, forms={}) is users.get(key)
    assert of_users(database) == ([3], 1)


def test_all_are_right_who_ask_at_the_same_time(api):
    client, database = api
    expected = {user: ask(client, user)[0] for user in range(6)}
    with ThreadPoolExecutor(8) as pool:
        users = [user for user in range(6) for _ in range(8)]
        assert [found for [found] in pool.map(lambda user: ask(client, user), users)] == [expected[u] for u in users]
    ask_again = {user: ask(client, user, times=2)[1] for user in range(6)}
    assert ask_again == expected
    found, count = of_users(database)
    assert (sorted(found), count) == (list(range(6)), 6)
