"""Findings and reports as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from deploy.pipeline.parity.report import HEADINGS, Report
from deploy.rollout.preflight import Finding
from deploy.rollout.say import console

_COLOURS = {"ok": "green", "failed": "red", "unknown": "yellow"}


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table of plain text: nothing in a cell is taken for markup."""
    made = Table(title=title, title_justify="left", show_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def show_findings(findings: Sequence[Finding]) -> None:
    """Every check: the verdict, what was expected, what was found."""
    rows = [(Text(f.verdict, _COLOURS[f.verdict]), f.check, f.expected, f.found) for f in findings]
    console.print(table("Preflight", ("verdict", "check", "expected", "found"), rows))


def show_parity(report: Report) -> None:
    """Every mart of every comparison, the rows that differ, and why nothing is known if that is so."""
    console.print(table("Parity", HEADINGS, report.table()))
    for comparison in report.comparisons:
        for mart in comparison.marts:
            for row in mart.rows:
                values = ", ".join(f"{name}={value}" for name, value in row.values.items())
                console.print(
                    Text(f"{mart.name}: {row.old} in the old, {row.new} in the new: {values}"), soft_wrap=True
                )
    if report.reason:
        console.print(Text(report.reason), soft_wrap=True)
