"""Retention against page cursors: none loses its snapshot while it is in use, and none keeps it for ever."""

import pytest

from backend.duckdb import holds

from .api import QUERY, assert_error, bearer, open_api
from .marts import publish

KEEP = 3
CURSOR_SECONDS = 15


@pytest.fixture
def clock(monkeypatch):
    """Time as the holds know it; it passes when a test says so."""
    seconds = [0.0]
    monkeypatch.setattr(holds.time, "monotonic", lambda: seconds[0])
    return seconds


def ask(client, **params):
    answer = client.get(QUERY, params=params, headers=bearer(1))
    assert answer.status_code == 200, answer.text
    return answer.json()


def on_disk(root):
    """Bytes of everything below, a file with several names counted once."""
    files = {path.stat().st_ino: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    return sum(files.values())


def test_a_cursor_keeps_its_snapshot_although_its_instance_is_closed(store):
    client, database = open_api(parquet_dir=store.root, pinned_snapshots=1)
    tokens = []
    for number in range(2, 6):
        tokens.append(ask(client, limit=39)["next"])
        publish(store, number)
        assert store.retain(keep=1, minutes=0) == []
    for number, token in enumerate(tokens, 1):
        (row,) = ask(client, cursor=token)["rows"]
        assert row["generation"] == number
        assert database.status().generations_open <= 2
    assert database.status().snapshots_held == 4
    assert "analytics_snapshots_held 4.0" in client.get("/metrics").text
    database.close()
    assert len(store.retain(keep=1, minutes=0)) == 4


def test_a_cursor_that_nobody_came_back_with_keeps_nothing(store, clock):
    client, _ = open_api(parquet_dir=store.root, cursor_seconds=CURSOR_SECONDS)
    first = store.current_id()
    token = ask(client, limit=1)["next"]
    publish(store, 2)
    clock[0] += CURSOR_SECONDS
    assert client.get("/health/ready").json()["snapshot"] != first
    assert store.retain(keep=1, minutes=0) == []
    clock[0] += 1
    client.get("/health/ready")
    assert store.retain(keep=1, minutes=0) == [first]
    assert_error(client.get(QUERY, params={"cursor": token}, headers=bearer(1)), 410, "snapshot_gone")


def test_disk_use_over_200_publishes_is_what_is_kept_and_what_is_paged_through(store, clock):
    """Two slow readers page through the data, a page every seven publishes, while the store moves on."""
    client, database = open_api(
        parquet_dir=store.root, cursor_seconds=CURSOR_SECONDS, pinned_snapshots=1, pinned_idle_seconds=1e-9
    )
    one_snapshot = on_disk(store.root)
    readers = {0: None, 3: None}
    finished, most = 0, 0
    for number in range(2, 202):
        for offset, reading in readers.items():
            if number % 7 != offset:
                continue
            generation, token = reading or (number - 1, None)
            page = ask(client, limit=10, **({"cursor": token} if token else {}))
            assert {row["generation"] for row in page["rows"]} == {generation}
            readers[offset] = (generation, page["next"]) if page["next"] else None
            finished += not page["next"]
        publish(store, number)
        clock[0] += 1
        assert client.get("/health/ready").json()["status"] == "ready"
        held = database.status().snapshots_held
        most = max(most, held)
        assert len(store.ids()) <= KEEP + 1 + held
        store.retain(keep=KEEP, minutes=0)
        assert len(store.ids()) <= KEEP + held
        assert on_disk(store.root) <= 1.2 * one_snapshot * (KEEP + held)
    assert finished > 10
    assert 2 <= most <= 6
    clock[0] += CURSOR_SECONDS + 1
    client.get("/health/ready")
    store.retain(keep=KEEP, minutes=0)
    assert len(store.ids()) == KEEP
