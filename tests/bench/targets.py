"""What has to be reached, as ratios within one run, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.figures import Spread
from tests.bench.results import Results

CONNECTIONS = 8
CROWD = 32
_CALM = 3.0  # times the median that the slowest one in a hundred may take

OTHERS = ("plan", "shared file", "ROAPI", "datasette", "PostgreSQL", "polars")
UNCACHED, CACHED = "ours", "ours, cached"
ANCHORED = ("plan", UNCACHED, CACHED, "constant")
"""Ours, and what each of the two is compared with when nothing else is measured."""
_OF_A_USER = ("Q1", "Q2")
_SMALL = ("Q1", "Q2", "Q3", "Q4")
_JSON = (*_SMALL, "Q5")


@dataclass(frozen=True)
class Target:
    """The rate of ``one`` by that of each of ``others``, all (peer, question), has to be at least ``bound``."""

    one: tuple[str, str]
    others: tuple[tuple[str, str], ...]
    bound: float

    @property
    def text(self) -> str:
        """What is wanted."""
        peers = self.others[0][0] if len(self.others) == 1 else "every other peer"
        as_json = " (its JSON)" if self.one[1] != self.others[0][1] else ""
        return f"{self.one[0]}, {self.one[1]}: at least {self.bound:g} times {peers}{as_json}"

    def measured(self, results: Results) -> Spread | None:
        """The ratio, the worst of several; None where any of it was not measured."""
        found = [results.ratio(self.one, other, CONNECTIONS, lambda cell: cell.rate) for other in self.others]
        ratios = [ratio for ratio in found if ratio]
        return min(ratios, key=lambda ratio: ratio.median) if len(ratios) == len(found) else None

    def met(self, found: Spread) -> bool:
        """Whether that is enough."""
        return found.median >= self.bound


@dataclass(frozen=True)
class Calm:
    """With many connections the slowest one in a hundred answers takes at most ``bound`` times the median."""

    peer: str
    question: str
    bound: float = _CALM

    @property
    def text(self) -> str:
        """What is wanted."""
        return f"{self.peer}, {self.question}: p99 at {CROWD} connections at most {self.bound:g} times p50"

    def measured(self, results: Results) -> Spread | None:
        """The ratio; None where it was not measured."""
        return results.spread(self.peer, self.question, CROWD, lambda cell: cell.p99 / cell.p50)

    def met(self, found: Spread) -> bool:
        """Whether that is enough."""
        return found.median <= self.bound


def _against(peer: str, bounds: dict[str, float]) -> list[Target]:
    return [Target((UNCACHED, question), ((peer, question),), bound) for question, bound in bounds.items()]


TARGETS: tuple[Target | Calm, ...] = (
    *_against("plan", {"Q1": 20, "Q2": 20, "Q3": 8, "Q4": 12, "Q5": 60}),
    Target((UNCACHED, "Q5 Arrow"), (("plan", "Q5"),), 120),
    *_against("ROAPI", dict.fromkeys((*_JSON, "Q5 Arrow"), 2)),
    *_against("PostgreSQL", {"Q1": 0.5, "Q2": 0.5, "Q3": 6, "Q4": 0.35, "Q5": 3}),
    *_against("polars", dict.fromkeys((*_OF_A_USER, "Q5"), 1)),
    *(Target((CACHED, question), (("constant", question),), 0.5) for question in _SMALL),
    *(Target((CACHED, question), tuple((other, question) for other in OTHERS), 1) for question in _JSON),
    *(Calm(peer, question) for peer in (UNCACHED, CACHED) for question in (*_JSON, "Q5 Arrow")),
)


@dataclass(frozen=True)
class BesideABuild:
    """While a build runs: ``measured`` is a figure of ``Results.building``."""

    figure: str
    text: str
    bound: float
    at_least: bool = False

    def met(self, found: float) -> bool:
        """Whether that is enough."""
        return found >= self.bound if self.at_least else found <= self.bound


BESIDE_A_BUILD = (
    BesideABuild("p99 ratio", "p99 at most 2 times that without a build", 2),
    BesideABuild("rate ratio", "at least 0.6 times the requests per second without a build", 0.6, at_least=True),
    BesideABuild("visible seconds", "a publish is in every answer within 1 s", 1),
)
