"""What a run of ``growth`` measured: numbers along curves, as records that are written to a file and read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.bench.figures import Spread
from tests.bench.results import Written

At = int | str


@dataclass(frozen=True)
class Point:
    """A ``figure``, which ends with its unit, of one round; ``at`` is a size on the ``curve``, or who was measured."""

    curve: str
    figure: str
    at: At
    value: float


@dataclass
class Growth(Written):
    """All points of a run, those of one figure and place in the order of the rounds."""

    environment: dict[str, str]
    points: list[Point] = field(default_factory=list)

    def figures(self, curve: str) -> list[str]:
        """Those of the curve."""
        return list(dict.fromkeys(point.figure for point in self.points if point.curve == curve))

    def places(self, curve: str) -> list[At]:
        """Sizes or names on the curve, as they were measured."""
        return list(dict.fromkeys(point.at for point in self.points if point.curve == curve))

    def spread(self, curve: str, figure: str, at: At) -> Spread | None:
        """Of all rounds; None where it was not measured."""
        values = self._values(curve, figure, at)
        return Spread.of(values) if values else None

    def ratio(self, curve: str, figure: str, at: At, by: At) -> Spread | None:
        """What is measured at one place by what is at another, round by round."""
        above, below = (self._values(curve, figure, place) for place in (at, by))
        rounds = min(len(above), len(below))  # a run that was broken off has a round of some
        return Spread.of_ratios(above[:rounds], below[:rounds]) if rounds else None

    def bends(self, curve: str, figure: str) -> Iterator[tuple[At, float]]:
        """Sizes at which it is more than twice what it is at the size before, and how many times that."""
        places = self.places(curve)
        for before, at in pairwise(places):
            found = self.ratio(curve, figure, at, before)
            if found and found.median > 2:
                yield at, found.median

    def _values(self, curve: str, figure: str, at: At) -> list[float]:
        wanted = (curve, figure, at)
        return [point.value for point in self.points if (point.curve, point.figure, point.at) == wanted]

    @classmethod
    def read(cls, path: Path) -> Growth:
        """What ``write`` wrote. Raises KeyError for the figures of another kind of run."""
        found = json.loads(path.read_text())
        return cls(found["environment"], [Point(**point) for point in found["points"]])
