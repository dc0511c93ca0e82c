"""What a run measured, as records that are written to a file and read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.figures import Spread


@dataclass(frozen=True)
class Cell:
    """One load in one round; times are milliseconds, of the processor per request; memory is the peak, in MB."""

    peer: str
    question: str
    connections: int
    round: int
    answers: int
    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float


Value = Callable[[Cell], float]


class Written:
    """Records of one kind of run, a dataclass, as they lie in a file."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


@dataclass
class Results(Written):
    """All cells of a run; ``environment`` says where and when, ``building`` is what a build beside it did."""

    environment: dict[str, str]
    cells: list[Cell] = field(default_factory=list)
    building: dict[str, float] = field(default_factory=dict)

    def of(self, peer: str, question: str, connections: int) -> list[Cell]:
        """That cell in each round; empty where it was not measured."""
        wanted = (peer, question, connections)
        found = [cell for cell in self.cells if (cell.peer, cell.question, cell.connections) == wanted]
        return sorted(found, key=lambda cell: cell.round)

    def spread(self, peer: str, question: str, connections: int, value: Value) -> Spread | None:
        """One figure of that cell over all rounds."""
        cells = self.of(peer, question, connections)
        return Spread.of(map(value, cells)) if cells else None

    def ratio(self, one: tuple[str, str], other: tuple[str, str], connections: int, value: Value) -> Spread | None:
        """One peer's figure by another's, each (peer, question), round by round."""
        above, below = (self.of(*cell, connections) for cell in (one, other))
        if not above or not below:
            return None
        return Spread.of_ratios([value(cell) for cell in above], [value(cell) for cell in below])

    def measured(self, among: Iterable[str], name: str) -> list[str]:
        """Those of ``among`` that occur as a cell's ``name``, in that order."""
        there = {getattr(cell, name) for cell in self.cells}
        return [one for one in among if one in there]

    @property
    def connections(self) -> Sequence[int]:
        """Numbers of connections, ascending."""
        return sorted({cell.connections for cell in self.cells})

    @classmethod
    def read(cls, path: Path) -> Results:
        """What ``write`` wrote."""
        found = json.loads(path.read_text())
        return cls(found["environment"], [Cell(**cell) for cell in found["cells"]], found["building"])
