"""Every phase, from nothing: it comes up by itself, builds, and answers alike."""

import threading
from collections import Counter
from datetime import datetime

import httpx
import pytest
from playwright.sync_api import expect

from tests.page.promises import Promises, cells, rows, sign_in
from tests.page.site import Site

from .reference import DATASETS, QUERIES, comparable
from .stack import wait_for

READERS = 4
PACE_SECONDS = 0.2  # between two reads of a client: the build shares two cores with them


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


class TestPage(Promises):
    """What the page promises, in a browser on the gateway."""


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
