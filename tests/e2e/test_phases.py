"""Every phase, from nothing: it comes up by itself, builds, and answers alike.

Then the promise, under load: every answer is complete, of one published snapshot, and of one whose tests passed. Its
control is phase 0. See README.md.
"""

import statistics
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime

import httpx
import pytest
from playwright.sync_api import expect

from tests.page.promises import Promises, cells, rows, sign_in
from tests.page.site import Site

from .reader.clients import KINDS, Readers
from .reader.meanwhile import readers_of, target
from .reference import DATASETS, QUERIES, comparable
from .stack import RUN_SECONDS, wait_for

READERS = 4
READS = 1_000
# Between two reads of a client: whoever answers goes before whoever builds, and both are to get on.
PACE_SECONDS = 0.3
PATIENCE_SECONDS = 900  # a guard; on two idle cores a third of it is enough
pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


def only(*phases):
    """Of a test that is about some phases alone."""
    ids = [f"phase{phase}" for phase in phases]
    return pytest.mark.parametrize("stack", phases, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module", params=[0, 1, 2], ids=["phase0", "phase1", "phase2"])
def stack(request, start_stack):
    """Up means: the first build began by itself, and the API answers from it."""
    stack = start_stack(request.param)
    yield stack
    stack.down()  # before the next one starts


def test_eleven_datasets_are_listed_with_what_they_are(stack):
    with stack.api() as api:
        answer = api.get("/api/analytics/datasets")
    assert answer.status_code == 200
    datasets = answer.json()["datasets"]
    assert [dataset["id"] for dataset in datasets] == list(DATASETS)
    for dataset in datasets:
        assert dataset["description"].startswith("One row per")
        assert all(column["description"] for column in dataset["columns"])
    assert (answer.json()["snapshot"] is None) == (stack.phase == 0)
    assert answer.headers.get("X-Snapshot-Id") == answer.json()["snapshot"]


@pytest.mark.parametrize("user", [1, 2, 0], ids=["user 1", "user 2", "all rows"])
def test_the_same_queries_give_the_same_rows_in_every_phase(stack, reference, user):
    expected = reference.answers(user)
    with stack.api(user, all_rows=user == 0) as api:
        for name, path in QUERIES.items():
            answer = api.get("/api/analytics/datasets/" + path)
            assert answer.status_code == 200, answer.text
            assert comparable(answer.text) == expected[name], name


def test_two_users_see_only_their_own_rows(stack):
    for user in (1, 2):
        with stack.api(user) as api:
            rows = api.get("/api/analytics/datasets/fct_transactions/query?limit=10000").json()["rows"]
            assert rows
            assert {row["user_id"] for row in rows} == {user}
            other = api.get(f"/api/analytics/datasets/fct_transactions/query?user_id=eq.{3 - user}").json()
            assert other["rows"] == []


def test_who_has_no_token_gets_nothing(stack):
    answer = httpx.get(stack.url("gateway", 8000) + "/api/analytics/datasets")
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"code", "message", "hint"}


@pytest.fixture(scope="module")
def site(stack):
    return Site(stack.url("gateway", 8000), stack.token)


class TestPage:
    """The page in a browser on the gateway. All that it promises is tested in tests/page, of the same process."""

    page = Promises.page
    test_every_dataset = Promises.test_every_dataset_is_shown_as_the_api_describes_and_returns_it
    test_downloads = Promises.test_downloads_are_all_rows_of_the_filters_in_their_order
    test_the_reference = Promises.test_the_reference_needs_nobody_else


def build_watched(stack):
    """A build that succeeded, and whether its build file was seen in ``/tmp`` at each look."""
    for _ in range(5):
        seen = []
        run_id = stack.launch()
        status = stack.finished(
            run_id,
            meanwhile=lambda seen=seen: seen.append(
                stack.exec("dagster-daemon", "ls", "/tmp/dbt_build.duckdb")[0] == 0
            ),
        )
        if status == "SUCCESS":
            return run_id, seen
        # In phase 0 the API's own health check is enough to lock a build out; anything else is a failure.
        assert stack.phase == 0, stack.failure(run_id)
        assert "lock" in stack.failure(run_id).lower(), stack.failure(run_id)
    return pytest.fail("five builds in a row were locked out")


def test_a_run_launched_over_graphql_runs_in_the_daemon_and_the_api_serves_what_it_built(stack, site, open_tab):
    """And so does a page that was open before."""
    page = open_tab(site)
    sign_in(page, site)
    shown = page.locator("#refreshed").get_attribute("datetime")
    with stack.api() as api:
        before = api.get("/api/analytics/datasets").json()
    run_id, seen = build_watched(stack)
    with stack.api() as api:
        after = api.get("/api/analytics/datasets").json()
    assert datetime.fromisoformat(after["last_refresh"]) > datetime.fromisoformat(before["last_refresh"])
    daemon = stack.container("dagster-daemon").id[:12]
    assert f"Building in {daemon}" in [event.get("message") for event in stack.events(run_id)]
    materialised = stack.materialised(run_id)
    assert sorted(materialised) == list(DATASETS)
    assert_shown_by_itself(page, site, shown)
    if stack.phase == 0:
        assert not any(seen)  # it builds in the shared file
        return
    assert any(seen)
    assert stack.exec("dagster-daemon", "ls", "/tmp/dbt_build.duckdb")[0] != 0
    assert after["snapshot"] > before["snapshot"]
    with stack.api(all_rows=True) as api:
        counts = {
            dataset["id"]: dataset["row_count"] for dataset in api.get("/api/analytics/datasets").json()["datasets"]
        }
    for name, metadata in materialised.items():
        assert metadata["snapshot"] == after["snapshot"]
        assert metadata["dagster/row_count"] == counts[name]
        assert metadata["bytes"] > 0


def assert_shown_by_itself(page, site, before):
    """The page, open since before the build, has what the build made."""
    expect(page.locator("#refreshed")).not_to_have_attribute("datetime", before)
    expect(page.locator("#notice")).to_be_empty()
    after = site.get("/api/analytics/datasets").json()
    expect(page.locator("#refreshed")).to_have_attribute("datetime", after["last_refresh"])
    assert (after["snapshot"] or "") in page.locator("#snapshot").text_content()
    assert cells(page) == rows(site)


def test_the_schedule_and_the_automation_are_on(stack):
    states = stack.graphql(
        """query($s: RepositorySelector!) {
             schedulesOrError(repositorySelector: $s) { ... on Schedules {
               results { name cronSchedule scheduleState { status } } } }
             sensorsOrError(repositorySelector: $s) { ... on Sensors { results { name sensorState { status } } } } }""",
        s={"repositoryName": "__repository__", "repositoryLocationName": "deploy.pipeline.definitions"},
    )
    (schedule,) = states["schedulesOrError"]["results"]
    assert (schedule["cronSchedule"], schedule["scheduleState"]["status"]) == ("0 * * * *", "RUNNING")
    sensors = {sensor["name"]: sensor["sensorState"]["status"] for sensor in states["sensorsOrError"]["results"]}
    assert sensors == {"eager_marts": "RUNNING", "first_build": "RUNNING"}


def read_while(stack, run_id):
    """Answers of ``READERS`` clients, by status and error code, while the run goes on. The workload of every phase."""
    answers, done = Counter(), threading.Event()

    def read(user):
        with stack.api(user) as api:
            while not done.wait(PACE_SECONDS):
                answer = api.get("/api/analytics/datasets/agg_monthly_cashflow/query")
                answers[answer.status_code, answer.json().get("error", {}).get("code")] += 1
                if answer.status_code == 503:
                    assert int(answer.headers["Retry-After"]) > 0

    readers = [threading.Thread(target=read, args=(user,)) for user in range(1, READERS + 1)]
    for reader in readers:
        reader.start()
    try:
        return answers, stack.finished(run_id)
    finally:
        done.set()
        for reader in readers:
            reader.join()


def test_reads_during_a_build(stack):
    """Phase 0 shows the disease: a build and reads lock each other out. The same workload passes in phases 1 and 2."""
    run_id = stack.launch()
    answers, status = read_while(stack, run_id)
    if stack.phase == 0:
        refused = answers[503, "database_locked"]
        locked_out = "lock" in stack.failure(run_id).lower()
        assert refused or locked_out, (answers, status)
        assert {code for code, _ in answers} <= {200, 503}, "a lock is never a 500"
    else:
        assert status == "SUCCESS"
        assert {code for code, _ in answers} == {200}, answers
        assert answers.total() > READERS


def test_the_api_recovers_after_reads_and_builds_collided(stack):
    wait_for(stack.ready, "the API is ready", seconds=60, details=lambda: stack.logs("backend"))
    with stack.api() as api:
        assert len(api.get("/api/analytics/datasets").json()["datasets"]) == len(DATASETS)


# --- the promise ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unscheduled(stack):
    """No build but those that a test asks for."""
    stack.stop_schedule()
    return stack


@only(0)
def test_the_shared_file_of_phase_0_is_caught(unscheduled):
    stack = unscheduled
    # Few and slow clients: more of them would lock the build out, and nothing would ever be written.
    with Readers(target(stack), clients=2, pace=1) as readers:
        for _ in range(12):  # a read at the wrong moment ends a build before it has locked anything
            run_id = stack.launch()
            wait_for(lambda: readers.findings.failed or ended(stack, run_id), "a failed read", seconds=RUN_SECONDS)  # noqa: B023
            if readers.findings.failed:
                break
    assert any("503" in example and "database_locked" in example for example in readers.findings.examples)


def ended(stack, run_id):
    return stack.status(run_id) in ("SUCCESS", "FAILURE", "CANCELED")


def assert_kept(findings, operations):
    """No failed read and no violation, and every kind of read was made."""
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)
    assert operations.unproven() == []
    assert set(findings.reads) == set(KINDS)
    assert findings.reads.total() >= READS


@only(1, 2)
def test_every_answer_is_whole_and_of_one_tested_snapshot_while_builds_publish(unscheduled):
    """Full and partial builds, and one that its tests refuse, under traffic; phase 1 has fewer of them."""
    stack = unscheduled
    publishes = 3 if stack.phase == 2 else 1
    with readers_of(stack, pace=PACE_SECONDS) as (readers, operations):
        findings = readers.findings
        deadline = time.monotonic() + PATIENCE_SECONDS
        operations.build()
        refused = operations.refused_build() if stack.phase == 2 else None
        while len(findings.snapshots) <= publishes or findings.reads.total() < READS:
            assert time.monotonic() < deadline, (findings.snapshots, findings.reads)
            operations.build()
        wait_for(lambda: findings.walks_across_a_publish, "a client's pages span a publish", seconds=120)
    assert_kept(findings, operations)
    assert len(findings.snapshots) > publishes
    assert refused is None or not refused.published


@only(2)
def test_a_rollback_under_load_is_seen_at_once_and_no_read_fails(unscheduled):
    """Phase 1 also rewrites the phase-0 file, see below."""
    stack = unscheduled
    with readers_of(stack, pace=PACE_SECONDS) as (readers, operations):
        build = operations.build()
        rollbacks = [rollback for _ in range(3) for rollback in operations.back_and_forth()]
    findings = readers.findings
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)
    assert all(rollback.seen for rollback in rollbacks)
    assert statistics.median(rollback.seconds for rollback in rollbacks) < build.seconds / 3


# --- phase 1 on the volume of a phase 0 -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def new(stack):
    """The same project, volume and secrets under the overlay of phase 1; nothing is started yet."""
    return replace(stack, phase=1)


def answers(stack):
    with stack.api() as api:
        found = {path: api.get("/api/analytics/datasets/" + path) for path in QUERIES.values()}
    assert {answer.status_code for answer in found.values()} == {200}, found
    return {path: comparable(answer.text) for path, answer in found.items()}


def last_refresh(stack):
    with stack.api() as api:
        return api.get("/api/analytics/datasets").json()["last_refresh"]


def forget_failures(stack):
    """Of runs: for five minutes after one, no first build is tried again."""
    runs = stack.graphql("{ runsOrError { ... on Runs { results { runId status } } } }")["runsOrError"]["results"]
    delete = "mutation($id: String!) { deleteRun(runId: $id) { __typename } }"
    for run in runs:
        if run["status"] == "FAILURE":
            deleted = stack.graphql(delete, id=run["runId"])["deleteRun"]
            assert deleted["__typename"] == "DeletePipelineRunSuccess", deleted


@only(0)
def test_phase_1_answers_from_the_old_file_then_from_parquet_and_the_file_stays_usable(unscheduled, new):
    old = unscheduled
    wait_for(lambda: old.unfinished_runs() == 0, "the run of phase 0 has ended", seconds=RUN_SECONDS, every=1)
    expected = answers(old)
    forget_failures(old)

    # The backend of phase 1, while no build of phase 1 has run: it answers from the old file.
    old.run("stop", "dagster-daemon", "dagster-webserver")
    new.up("--no-deps", "backend")
    assert new.snapshot() is None
    assert answers(new) == expected
    before = last_refresh(new)

    # The daemon of phase 1 finds no snapshot and builds; the same backend goes over to Parquet by itself.
    new.up("dagster-daemon", "dagster-webserver")
    wait_for(new.snapshot, "the API serves a snapshot", seconds=RUN_SECONDS, details=lambda: new.logs("dagster-daemon"))
    wait_for(lambda: new.unfinished_runs() == 0, "the run has refreshed the file", seconds=RUN_SECONDS, every=1)
    assert answers(new) == expected
    refreshed = last_refresh(new)
    assert refreshed > before
    for path in ("/app/data/analytics.duckdb", "/app/data/parquet/intruder"):
        code, output = new.exec("backend", "touch", path)
        assert code != 0
        assert "Read-only file system" in output

    # The way back: the file that phase 1 wrote, under the phase-0 backend, has the same rows, types and order.
    code, listing = new.exec("dagster-daemon", "ls", "/opt/dagster/dagster_home/data")
    assert code == 0
    assert sorted(listing.split()) == ["analytics.duckdb", "analytics.duckdb.lock", "parquet"]
    old.up("--no-deps", "backend")
    assert old.snapshot() is None
    assert answers(old) == expected
    assert last_refresh(old) == refreshed
    with old.api() as api:
        described = {d["id"]: d for d in api.get("/api/analytics/datasets").json()["datasets"]}
    assert all(column["description"] for d in described.values() for column in d["columns"])
