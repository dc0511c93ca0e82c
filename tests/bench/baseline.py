"""What changed since a run that was saved, beyond what rounds of one run differ by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.figures import Spread
from tests.bench.questions import QUESTIONS
from tests.bench.report import spread, table
from tests.bench.results import Results, Value
from tests.bench.targets import CACHED, UNCACHED

_LEAST = 0.05  # a change of less is not worth a word, however sure
ANCHORS = {UNCACHED: "plan", CACHED: "constant"}
"""What each of ours is compared with in its own run: a machine that is slower today slows both."""


@dataclass(frozen=True)
class Change:
    """A figure of ours by its anchor's, then and now."""

    peer: str
    question: str
    figure: str
    then: Spread
    now: Spread

    @property
    def factor(self) -> float:
        """How much larger it is now."""
        return self.now.median / self.then.median

    @property
    def certain(self) -> bool:
        """Whether no round of now reached what all rounds of then did, and by more than a trifle."""
        return self.now.apart(self.then) and abs(self.factor - 1) > _LEAST


FIGURES: dict[str, Value] = {
    "requests/s": lambda cell: cell.rate,
    "CPU per request": lambda cell: cell.cpu,
    "p99": lambda cell: cell.p99,
}


def changes(then: Results, now: Results) -> list[Change]:
    """Every figure that both runs have."""
    found = []
    for peer, anchor in ANCHORS.items():
        for question in QUESTIONS:
            below = (anchor, "Q5" if question == "Q5 Arrow" and anchor == "plan" else question)
            for name, value in FIGURES.items():
                for connections in now.connections:
                    before, after = (run.ratio((peer, question), below, connections, value) for run in (then, now))
                    if before and after:
                        found.append(Change(peer, question, name, before, after))
    return found


def text(then: Results, now: Results) -> str:
    """Which changes are certain, and all figures, as Markdown."""
    found = changes(then, now)
    certain = [change for change in found if change.certain]
    said = [f"- {c.peer}, {c.question}: {c.figure} {c.factor:.2f} times what it was" for c in certain]
    rows = [
        (c.peer, c.question, c.figure, spread(c.then), spread(c.now), f"{c.factor:.2f}{' **!**' if c.certain else ''}")
        for c in found
    ]
    header = ("", "", "by its anchor's", "then", "now", "now by then")
    return "\n".join(
        [
            f"Against the baseline of {then.environment['commit']}, {then.environment['date']}:",
            "",
            *(said or ["- nothing changed beyond noise"]),
            "",
            table(header, rows),
        ]
    )
