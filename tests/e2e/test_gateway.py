"""The gateway: backends come and go behind it, and clients don't notice. See deploy/decisions/0009-gateway.md."""

import json
import re

import httpx
import pytest

from backend.snapshots import SnapshotStore
from tests.unit.backend.marts import publish

from .load import GET, QUERIES, Load
from .stack import wait_for

REPLACEMENTS = 3
STOP_SECONDS = 75
LIVE = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=9)"

FORTY = """
import sys, urllib.request
def ask(path):
    headers = {"Authorization": f"Bearer {sys.argv[2]}"}
    return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:8000{path}", headers=headers), timeout=30)
for _ in range(40):
    print(ask(sys.argv[1]).headers["X-Snapshot-Id"])
print()
print(ask("/metrics").read().decode())
"""


@pytest.fixture(scope="module")
def stack(start_stack):
    """Phase 2 without what builds: the snapshot is there already."""
    return start_stack(
        2,
        services=("gateway",),
        before=lambda stack: publish(SnapshotStore(stack.parquet_host_dir), 1),
    )


@pytest.fixture(autouse=True)
def one_backend(stack):
    """However many the test before left."""
    stack.up("--no-deps", "--no-recreate", "--scale", "backend=1", "backend")


def assert_envelope(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "hint"}
    assert answer.json()["error"]["code"] == code


def test_replacing_the_backend_start_first_fails_no_request(stack):
    gateway = stack.container("gateway").id
    replaced = set()
    with Load(stack) as load:
        for _ in range(REPLACEMENTS):
            (old,) = stack.backends()
            stack.add_backend()
            old.stop(timeout=STOP_SECONDS)
            assert old.wait()["StatusCode"] == 0
            old.remove()
            replaced.add(old.id)
            load.go_on()
    assert load.failures == []
    assert len(replaced) == REPLACEMENTS
    assert stack.container("gateway").id == gateway


def test_the_same_load_sees_a_backend_that_is_stopped_before_another_is_there_and_reads_why(stack):
    """The control: without a second replica there is a gap. What clients get in it is an envelope, never less."""
    (backend,) = stack.backends()
    with Load(stack) as load:
        backend.stop(timeout=STOP_SECONDS)
        # A successor that is there within a second or two is waited for by the gateway.
        wait_for(lambda: load.failures, "a request fails", seconds=60)
        stack.up("--no-deps", "--force-recreate", "backend")
        load.go_on()
    for failure in load.failures:
        assert isinstance(failure, httpx.Response), repr(failure)
        assert_envelope(failure, *((502, "bad_gateway") if failure.status_code == 502 else (503, "no_backend")))
        assert int(failure.headers["Retry-After"]) > 0


def test_one_of_two_backends_killed_fails_no_request(stack):
    """Answers that had begun would be cut short; these are written at once."""
    for _ in range(2):
        victim, _ = stack.backends()[0], stack.add_backend()
        with Load(stack) as load:
            victim.kill("SIGKILL")
            load.go_on()
        victim.remove()
        assert load.failures == []


def test_a_new_backend_without_data_is_asked_nothing(stack, tmp_path, monkeypatch):
    with Load(stack) as load:
        monkeypatch.setitem(stack.environment, "PARQUET_HOST_DIR", str(tmp_path))
        useless = stack.add_backend(wait=False)
        wait_for(lambda: useless.exec_run(["python", "-c", LIVE]).exit_code == 0, "it is alive", seconds=60)
        load.go_on()
        assert useless.exec_run(["python", "-c", LIVE.replace("live", "ready")]).exit_code != 0
        useless.remove(force=True)
        load.go_on()
    assert load.failures == []


def test_a_lone_backend_is_asked_while_it_drains_and_says_so_itself(stack, monkeypatch):
    monkeypatch.setitem(stack.environment, "API_DRAIN_SECONDS", "3600")
    stack.up("--no-deps", "--force-recreate", "backend")
    (backend,) = stack.backends()
    backend.kill("SIGTERM")
    wait_for(lambda: not stack.ready(), "it drains", seconds=30)
    with Load(stack) as load, stack.api() as api:
        load.go_on()
        assert_envelope(api.get("/health/ready"), 503, "draining")
    assert load.failures == []
    backend.remove(force=True)


def test_what_the_gateway_says_itself_is_an_envelope(stack):
    (backend,) = stack.backends()
    backend.kill("SIGKILL")
    wait_for(lambda: not stack.ready(), "nobody is there", seconds=30)
    with stack.api() as api:
        answer = api.get(GET)
    assert_envelope(answer, 503, "no_backend")
    assert int(answer.headers["Retry-After"]) > 0
    backend.remove()


def test_bodies_pass_as_they_are_also_where_they_fit_no_buffer(stack):
    with stack.api() as api:
        (alone, _) = api.post("/api/analytics/query", json={"queries": QUERIES}).json()["results"]
        large = json.dumps({"queries": [QUERIES[0]] * 20}) + " " * 300_000
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        plain = api.post("/api/analytics/query", content=large, headers=headers)
        packed = api.post("/api/analytics/query", content=large, headers={**headers, "Accept-Encoding": "gzip"})
    assert plain.status_code == 200, plain.text
    assert "Content-Encoding" not in plain.headers
    assert len(plain.content) == int(plain.headers["Content-Length"]) > 65536
    assert [result["rows"] for result in plain.json()["results"]] == [alone["rows"]] * 20
    # The backend's coding, and nobody's on top of it.
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.num_bytes_downloaded == int(packed.headers["Content-Length"]) < len(plain.content)
    assert packed.content == plain.content


def test_two_workers_answer_on_one_port_and_both_from_what_was_published_last(stack, monkeypatch):
    """Which of them has a connection is the kernel's choice: of forty, both have some."""
    monkeypatch.setitem(stack.environment, "API_WORKERS", "2")
    stack.up("--no-deps", "--force-recreate", "backend")
    with Load(stack) as load:
        for generation in (2, 3):
            published = publish(SnapshotStore(stack.parquet_host_dir), generation)
            code, output = stack.exec("backend", "python", "-c", FORTY, GET, stack.token())
            assert code == 0, output
            snapshots, metrics = output.split("\n\n", 1)
            assert set(snapshots.split()) == {published.id}
            counted = re.findall(r'^analytics_dataset_requests_total{.*worker="(\d)"', metrics, re.MULTILINE)
            assert set(counted) == {"0", "1"}
            load.go_on()
    assert load.failures == []
