"""What a run of the matrix found: a table for the terminal, Markdown and JSON for later."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.faults import CONTROL, Record

OUTPUT = Path(__file__).with_name("output")
HEADER = ("layer", "fault", "injected", "content changed", "other problems", "reads meanwhile", "how it ended")


def rows(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """A row for each fault, in the order of the matrix, and the sums."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.layer, record.fault), []).append(record)
    table = []
    for (layer, fault), group in groups.items():
        ended = Counter(record.how for record in group).most_common()
        table.append((layer, fault, *_numbers(group), ", ".join(f"{how} {n}" for how, n in ended)))
    injected = [record for record in records if record.layer != CONTROL]
    table.append(("all", "but for the control arm, whose content has to change", *_numbers(injected), ""))
    return table


def _numbers(group: Sequence[Record]) -> tuple[str, ...]:
    return (
        str(len(group)),
        str(sum(bool(record.changed) for record in group)),
        str(sum(bool(record.problems) for record in group)),
        str(sum(record.reads for record in group)),
    )


def as_text(records: Sequence[Record]) -> str:
    table = [HEADER, *rows(records)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


def write(records: Sequence[Record], *, seed: int, seconds: float, skipped: Sequence[str]) -> Path:
    """Into ``output/``; path of the Markdown."""
    OUTPUT.mkdir(exist_ok=True)
    data = {"seed": seed, "seconds": round(seconds), "skipped": list(skipped), "records": [asdict(r) for r in records]}
    (OUTPUT / "chaos.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    said = (
        f"{len(records)} faults injected in {seconds / 60:.0f} minutes, seed {seed}. After each one the content served "
        "by the running and by a freshly started backend was compared with that before, then a good build was "
        "published and had to be served by both."
    )
    lines = [
        "# Fault matrix",
        "",
        said,
        "",
        *(f"Left out: {name}." for name in skipped),
        "",
        *(f"| {' | '.join(row)} |" for row in (HEADER, ("---",) * len(HEADER), *rows(records))),
        "",
    ]
    for record in records:
        if not record.fine:
            found = "; ".join([*record.changed, *record.problems])
            lines.append(f"- **{record.fault}**, seed {record.seed}, turn {record.turn}: {record.message}: {found}")
    path = OUTPUT / "chaos.md"
    path.write_text("\n".join(lines) + "\n")
    return path
