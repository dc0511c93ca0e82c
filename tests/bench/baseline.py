"""What changed since a run that was saved, beyond what rounds of one run differ by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.figures import Spread
from tests.bench.questions import QUESTIONS
from tests.bench.report import spread, table
from tests.bench.results import Results, Value
from tests.bench.targets import CACHED, UNCACHED

_LEAST = 0.05  # a change of less is not worth a word, however sure
_ROUNDS = 5
"""Of either run. Five and five that differ only by chance are apart once in 126 times; two and two, once in three."""
_NOTHING = "- nothing changed beyond noise"
_TOO_FEW = f"- nothing can be told of fewer than {_ROUNDS} rounds of each"
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
    rounds: int

    @property
    def factor(self) -> float:
        """How much larger it is now."""
        return self.now.median / self.then.median

    @property
    def certain(self) -> bool:
        """Whether no round of now is among those of then, of which there are enough, and by more than a trifle."""
        return self.rounds >= _ROUNDS and self.now.apart(self.then) and abs(self.factor - 1) > _LEAST


FIGURES: dict[str, Value] = {
    "requests/s": lambda cell: cell.rate,
    "CPU per request": lambda cell: cell.cpu,
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
                    rounds = min(len(run.of(peer, question, connections)) for run in (then, now))
                    if before and after:
                        found.append(Change(peer, question, name, before, after, rounds))
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
            *(said or [_NOTHING if any(c.rounds >= _ROUNDS for c in found) else _TOO_FEW]),
            "",
            table(header, rows),
        ]
    )
