"""What a fault is, and the one procedure that every fault of every layer goes through."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.served import Api, Backend, State, Unavailable, Watch, Wrong
from tests.e2e.stack import wait_for

SAME, OLDER, EITHER, UNAVAILABLE = "same", "older", "either", "unavailable"
CONTROL = "control"
RECOVERY_SECONDS = 120  # of a busy machine


@dataclass(frozen=True)
class Ended:
    """How the faulty build, or whatever it was, ended: ``how`` in a word or two for the table, ``message`` in full.

    ``rows`` is the digest that must be served now where a good build came through in spite of the fault (None: what
    was served before); ``passing`` are digests of good builds that may have been served in between.
    """

    how: str
    message: str = ""
    rows: str | None = None
    passing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    ``cold`` says what a backend serves that is started after it: the same; the newest intact snapshot before
    (``degraded``); either of both; or nothing (a clean 503). ``warm`` says so of the backend that was running all
    the while. ``heal`` is what an operator does by hand, as the runbook says, before the next good build. ``gap``: the
    fault takes away the only backend, so for a while nobody answers but the gateway.
    """

    name: str
    layer: str
    inject: Callable[[Any, random.Random, int], Ended]
    full: int
    fast: int
    cold: str = SAME
    warm: str = SAME
    heal: Callable[[Any], None] | None = None
    site: str = ""
    gap: bool = False


class Site(Protocol):
    """A place where builds are published and served: a store, a running backend, and how a good build is done."""

    root: Path
    warm: Api
    states: list[State]

    def cold(self) -> Backend:
        """A backend started now."""

    def good_build(self) -> str:
        """Build and publish; the digest of the rows that must be served then."""


@dataclass
class Record:
    """One injected fault and what came of it: was other content served, and what else was not as it has to be."""

    fault: str
    layer: str
    seed: int
    turn: int
    how: str = ""
    message: str = ""
    reads: int = 0
    changed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Nothing but what was published was ever served; the control arm has to say the opposite."""
        return bool(self.changed) == (self.layer == CONTROL) and not self.problems


def trial(site: Site, fault: Fault, record: Record) -> None:
    """Inject one fault, compare what is served before and after, heal, and look whether the next build is served.

    What is found goes into ``record``; an error of any kind is a problem there, and ends the trial.
    """
    with _noting(record):
        _trial(site, fault, record)


def _trial(site: Site, fault: Fault, record: Record) -> None:
    if {OLDER, EITHER} & {fault.cold, fault.warm}:
        recover(site, fault)  # so that there is an intact one to fall back to
    before = site.warm.state()
    ended = Ended("not as expected")
    with Watch(site.warm) as watch, _noting(record):
        ended = fault.inject(site, random.Random(record.seed), record.turn)
    record.how, record.message, record.reads = ended.how, ended.message, watch.reads
    record.changed += sorted(set(watch.wrong))
    if watch.unanswered and not fault.gap:
        record.problems.append(f"nobody answered: {sorted(set(watch.unanswered))}")
    allowed = {before.rows, ended.rows, *ended.passing}
    if fault.warm == OLDER:
        allowed.add(site.states[-2].rows)
    if strange := {(rows, listing) for rows, listing in watch.seen if rows not in allowed or listing != before.listing}:
        record.changed.append(f"meanwhile {strange} was served")

    with _noting(record):
        after = _expect(site.warm, fault.warm, before, site.states, ended.rows)
        if ended.rows is not None:
            site.states.append(after)
        # Damage that the running backend does not serve is noticed nevertheless, before the next start is hit by it.
        if fault.cold != EITHER:
            _ready(site.warm, "ready" if fault.cold == SAME else "degraded")
    cold = site.cold()
    try:
        with _noting(record):
            _expect(cold, fault.cold, site.states[-1], site.states, None)
        with _noting(record):
            if fault.heal:
                fault.heal(site)
            recover(site, fault, cold)
    finally:
        cold.close()


def recover(site: Site, fault: Fault, *others: Api) -> None:
    """One good build, which every backend must then serve, and exactly it."""
    rows = site.good_build()
    listing = site.states[-1].listing
    for api in (site.warm, *others):
        wait_for(
            lambda api=api: isinstance(found := api.read(), State) and found.rows == rows,
            f"the good build {rows[:8]} is served after {fault.name!r}",
            seconds=RECOVERY_SECONDS,
            every=0.05,
            details=lambda api=api: f"found {api.read()}, {api.ready()}",
        )
        _ready(api, "ready")
        if api.state().listing != listing:
            raise Wrong("after the good build /datasets describes the marts in another way")
    site.states.append(site.warm.state())


def _expect(api: Api, what: str, before: State, states: list[State], rows: str | None) -> State:
    found = api.read()
    if what == UNAVAILABLE:
        if not isinstance(found, Unavailable):
            raise Wrong(f"expected a clean 503, found {found}")
        _ready(api, "unavailable")
        return before
    if isinstance(found, Unavailable):
        raise Wrong(f"503 {found.code}: {found.message}")
    if what == OLDER or (what == EITHER and found != before):
        older = states[-2]
        if found != older:
            raise Wrong(f"expected the snapshot before, {older}, found {found}")
        _ready(api, "degraded")
    elif rows is None:
        if found != before:
            raise Wrong(f"served was {before}, now it is {found}")
    elif (found.rows, found.listing) != (rows, before.listing):
        raise Wrong(f"expected the rows {rows[:8]} of a good build, found {found}")
    return found


def _ready(api: Api, status: str) -> None:
    def as_expected() -> bool:
        said = api.ready()
        return said["status"] == status and (said["problem"] is None) == (status == "ready")

    wait_for(
        as_expected, f"/health/ready says {status}", seconds=RECOVERY_SECONDS, every=0.05,
        details=lambda: f"it says {api.ready()}",
    )  # fmt: skip


@contextmanager
def _noting(record: Record) -> Iterator[None]:
    try:
        yield
    except Wrong as error:
        record.changed.append(str(error))
    except Exception as error:  # noqa: BLE001 - a line in the report, and the matrix goes on
        record.problems.append(f"{type(error).__name__}: {error}")
