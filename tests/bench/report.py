"""A run as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.bench.figures import Spread
from tests.bench.peers import PEERS
from tests.bench.questions import QUESTIONS
from tests.bench.results import Cell, Results
from tests.bench.targets import BESIDE_A_BUILD, TARGETS

OUTPUT = Path(__file__).with_name("output")
_ANCHOR = "plan"
NONE = "-"

_COLUMNS: tuple[tuple[str, Callable[[Cell], float]], ...] = (
    ("p50 ms", lambda cell: cell.p50),
    ("p99 ms", lambda cell: cell.p99),
    ("CPU ms each", lambda cell: cell.cpu),
    ("MB", lambda cell: cell.memory),
)


def written(results: Results, directory: Path, name: str = "bench") -> Path:
    """The report and the figures it is made of, as ``<name>.md`` and ``<name>.json``; path of the former."""
    results.write(directory / f"{name}.json")
    path = directory / f"{name}.md"
    path.write_text(markdown(results))
    return path


def markdown(results: Results) -> str:
    """The whole report."""
    parts = ["# Benchmarks", listed(results.environment)]
    if results.cells:
        parts += ["## Targets", _targets(results)]
    if results.building:
        parts += ["## While a build runs", building(results)]
    for connections in results.connections:
        parts += [f"## Requests per second, {connections} connection{'s' * (connections > 1)}"]
        parts += [_overview(results, connections)]
    for connections in results.connections:
        for question in results.measured(QUESTIONS, "question"):
            title = QUESTIONS[question].title
            parts += [f"### {question}: {title}, {connections} connection{'s' * (connections > 1)}"]
            parts += [_details(results, question, connections)]
    return "\n\n".join(parts) + "\n"


def figure(value: float) -> str:
    """Three digits of it."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(found: Spread | None) -> str:
    """Median, and from where to where."""
    return f"{figure(found.median)} ({figure(found.low)}..{figure(found.high)})" if found else NONE


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def listed(environment: dict[str, str]) -> str:
    """As a list of Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in environment.items())


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        found = target.measured(results)
        verdict = ("met" if target.met(found) else "**not met**") if found else "not measured"
        rows.append((target.text, spread(found), verdict))
    return table(("target", "measured, median (from..to)", ""), rows)


def building(results: Results) -> str:
    """What a build beside it did to ours."""
    rows = []
    for target in BESIDE_A_BUILD:
        found = results.building[target.figure]
        rows.append((target.text, figure(found), "met" if target.met(found) else "**not met**"))
    lines = [table(("target", "measured", ""), rows), ""]
    lines += [f"- {name}: {figure(value)}" for name, value in results.building.items()]
    return "\n".join(lines)


def _overview(results: Results, connections: int) -> str:
    questions = results.measured(QUESTIONS, "question")
    rows = []
    for peer in results.measured(PEERS, "peer"):
        found = [results.spread(peer, question, connections, lambda cell: cell.rate) for question in questions]
        rows.append((peer, *(figure(rate.median) if rate else NONE for rate in found)))
    return table(("", *questions), rows)


def _details(results: Results, question: str, connections: int) -> str:
    anchor = (_ANCHOR, "Q5" if question == "Q5 Arrow" else question)
    rows = []
    for peer in results.measured(PEERS, "peer"):
        if not results.of(peer, question, connections):
            continue
        ratio = results.ratio((peer, question), anchor, connections, lambda cell: cell.rate)
        figures = [results.spread(peer, question, connections, value) for _, value in _COLUMNS]
        rows.append(
            (
                peer,
                spread(results.spread(peer, question, connections, lambda cell: cell.rate)),
                spread(ratio),
                *(figure(found.median) for found in figures if found),
            )
        )
    return table(("", "requests/s", "by plan", *(name for name, _ in _COLUMNS)), rows)
