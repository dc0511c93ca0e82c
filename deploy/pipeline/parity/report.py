"""The parity report: what ``python -m deploy.pipeline verify`` prints as JSON, and whoever called it reads back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """``unknown``: they could not be compared, which is no reason to go on. ``left out``: there was nothing to do."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "unknown"
    LEFT_OUT = "left out"


class Kind(StrEnum):
    """In what a mart differs. ``sentinel``: one side is empty, the other has one row, NULL in every column."""

    ABSENT = "absent"
    COLUMNS = "columns"
    TYPES = "types"
    ROW_COUNT = "row count"
    SENTINEL = "sentinel"
    CONTENT = "content"


@dataclass(frozen=True)
class Content:
    """One side of a mart. ``columns`` are (name, type) in order; ``hash`` covers types and rows, not their order."""

    rows: int
    hash: str
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """A row that one side has more often than the other, with its values as text; None is NULL."""

    old: int
    new: int
    values: Mapping[str, str | None]


@dataclass(frozen=True)
class Mart:
    """One mart on both sides; None where a side does not have it.

    ``differing`` counts the distinct rows that one side has more often, ``rows`` are a few of these from each side.
    """

    name: str
    kinds: tuple[Kind, ...]
    old: Content | None
    new: Content | None
    differing: int = 0
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One old source against one new one, named by ``old`` and ``new``; ``reason`` says why it was left out."""

    old: str
    new: str
    marts: tuple[Mart, ...] = ()
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether any mart differs; unknown where there is none."""
        if self.reason is not None:
            return Verdict.LEFT_OUT
        if not self.marts:
            return Verdict.UNKNOWN
        return Verdict.DIFFERENT if any(mart.kinds for mart in self.marts) else Verdict.EQUAL


@dataclass(frozen=True)
class Report:
    """All comparisons. ``source`` has the fingerprint of each source table at the moment the builds were made from.

    ``reason`` says why the verdict is unknown; what was compared before that is there nevertheless.
    """

    started_at: datetime
    finished_at: datetime
    comparisons: tuple[Comparison, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Equal only if something was compared, nothing differs, and nothing went wrong."""
        verdicts = {comparison.verdict for comparison in self.comparisons}
        if Verdict.DIFFERENT in verdicts:
            return Verdict.DIFFERENT
        known = self.reason is None and Verdict.EQUAL in verdicts and Verdict.UNKNOWN not in verdicts
        return Verdict.EQUAL if known else Verdict.UNKNOWN

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different, 2 unknown."""
        return {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1}.get(self.verdict, 2)

    def to_json(self) -> str:
        """The report as JSON, verdicts included."""
        data = asdict(self) | {"verdict": self.verdict}
        for entry, comparison in zip(data["comparisons"], self.comparisons, strict=True):
            entry["verdict"] = comparison.verdict
        return json.dumps(data, indent=1, default=datetime.isoformat, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What ``to_json`` wrote. Raises ValueError, TypeError or KeyError where it is something else."""
        data = json.loads(text)
        return cls(
            started_at=datetime.fromisoformat(data["started_at"]),
            finished_at=datetime.fromisoformat(data["finished_at"]),
            comparisons=tuple(_comparison(entry) for entry in data["comparisons"]),
            source=data["source"],
            reason=data["reason"],
        )

    def table(self) -> list[tuple[str, ...]]:
        """Rows of ``HEADINGS``: one per mart and per comparison that was left out."""
        lines: list[tuple[str, ...]] = []
        for comparison in self.comparisons:
            name = f"{comparison.old} / {comparison.new}"
            if comparison.reason is not None:
                lines.append((name, "", f"{comparison.verdict}: {comparison.reason}", "", "", ""))
            for mart in comparison.marts:
                counts = [str(side.rows) if side else "" for side in (mart.old, mart.new)]
                found = ", ".join(mart.kinds) or Verdict.EQUAL
                lines.append((name, mart.name, found, *counts, str(mart.differing or "")))
        return lines


HEADINGS = ("compared", "mart", "found", "old rows", "new rows", "differing rows")


def _comparison(data: dict[str, Any]) -> Comparison:
    return Comparison(data["old"], data["new"], tuple(_mart(entry) for entry in data["marts"]), data["reason"])


def _mart(data: dict[str, Any]) -> Mart:
    return Mart(
        name=data["name"],
        kinds=tuple(Kind(kind) for kind in data["kinds"]),
        old=_content(data["old"]),
        new=_content(data["new"]),
        differing=data["differing"],
        rows=tuple(Row(**row) for row in data["rows"]),
    )


def _content(data: dict[str, Any] | None) -> Content | None:
    if data is None:
        return None
    return Content(data["rows"], data["hash"], tuple((name, kind) for name, kind in data["columns"]))
