"""What /metrics says, and that deploy/ALERTS.md speaks of just that."""

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend import tally
from backend.filepaths import REPO_ROOT

from .api import QUERY, bearer, open_api
from .marts import publish

ALERTS = (REPO_ROOT / "deploy/ALERTS.md").read_text(encoding="utf-8")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
MANY = "/api/analytics/query"


def families(client):
    return list(text_string_to_metric_families(client.get("/metrics").text))


def samples(client, name):
    """Labels, as sorted pairs, and value of every sample of that name."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families(client)
        for sample in family.samples
        if sample.name == name
    }


def by(client, name, label):
    return {dict(labels)[label]: value for labels, value in samples(client, name).items()}


# --- requests ---------------------------------------------------------------------------------------------------------
def test_requests_are_counted_per_dataset_that_exists(client):
    other = "/api/analytics/datasets/dim_categories/query"
    for path in (
        QUERY,
        f"{QUERY}?nope=eq.1",
        other,
        "/api/analytics/datasets/made-up/query",
        "/api/analytics/datasets",
    ):
        client.get(path, headers=bearer(1))
    client.get(QUERY)  # nobody's
    both = [{"dataset": "dim_categories"}, {"dataset": "fct_transactions"}, {"dataset": "dim_categories"}]
    client.post(MANY, json={"queries": both}, headers=bearer(1))
    client.post(MANY, json={"queries": [{"dataset": "made-up-too"}]}, headers=bearer(1))
    assert samples(client, "analytics_dataset_requests_total") == {
        (("dataset", "dim_categories"), ("status", "200")): 2,
        (("dataset", "fct_transactions"), ("status", "200")): 2,
        (("dataset", "fct_transactions"), ("status", "400")): 1,
    }
    counts = by(client, "analytics_dataset_request_duration_seconds_count", "dataset")
    assert counts == {"dim_categories": 2, "fct_transactions": 3}


def test_nothing_that_callers_make_up_becomes_a_label(client):
    for number in range(3):
        client.request(f"ZZZ{number}", "/api/analytics/datasets")
        client.get(f"/zzz/{number}", headers=bearer(1))
        client.get(f"/api/analytics/datasets/zzz-{number}/query?zzz{number}=up", headers=bearer(1))
        client.get(QUERY, headers={"Authorization": f"Bearer zzz-{number}"})
    assert "zzz" not in client.get("/metrics").text.lower()
    assert set(by(client, "http_requests_total", "method")) == {"GET", "other"}


# --- what is served ---------------------------------------------------------------------------------------------------
def test_switches_are_counted_there_and_back(store, client):
    first = store.current_id()
    for _ in range(2):
        client.get(QUERY, headers=bearer(1))
    assert samples(client, "analytics_snapshot_switches_total") == {(): 0}
    second = publish(store, 2).id
    for _ in range(2):
        client.get(QUERY, headers=bearer(1))
    assert samples(client, "analytics_snapshot_switches_total") == {(): 1}
    store.rollback(first, holder="test")
    client.get(QUERY, headers=bearer(1))
    client.get(f"{QUERY}?snapshot={second}", headers=bearer(1))
    assert samples(client, "analytics_snapshot_switches_total") == {(): 2}
    assert by(client, "analytics_snapshot_info", "snapshot") == {first: 1}


def test_another_try_at_the_same_snapshot_is_no_switch(store, client):
    client.get(QUERY, headers=bearer(1))
    generations = client.app.state.database._generations
    generations.discard(generations.current)
    client.get(QUERY, headers=bearer(1))
    assert samples(client, "analytics_snapshot_switches_total") == {(): 0}


# --- builds -----------------------------------------------------------------------------------------------------------
def test_builds_are_told_as_the_pipeline_counts_them(store, client):
    assert samples(client, "analytics_builds_started_total") == {}
    for event in (tally.STARTED, tally.PUBLISHED, tally.STARTED, tally.AUDIT_REFUSED):
        tally.add(store.root, event)
    assert samples(client, "analytics_builds_started_total") == {(): 2}
    assert by(client, "analytics_builds_finished_total", "outcome") == {
        "published": 1,
        "audit_refused": 1,
        "test_failed": 0,
        "failed": 0,
    }


@pytest.mark.parametrize("content", ["", "{", "[]", '{"started": "x"}', json.dumps({"started": 10**400})])
def test_damaged_counts_fail_no_scrape(store, client, content):
    (store.root / tally.FILE_NAME).write_text(content)
    assert client.get("/metrics").status_code == 200
    assert samples(client, "analytics_builds_started_total") == {}


def test_phase_0_has_no_counts_of_builds(duckdb_file):
    client, _ = open_api(duckdb_path=duckdb_file)
    assert client.get("/metrics").status_code == 200
    assert samples(client, "analytics_builds_started_total") == {}


# --- the documentation ------------------------------------------------------------------------------------------------
def exposed(client):
    """Name -> type and labels, of everything that /metrics can have."""
    found = {}
    for family in families(client):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type
    return found


def alerts():
    """Name -> text, of each alert."""
    _, text = ALERTS.split("\n## Alerts\n")
    text, _ = text.split("\n## Metrics\n")
    return dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL))


def expression(text):
    (found,) = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    return found


def test_every_metric_is_documented_and_every_documented_one_is_there(client):
    documented = re.findall(r"^\| `(\w+)` \|", ALERTS.split("\n## Metrics\n")[1], re.MULTILINE)
    assert sorted(documented) == sorted(exposed(client))


def test_what_is_documented_of_labels_is_so(client):
    client.get(QUERY, headers=bearer(1))
    client.get(QUERY)
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", ALERTS.split("\n## Metrics\n")[1], re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for family in families(client):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == documented[name], name


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_when_what_and_what_to_do(name):
    assert expression(alerts()[name]).strip()
    for part in ("For", "Means", "Do"):
        assert re.search(rf"^- \*\*{part}:\*\* \S", alerts()[name], re.MULTILINE), part


@pytest.mark.parametrize("name", alerts())
def test_every_metric_of_an_alert_exists_with_its_labels_and_outcomes(client, name):
    client.get(QUERY, headers=bearer(1))
    possible = {
        f"{name.removesuffix('_total') if kind == 'counter' else name}{suffix}"
        for name, kind in exposed(client).items()
        for suffix in SUFFIXES[kind]
    }
    promql = expression(alerts()[name])
    named = set(re.findall(r"\b(?:http|analytics|process)_\w+", promql))
    assert named <= possible
    assert named or "up{" in promql
    assert promql.count('{job="analytics"') == len(
        re.findall(r"\b(?:(?:http|analytics|process)_\w+|up)\b(?=\{)", promql)
    )
    known = {"fetched", "failed"} if "jwks" in promql else set(tally.OUTCOMES)
    for outcomes in re.findall(r'outcome=~?"([^"]+)"', promql):
        assert set(outcomes.split("|")) <= known


def test_there_are_alerts_on_what_matters_most():
    assert {"ApiDown", "DataStale", "AnalyticsDegraded", "ChecksumFailed", "BuildRefused", "BuildFailed"} <= set(
        alerts()
    )
