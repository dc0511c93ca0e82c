"""Percentiles of latencies, and what several rounds say of a number: its median, and how far they are apart."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A number measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])

    @classmethod
    def of_ratios(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
        """Of each round's ratio: the two were measured right after one another, and a busy minute slowed both."""
        return cls.of(above / below for above, below in zip(numerators, denominators, strict=True))

    def apart(self, other: Spread) -> bool:
        """Whether no round of one reached what every round of the other did."""
        return self.low > other.high or self.high < other.low


def percentile(latencies: Counter[int], share: float) -> int:
    """The smallest latency that at least this share of all were not slower than (nearest rank)."""
    rank = max(1, math.ceil(share * latencies.total()))
    for latency in sorted(latencies):
        rank -= latencies[latency]
        if rank <= 0:
            return latency
    raise ValueError("there is no percentile of no latencies")


def uncorrected(pairs: Iterable[tuple[int, int]], interval: int) -> Counter[int]:
    """The latencies that wrk measured, of those that it reports.

    wrk takes it that one request was due every ``interval``, and adds what those would have waited that a slow answer
    kept from being sent: for each latency of at least twice that, the same less one interval, less two, and so on, as
    long as more than one is left. A closed loop has no such requests. Undone from the slowest to the fastest, each
    count is what it was before.
    """
    found = Counter(dict(pairs))
    for latency in sorted(found, reverse=True):
        count = found[latency]
        added = latency - interval
        while latency >= 2 * interval and count and added > interval:
            found[added] -= count
            added -= interval
    return +found
