"""The metrics of several processes as those of one, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_OF_ALL = (
    # What each of them says of the same thing.
    "analytics_snapshot_info",
    "analytics_data_age_seconds",
    "analytics_snapshot_switches",
    "analytics_degraded",
    "analytics_damage_found",
    "analytics_snapshots_held",
    "analytics_tables",
    "analytics_fallback_in_use",
    "analytics_builds_started",
    "analytics_builds_finished",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
)

_COUNTED = ("counter", "histogram")
"""Kept apart by a label, or the sum would go back when one is replaced, and a rate take that for a new beginning."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


def merged(texts: Mapping[int, bytes]) -> bytes:
    """One text of those of some workers, by their numbers.

    What is counted has a label ``worker``; of what is one thing for all it is the largest value; all else is added up.
    """
    return generate_latest(_Collected(_added(texts)))


def _added(texts: Mapping[int, bytes]) -> list[Metric]:
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = values.setdefault(family.name, {})
            of_all = family.name in _OF_ALL
            apart = {"worker": str(worker)} if family.type in _COUNTED and not of_all else {}
            for sample in family.samples:
                key = sample.name, tuple((apart | sample.labels).items())
                before = known.get(key, 0.0)
                known[key] = max(before, sample.value) if of_all else before + sample.value
    for name, family in families.items():
        for (of_sample, labels), value in values[name].items():
            family.add_sample(of_sample, dict(labels), value)
    return list(families.values())


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
