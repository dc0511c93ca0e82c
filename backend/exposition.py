"""The metrics of several processes as those of one, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_OF_ALL = (
    # What each of them says of the same thing; all else is of each, and is added up.
    "analytics_snapshot_info",
    "analytics_data_age_seconds",
    "analytics_snapshot_switches",
    "analytics_degraded",
    "analytics_damage_found",
    "analytics_snapshots_held",
    "analytics_fallback_in_use",
    "analytics_builds_started",
    "analytics_builds_finished",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
)

_Key = tuple[str, tuple[tuple[str, str], ...]]


def merged(texts: Sequence[bytes]) -> bytes:
    """One text of several; of what is one thing for all, the largest value."""
    return generate_latest(_Collected(_added(texts)))


def _added(texts: Iterable[bytes]) -> list[Metric]:
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = values.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sample.labels.items())
                before = known.get(key, 0.0)
                known[key] = max(before, sample.value) if family.name in _OF_ALL else before + sample.value
    for name, family in families.items():
        for (of_sample, labels), value in values[name].items():
            family.add_sample(of_sample, dict(labels), value)
    return list(families.values())


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
