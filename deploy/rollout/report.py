"""The last parity report: made by ``verify``, asked for by ``promote``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.pipeline.parity.report import Report, Verdict
from deploy.rollout.moves import PIPELINE
from deploy.rollout.phases import DAEMON
from deploy.rollout.shell import CommandFailed
from deploy.rollout.site import Site

_UNFIT = (ValueError, TypeError, KeyError)


@dataclass(frozen=True)
class Kept:
    """A report, the phase of the stack and the pipeline's image (its id) that it was made with."""

    report: Report
    phase: int
    image: str

    def to_json(self) -> str:
        """Text of the file that it is kept in."""
        kept = {"phase": self.phase, "image": self.image, "report": json.loads(self.report.to_json())}
        return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Kept:
        """What ``to_json`` wrote. Raises ValueError, TypeError or KeyError where it is something else."""
        kept = json.loads(text)
        return cls(Report.from_json(json.dumps(kept["report"])), kept["phase"], kept["image"])

    @property
    def age_minutes(self) -> float:
        """Minutes since the moment of the source that was compared."""
        return (datetime.now(UTC) - self.report.started_at).total_seconds() / 60

    def problem(self, *, phase: int, image: str | None, max_age_minutes: float) -> str | None:
        """Why a promotion from ``phase`` with that image can't rely on it; None when it can."""
        if self.report.verdict != Verdict.EQUAL:
            return f"the last report says {self.report.verdict}"
        if self.age_minutes > max_age_minutes:
            return f"the last report is {self.age_minutes:.0f} minutes old, at most {max_age_minutes:g} are allowed"
        if self.phase < phase:
            return f"the last report is of phase {self.phase}"
        if self.image != image:
            return "the last report is of another image of the pipeline"
        return None


def file(site: Site) -> Path:
    """Where the report is kept."""
    return site.directory / "parity.json"


def read(site: Site) -> Kept | None:
    """The last report; None when there is none. Raises ValueError, TypeError or KeyError where it can't be read."""
    path = file(site)
    return Kept.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def make(site: Site, phase: int) -> Kept:
    """Compare anew while the stack is in ``phase``, and keep the report. Raises CommandFailed without a report."""
    # Phase 1 has what phase 0 has, and can be given what phase 0 lacks.
    command = site.compose.run(max(phase, 1), DAEMON, *PIPELINE, "verify")
    try:
        said = site.shell.output(command)
    except CommandFailed as error:
        said = error.output  # different and unknown are exit codes, too
        if not said.strip():
            raise
    try:
        report = Report.from_json(said)
    except _UNFIT as error:
        raise CommandFailed(
            f"`{command}` printed no report: {said[-2000:]}", hint="see what it printed", code=0, output=said
        ) from error
    kept = Kept(report, phase, site.engine.image_id(site.config(phase).image(DAEMON)) or "")
    path = file(site)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(kept.to_json(), encoding="utf-8")
    new.replace(path)
    return kept
