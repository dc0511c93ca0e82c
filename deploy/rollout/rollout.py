"""Decides which move is due, and carries it out: with a lock, a journal, and the way back when a step fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from backend import lockfile
from backend.errors import BundleError
from deploy.rollout.journal import who
from deploy.rollout.moves import Move
from deploy.rollout.say import say
from deploy.rollout.site import Observed, Site

LAST = 2


class Refused(BundleError):
    """What was asked for is not possible from here; nothing was changed."""


def promotion(site: Site, target: int) -> Move | None:
    """The way up to phase ``target``; None when all of it is there. Raises Refused."""
    observed = site.observe()
    if observed.phase == target and site.journal.unfinished() is None:
        return None
    if not 0 < target <= LAST or not observed.serving or not observed.serving <= {target - 1, target}:
        raise Refused(
            f"promoting to phase {target} starts from phase {target - 1}, found: {observed}",
            hint="promote one phase at a time; `make status` shows more",
        )
    return Move(site, target - 1, target)


def way_back(site: Site) -> Move:
    """The way down: an interrupted move ends in the lower of its phases, else one phase down. Raises Refused."""
    observed = site.observe()
    upper = _upper(observed, site.journal.unfinished())
    if upper is None:
        raise Refused(f"there is nothing to roll back to, found: {observed}", hint="`make up` starts a phase")
    return Move(site, upper, upper - 1)


def _upper(observed: Observed, unfinished: tuple[int, int] | None) -> int | None:
    serving = observed.serving
    if not serving:
        return None
    if unfinished and serving <= set(unfinished):
        return max(unfinished)
    phases = {container.phase for container in observed.containers if container.phase is not None}
    return max(phases) if max(phases) > 0 and max(phases) - min(serving) <= 1 else None


@contextmanager
def exclusively(site: Site, command: str) -> Iterator[None]:
    """The right to change the stack; every command that is started keeps it, too. Raises LockHeld with the holder."""
    with lockfile.held(site.directory / "lock", f"{who()}: {command}", wait=0) as lock:
        site.shell.keep_open = [lock]
        try:
            yield
        finally:
            site.shell.keep_open = []


def carry_out(site: Site, command: str, move: Move) -> None:
    """All steps of a move, in order. When one fails, or on Ctrl-C, what was begun is undone, then the error raised."""
    origin, target = move.origin, move.target
    began = time.monotonic()
    site.journal.write(command, origin, target, "", "started")
    step = ""
    try:
        move.sweep()
        for each in move.steps():
            step = each.name
            say(f"{each.name}: {each.title}")
            site.journal.write(command, origin, target, step, "started")
            step_began = time.monotonic()
            result = each.run()
            seconds = round(time.monotonic() - step_began, 1)
            site.journal.write(command, origin, target, step, "done", result=result, seconds=seconds)
            say(f"  {result} ({seconds} s)")
    except BaseException as error:
        site.journal.write(command, origin, target, step, "failed", result=str(error) or type(error).__name__)
        say(f"{step} failed: {error or type(error).__name__}")
        _undo(site, command, move)
        raise
    site.journal.write(command, origin, target, "", "done", seconds=round(time.monotonic() - began, 1))


def _undo(site: Site, command: str, move: Move) -> None:
    say(f"undoing: phase {move.origin} goes on")
    try:
        result = move.undo()
    except BaseException as error:
        site.journal.write(command, move.origin, move.target, "", "failed", result=str(error) or type(error).__name__)
        say(f"undoing failed: {error}\nWhat serves goes on serving; `make rollback` tries again.")
        raise
    site.journal.write(command, move.origin, move.target, "", "undone", result=result)
    say(f"  {result}")
