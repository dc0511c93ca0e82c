"""The report of a run: numbers for people and for programs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .clients import Findings
from .meanwhile import Build, Operations


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Nearest rank. Raises ValueError where there is nothing to rank."""
    if not seconds:
        raise ValueError("no measurement")
    return sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile; empty where there is nothing to rank."""
    return {f"p{p}": round(percentile(seconds, p), 2) for p in (50, 95) if seconds}


def latencies(findings: Findings, builds: Sequence[Build]) -> dict[str, dict[str, float]]:
    """Milliseconds until an answer was there, apart for answers during a build and those while nothing went on."""
    during, idle = [], []
    rollbacks = [(rollback.began, rollback.seen) for rollback in findings.rollbacks if rollback.seen is not None]
    for timing in findings.timings:
        if any(build.began <= timing.at <= build.ended for build in builds):
            during.append(timing.seconds * 1_000)
        elif not any(began <= timing.at <= seen for began, seen in rollbacks):
            idle.append(timing.seconds * 1_000)
    found = {}
    for name, milliseconds in (("idle", idle), ("during builds", during)):
        if milliseconds:
            found[name] = {
                "reads": len(milliseconds),
                **{f"p{p}": round(percentile(milliseconds, p), 1) for p in (50, 99)},
            }
    if len(found) == 2:
        found["ratio"] = {p: round(found["during builds"][p] / found["idle"][p], 2) for p in ("p50", "p99")}
    return found


def summary(operations: Operations, *, minutes: float) -> dict[str, Any]:
    """Everything worth knowing, in the order it is read."""
    findings, builds, unproven = operations.findings, operations.builds, operations.unproven()
    rollbacks = [rollback.seconds for rollback in findings.rollbacks if rollback.seconds is not None]
    published = [build.seconds for build in builds if build.published]
    return {
        "minutes": round(minutes, 1),
        "reads": {"all": findings.reads.total(), **dict(sorted(findings.reads.items()))},
        "reads per second": round(findings.reads.total() / minutes / 60),
        "walks across a publish": findings.walks_across_a_publish,
        "snapshots seen": len(findings.snapshots),
        "builds": {
            "full": sum(build.published and not build.selection for build in builds),
            "partial": sum(bool(build.selection) for build in builds),
            "refused by a test": sum(not build.published for build in builds),
            "seconds, median": round(statistics.median(published), 1) if published else None,
        },
        "latency in ms": latencies(findings, builds),
        "rollbacks": {"announced": len(findings.rollbacks), "seen": len(rollbacks)},
        "seconds from a rollback's command to the first answer": spread(rollbacks),
        "of these, docker exec and Python's start": spread(operations.exec_seconds),
        "failed reads": findings.failed,
        "violations": findings.violated + len(unproven),
        "examples": [
            *findings.examples,
            *(f"VIOLATION {snapshot} is of no run that succeeded" for snapshot in unproven),
        ],
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The summary as a table and what went wrong."""
    lines = ["| measured | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in found.items() if name != "examples"]
    lines += ["", *(f"- {example}" for example in found["examples"])] if found["examples"] else []
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        nested = any(isinstance(item, Mapping) for item in value.values())
        return ("; " if nested else ", ").join(f"{name} {_cell(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
