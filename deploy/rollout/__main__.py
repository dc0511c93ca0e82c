"""``python -m deploy.rollout``: from phase to phase on a live stack, and back. The runbook is ``deploy/RUNBOOK.md``."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from backend.errors import BundleError
from deploy.pipeline.parity.report import Verdict
from deploy.rollout import finalize as finalizing
from deploy.rollout import report, status, tables
from deploy.rollout.moves import Move
from deploy.rollout.preflight import Finding
from deploy.rollout.preflight import preflight as checks
from deploy.rollout.rollout import Refused, carry_out, exclusively, promotion, way_back
from deploy.rollout.say import console, say
from deploy.rollout.site import Site

cli = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Phase = Annotated[int, typer.Option(min=1, max=2, help="the phase to move to")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan and change nothing")]
Yes = Annotated[bool, typer.Option("--yes", help="don't ask")]


@cli.command()
def preflight(phase: Phase) -> None:
    """Check all that a promotion needs; changes nothing. Exit code 1 unless every check passes."""
    _checked(Site(), phase)


@cli.command()
def promote(phase: Phase, *, dry_run: DryRun = False) -> None:
    """Move the stack up to the phase; run again, it goes on where it was interrupted."""
    site = Site()
    move = promotion(site, phase)
    if move is None:
        say(f"All of phase {phase} is there: nothing to do")
        return
    _checked(site, phase)
    _plan(move)
    if dry_run:
        return
    with exclusively(site, f"promote to phase {phase}"):
        # Somebody else may have been quicker.
        move = promotion(site, phase)
        if move is not None:
            carry_out(site, "promote", move)
    say(f"Promoted: phase {phase} serves")


@cli.command()
def rollback(*, dry_run: DryRun = False) -> None:
    """Move the stack one phase down, or an interrupted move back; run again, it goes on where it was interrupted."""
    site = Site()
    move = way_back(site)
    _plan(move)
    if dry_run:
        return
    with exclusively(site, "rollback"):
        move = way_back(site)
        carry_out(site, "rollback", move)
    say(f"Rolled back: phase {move.target} serves")


@cli.command()
def verify() -> None:
    """Compare the old way of building with the new one, from one moment of the source, and keep the report."""
    site = Site()
    serving = site.observe().serving
    if not serving:
        raise Refused("no backend runs", hint="`make up` starts the stack")
    kept = report.make(site, min(serving))
    tables.show_parity(kept.report)
    say(f"The report is in {report.file(site)}")
    say(f"Parity: {kept.report.verdict}")
    if kept.report.verdict != Verdict.EQUAL:
        sys.exit(1)


@cli.command(name="status")
def show_status(
    *, watch: Annotated[bool, typer.Option("--watch", help="anew every 2 seconds, until Ctrl-C")] = False
) -> None:
    """Phase, snapshot, freshness, containers, their mounts as they are, the last entries of the journal."""
    status.watch(Site()) if watch else console.print(status.overview(Site()))


@cli.command()
def finalize(*, yes: Yes = False) -> None:
    """Delete the volume of phases 0 and 1 and the DuckDB file in it; can't be undone."""
    site = Site()
    with exclusively(site, "finalize"):
        say(finalizing.warning(site))
        if not yes:
            typer.confirm("Delete it?", abort=True)
        say(finalizing.finalize(site))
    say("Finalized: nothing of phases 0 and 1 is left")


def _checked(site: Site, phase: int) -> None:
    findings = checks(site, phase)
    tables.show_findings(findings)
    bad = [finding for finding in findings if finding.verdict != "ok"]
    if bad:
        raise Refused(f"preflight: {len(bad)} of {len(findings)} checks did not pass", hint="; ".join(map(_to_do, bad)))
    say(f"Preflight: all {len(findings)} checks passed")


def _to_do(finding: Finding) -> str:
    return f"{finding.check}: {finding.to_do}"


def _plan(move: Move) -> None:
    say(f"From phase {move.origin} to phase {move.target}:")
    for number, step in enumerate(move.steps(), 1):
        say(f"  {number}. {step.name}: {step.title}")


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> None:
    """Run the command line; an error is two lines: what happened, and what to do."""
    for interruption in (signal.SIGINT, signal.SIGTERM):  # also where whoever started this ignores them
        signal.signal(interruption, _interrupt)
    try:
        cli(standalone_mode=True)
    except BundleError as error:
        sys.exit(f"{error.message}\n{error.hint}")
    except KeyboardInterrupt as interrupt:
        sys.exit(f"interrupted {interrupt}".strip())


if __name__ == "__main__":
    main()
