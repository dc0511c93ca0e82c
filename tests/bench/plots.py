"""Pictures of a run: ``python -m tests.bench.plots bench.json``, with the peers' Python, which has Matplotlib.

Of ``growth.json`` the curves.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.bench.figures import Spread
from tests.bench.points import Growth
from tests.bench.questions import QUESTIONS
from tests.bench.results import Results, Value

_FIGURES: dict[str, tuple[str, Value]] = {
    "rate": ("requests per second", lambda cell: cell.rate),
    "p99": ("p99 in ms", lambda cell: cell.p99),
    "cpu": ("ms of a processor per request", lambda cell: cell.cpu),
}


def draw(path: Path) -> None:
    """An SVG of each figure beside ``path``: a panel for each question, a bar for each peer and connections."""
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same figures make the same file
    results = Results.read(path)
    questions = results.measured(QUESTIONS, "question")
    peers = list(dict.fromkeys(cell.peer for cell in results.cells))
    for name, (title, value) in _FIGURES.items():
        figure, panels = plt.subplots(
            1, len(questions), figsize=(3.2 * len(questions), 4.5), sharey=True, squeeze=False
        )
        for panel, question in zip(panels[0], questions, strict=True):
            _panel(panel, results, question, peers, value)
        panels[0][0].set_yticks(range(len(peers)), peers)
        panels[0][0].invert_yaxis()
        panels[0][-1].legend(title="connections", fontsize="small")
        figure.suptitle(f"{title}: median, and from the least to the most of all rounds")
        figure.tight_layout()
        figure.savefig(path.with_name(f"{path.stem}-{name}.svg"), metadata={"Date": None})
        plt.close(figure)


def draw_growth(path: Path) -> None:
    """An SVG of each curve beside ``path``: a panel for each figure, both axes logarithmic."""
    mpl.rcParams["svg.hashsalt"] = "bench"
    growth = Growth.read(path)
    for curve in ("rows", "datasets"):
        names, sizes = growth.figures(curve), growth.places(curve)
        if not names:
            continue
        columns = 5
        figure, panels = plt.subplots(-(-len(names) // columns), columns, figsize=(16, 9), sharex=True)
        for panel, name in zip(panels.flat, names, strict=False):
            spreads = [growth.spread(curve, name, size) for size in sizes]
            found = {size: spread for size, spread in zip(sizes, spreads, strict=True) if spread}
            medians = [spread.median for spread in found.values()]
            panel.errorbar(list(found), medians, yerr=_errors(list(found.values())), marker="o", capsize=2)
            panel.set_xscale("log")
            panel.set_yscale("log")
            # A tenfold of room each way: what does not grow looks flat, whatever the noise.
            panel.set_ylim(min(medians) / 10, max(medians) * 10)
            panel.set_title(name, fontsize="small")
        for panel in panels.flat[len(names) :]:
            panel.set_visible(False)
        figure.suptitle(f"by {curve}: median, and from the least to the most of all rounds")
        figure.tight_layout()
        figure.savefig(path.with_name(f"{path.stem}-{curve}.svg"), metadata={"Date": None})
        plt.close(figure)


def _panel(panel: plt.Axes, results: Results, question: str, peers: list[str], value: Value) -> None:
    height = 0.8 / len(results.connections)
    for number, connections in enumerate(results.connections):
        found = {
            place: spread
            for place, peer in enumerate(peers)
            if (spread := results.spread(peer, question, connections, value)) is not None
        }
        panel.barh(
            [place + (number - (len(results.connections) - 1) / 2) * height for place in found],
            [spread.median for spread in found.values()],
            height,
            xerr=_errors(list(found.values())),
            error_kw={"linewidth": 0.8},
            label=str(connections),
        )
    panel.set_xscale("log")
    panel.set_title(question)


def _errors(spreads: list[Spread]) -> list[list[float]]:
    return [[spread.median - spread.low for spread in spreads], [spread.high - spread.median for spread in spreads]]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    (draw_growth if file.stem == "growth" else draw)(file)
