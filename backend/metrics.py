"""Prometheus metrics of one app, in a registry of its own. What each means, and when to worry: deploy/ALERTS.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend import tally
from backend.api.analytics.kept import KeptAnswers
from backend.duckdb.client import Database
from backend.keys import Keys

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """What is counted per request, and what the database says of itself when scraped."""

    def __init__(self, database: Database, keys: Keys, answers: KeptAnswers) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "http_request_duration_seconds",
            "Time until the answer was sent.",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.refused = Counter(
            "analytics_refused", "Errors answered, by the code in their envelope.", ["code"], registry=self.registry
        )
        self.dataset_requests = Counter(
            "analytics_dataset_requests",
            "Requests answered that ask for rows of the dataset; one for several datasets counts for each.",
            ["dataset", "status"],
            registry=self.registry,
        )
        self.dataset_latency = Histogram(
            "analytics_dataset_request_duration_seconds",
            "Time until the answer to such a request was sent, all of it.",
            ["dataset"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge("analytics_queries_running", "Requests whose queries run now.", registry=self.registry)
        self.queued = Gauge("analytics_queries_queued", "Requests that wait for their turn.", registry=self.registry)
        self.registry.register(_DatabaseCollector(database))
        self.registry.register(_BuildCollector(database))
        self.registry.register(_KeysCollector(keys))
        self.registry.register(_AnswersCollector(answers))
        ProcessCollector(registry=self.registry)

    def observe(
        self,
        *,
        method: str,
        route: str,
        datasets: Iterable[str],
        status: int,
        seconds: float,
        error_code: str | None,
    ) -> None:
        """Count one answered request.

        Nothing that callers make up becomes a label: ``route`` is the template, ``datasets`` names such as exist.
        """
        method = method if method in _METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.latency.labels(method, route).observe(seconds)
        for dataset in datasets:
            self.dataset_requests.labels(dataset, str(status)).inc()
            self.dataset_latency.labels(dataset).observe(seconds)
        if error_code:
            self.refused.labels(error_code).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _DatabaseCollector(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        status = self._database.status()
        info = GaugeMetricFamily("analytics_snapshot_info", "1 for the snapshot served.", labels=["snapshot"])
        if status.snapshot:
            info.add_metric([status.snapshot], 1)
        yield info
        age = GaugeMetricFamily("analytics_data_age_seconds", "Since what is served was made.", labels=[])
        if status.last_refresh:
            age.add_metric([], (datetime.now(UTC) - status.last_refresh).total_seconds())
        yield age
        yield CounterMetricFamily(
            "analytics_snapshot_switches",
            "Times that another snapshot came to be served than before.",
            value=status.switches,
        )
        yield GaugeMetricFamily(
            "analytics_generations_open", "DuckDB instances open on snapshots.", value=status.generations_open
        )
        yield GaugeMetricFamily(
            "analytics_degraded",
            "1 while what is served is not what the pointer names, or its files are damaged.",
            value=status.problem is not None,
        )
        yield CounterMetricFamily(
            "analytics_damage_found",
            "Times a snapshot was found not to be what was published.",
            value=status.damage_found,
        )
        yield GaugeMetricFamily(
            "analytics_snapshots_held", "Snapshots kept for page cursors.", value=status.snapshots_held
        )
        yield GaugeMetricFamily(
            "analytics_resident_bytes", "Verified copies of marts in memory.", value=status.resident_bytes
        )
        yield GaugeMetricFamily("analytics_tables", "Marts that are tables in memory.", value=status.tables)
        yield GaugeMetricFamily(
            "analytics_table_bytes",
            "Memory of those tables, of those of users, and of rows kept beside them.",
            value=status.table_bytes,
        )
        yield GaugeMetricFamily(
            "analytics_fallback_in_use", "1 while the DuckDB file is served.", value=status.fallback_in_use
        )
        yield CounterMetricFamily(
            "analytics_lock_retries", "Waits for a DuckDB file that a build held.", value=status.lock_retries
        )


class _BuildCollector(Collector):
    """What became of builds, which run elsewhere; nothing where marts are tables of a DuckDB file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        started = CounterMetricFamily("analytics_builds_started", "Builds that were begun.", labels=[])
        finished = CounterMetricFamily(
            "analytics_builds_finished", "Builds that came to an end, by what came of them.", labels=["outcome"]
        )
        if counts := self._database.builds():
            started.add_metric([], counts[tally.STARTED])
            for outcome in tally.OUTCOMES:
                finished.add_metric([outcome], counts[outcome])
        yield started
        yield finished


class _KeysCollector(Collector):
    def __init__(self, keys: Keys) -> None:
        self._published = keys.published

    def collect(self) -> Iterator[Metric]:
        fetches = CounterMetricFamily(
            "analytics_jwks_fetches", "Attempts to fetch the keys of API_JWKS_URL.", labels=["outcome"]
        )
        if self._published:
            fetches.add_metric(["fetched"], self._published.fetched)
            fetches.add_metric(["failed"], self._published.failed)
        yield fetches


class _AnswersCollector(Collector):
    def __init__(self, answers: KeptAnswers) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "analytics_answers", "Answers of data as JSON, by where they came from.", labels=["source"]
        )
        answers.add_metric(["kept"], self._answers.found)
        answers.add_metric(["query"], self._answers.made)
        yield answers
        yield GaugeMetricFamily(
            "analytics_kept_answers_bytes", "Memory of the answers that are kept.", value=self._answers.size
        )
