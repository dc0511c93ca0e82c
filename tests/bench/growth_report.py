"""A run of ``growth`` as Markdown: targets, curves, and where they bend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Spread
from tests.bench.points import Growth
from tests.bench.report import NONE, figure, listed, spread, table

_CURVES = {"rows": "Rows of a mart", "datasets": "Datasets"}
_BUDGET_MB = 2147
"""``mem_limit`` of the backend in compose/base.yaml."""

_BY_USER = (
    "A mart that does not fit into API_TABLE_MEMORY is read as Parquet, but for the rows of users who ask again, which "
    "have half of it, each 260 KB and more: raise it for more users, or where the mart fits, and mem_limit with it."
)
_BY_A_NEW_USER = (
    "What a user asks first of a mart that does not fit into API_TABLE_MEMORY is read from Parquet, from 25 million "
    "rows on in larger row groups: raise it where the mart fits, and mem_limit with it; else split the mart."
)
_OF_A_FILE = (
    "A file beyond API_RESIDENT_MEMORY is hashed where it lies, when it is new and at each start, and until then users "
    "get the snapshot before: raise it above the marts' size, and mem_limit with it."
)
_OF_EACH = (
    "Each mart is a file to link, to look at and to describe in the manifest: give groups of them a store and an API "
    "of their own."
)
_THEN = {
    "rows": {
        "Q1 first": _BY_A_NEW_USER,
        "Q1": _BY_USER,
        "Q2": _BY_USER,
        "Q3": "What reads a whole mart costs its rows: publish an aggregate as a mart, or raise API_DUCKDB_THREADS.",
        "start": _OF_A_FILE,
        "another mart visible": _OF_A_FILE,
        "publish the mart": "The audit reads all of what was built: build the mart less often, or split it.",
        "the mart visible": _OF_A_FILE,
    },
    "datasets": {
        "datasets": "The list has an entry for each: ask for one by its id, and send If-None-Match.",
        **dict.fromkeys(("start", "publish", "another mart visible", "the mart visible"), _OF_EACH),
    },
}
_THEN_ANYWHERE = {
    "memory": "Lower API_RESIDENT_MEMORY or API_DUCKDB_MEMORY_LIMIT, or raise mem_limit with them.",
    "": "It should not: `make bench-growth` once more, on a quiet machine, then look for what changed.",
}
"""What an operator does where a figure, by how it begins, grows too much."""


@dataclass(frozen=True)
class Target:
    """What ``measured`` finds has to be at most ``bound``."""

    text: str
    bound: float
    measured: Callable[[Growth], Spread | None]

    def verdict(self, growth: Growth) -> tuple[str, str, str]:
        """A row of the table."""
        found = self.measured(growth)
        met = found and found.median <= self.bound
        return self.text, spread(found), "not measured" if found is None else "met" if met else "**not met**"


def _from_the_smallest(curve: str, name: str, bound: float) -> Target:
    def measured(growth: Growth) -> Spread | None:
        places = growth.places(curve)
        return growth.ratio(curve, name, places[-1], places[0]) if len(places) > 1 else None

    what = name.rpartition(" ")[0]  # without its unit
    return Target(f"{curve}: {what} at the largest at most {bound:g} times that at the smallest", bound, measured)


def _at_the_largest(curve: str, name: str, bound: float) -> Target:
    def measured(growth: Growth) -> Spread | None:
        places = growth.places(curve)
        return growth.spread(curve, name, places[-1]) if places else None

    return Target(f"{curve}: {name} at most {bound:g}", bound, measured)


def _by_dbt(name: str) -> Target:
    text = f"build, {name.rpartition(' ')[0]}: at most 1.15 times that of dbt alone"
    return Target(text, 1.15, lambda growth: growth.ratio("build", name, "pipeline", "dbt build"))


TARGETS = (
    *(_from_the_smallest(curve, f"{question} p50 ms", 2) for curve in _CURVES for question in ("Q1", "Q2", "Q1 first")),
    *(_at_the_largest(curve, "memory MB", _BUDGET_MB) for curve in _CURVES),
    # Nothing should grow; twice is as far apart as these short times are from round to round.
    *(_from_the_smallest(curve, "another mart visible after s", 2) for curve in _CURVES),
    *(_from_the_smallest(curve, "publish another mart s", 2) for curve in _CURVES),
    *(_by_dbt(f"parsed {when}, {measure}") for when in ("before", "anew") for measure in ("CPU s", "wall s")),
    _at_the_largest("start", "start to ready s", 1.5),
)


def written(growth: Growth, directory: Path) -> Path:
    """The report and the figures it is made of, as ``growth.md`` and ``growth.json``; path of the latter."""
    path = directory / "growth.json"
    growth.write(path)
    path.with_suffix(".md").write_text(markdown(growth))
    return path


def markdown(growth: Growth) -> str:
    """The whole report."""
    targets = table(("target", "measured, median (from..to)", ""), [target.verdict(growth) for target in TARGETS])
    parts = ["# Growth", listed(growth.environment), "## Targets", targets]
    for curve, title in _CURVES.items():
        if growth.places(curve):
            parts += [f"## {title}", _sizes(growth, curve), "### Where it bends", _bends(growth, curve)]
    for curve, title in (("build", "Build"), ("start", "Start")):
        if growth.places(curve):
            parts += [f"## {title}", _costs(growth, curve)]
    return "\n\n".join(parts) + "\n"


def _sizes(growth: Growth, curve: str) -> str:
    """A row for each figure, a column for each size; in brackets how many times that at the smallest."""
    smallest, *others = growth.places(curve)
    rows = []
    for name in growth.figures(curve):
        cells = [_median(growth.spread(curve, name, smallest))]
        for at in others:
            ratio = _median(growth.ratio(curve, name, at, smallest))
            cells.append(f"{_median(growth.spread(curve, name, at))} ({ratio})")
        rows.append((name, *cells))
    return table(("", *(f"{at:,}" for at in (smallest, *others))), rows)


def _bends(growth: Growth, curve: str) -> str:
    lines = []
    for name in growth.figures(curve):
        for at, factor in growth.bends(curve, name):
            then = next(then for begins, then in (_THEN[curve] | _THEN_ANYWHERE).items() if name.startswith(begins))
            lines.append(f"- {name}, at {at:,}: {figure(factor)} times what it is at the size before. {then}")
    return "\n".join(lines or ["- nowhere: nothing is more than twice what it is at the size before"])


def _costs(growth: Growth, curve: str) -> str:
    """A row for each figure, a column for each that was measured, and the last by the first."""
    places = growth.places(curve)

    def cells(name: str) -> list[str]:
        found = [spread(growth.spread(curve, name, at)) for at in places]
        return [*found, spread(growth.ratio(curve, name, places[-1], places[0]))][: len(found) + (len(found) > 1)]

    header = ["", *map(str, places), *([f"{places[-1]} by {places[0]}"] if len(places) > 1 else [])]
    return table(header, [(name, *cells(name)) for name in growth.figures(curve)])


def _median(found: Spread | None) -> str:
    return figure(found.median) if found else NONE
