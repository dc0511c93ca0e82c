"""The metrics of several processes as those of one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from backend.exposition import merged


def text(requests, age, seconds):
    registry = CollectorRegistry()
    counter = Counter("http_requests", "Requests.", ["route"], registry=registry)
    for route, count in requests.items():
        counter.labels(route).inc(count)
    Gauge("analytics_data_age_seconds", "Age.", registry=registry).set(age)
    Gauge("analytics_queries_running", "Running.", registry=registry).set(1)
    latency = Histogram("duration_seconds", "Time.", buckets=(1, 10), registry=registry)
    for value in seconds:
        latency.observe(value)
    return generate_latest(registry)


def test_what_is_of_each_is_added_up_and_what_is_of_all_is_not():
    found = merged([text({"a": 2, "b\\n": 1}, 7, [0.5, 5]), text({"a": 3}, 8.5, [50])])
    assert found == text({"a": 5, "b\\n": 1}, 8.5, [0.5, 5, 50]).replace(
        b"analytics_queries_running 1.0", b"analytics_queries_running 2.0"
    )


def test_of_one_it_is_the_same():
    assert merged([text({"a": 2}, 7, [0.5])]) == text({"a": 2}, 7, [0.5])
