"""The metrics of several processes as those of one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from backend.exposition import merged


def text(requests, age, seconds):
    registry = CollectorRegistry()
    counter = Counter("http_requests", "Requests.", ["route"], registry=registry)
    for route, count in requests.items():
        counter.labels(route).inc(count)
    Gauge("analytics_data_age_seconds", "Age.", registry=registry).set(age)
    Gauge("analytics_queries_running", "Running.", registry=registry).set(2)
    latency = Histogram("duration_seconds", "Time.", buckets=(1, 10), registry=registry)
    for value in seconds:
        latency.observe(value)
    return generate_latest(registry)


def values(exposition, name):
    families = text_string_to_metric_families(exposition.decode())
    return {tuple(sorted(s.labels.items())): s.value for family in families for s in family.samples if s.name == name}


def test_gauges_are_added_up_what_is_of_all_is_not_and_counters_are_kept_apart():
    found = merged({0: text({"a": 2, "b\\\n": 1}, 7, [0.5, 5]), 2: text({"a": 3}, 8.5, [50])})
    assert values(found, "analytics_queries_running") == {(): 4}
    assert values(found, "analytics_data_age_seconds") == {(): 8.5}
    assert values(found, "http_requests_total") == {
        (("route", "a"), ("worker", "0")): 2,
        (("route", "b\\\n"), ("worker", "0")): 1,
        (("route", "a"), ("worker", "2")): 3,
    }
    assert values(found, "duration_seconds_bucket") == {
        (("le", le), ("worker", worker)): count
        for worker, counts in (("0", (1, 2, 2)), ("2", (0, 0, 1)))
        for le, count in zip(("1.0", "10.0", "+Inf"), counts, strict=True)
    }


def test_no_counter_goes_back_when_another_takes_the_place_of_one():
    """To Prometheus that is the restart of this one's counters, and of no other's."""
    before = values(merged({0: text({"a": 3}, 1, []), 1: text({"a": 1}, 1, [])}), "http_requests_total")
    after = values(merged({0: text({"a": 3}, 1, []), 1: text({}, 1, [])}), "http_requests_total")
    assert before[("route", "a"), ("worker", "0")] == after[("route", "a"), ("worker", "0")] == 3
    assert (("route", "a"), ("worker", "1")) not in after
