"""What happens to a stack while clients read it: traffic on the source, builds of all kinds, rollbacks of the data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import cycle

from tests.e2e.stack import Stack, wait_for

from .clients import USERS, Findings, Readers, Rollback, Target
from .oracle import HostDirectory, InContainer

SELECTIONS = ((), ("dim_accounts",), (), ("dim_users",))
"""Of a full build and partial ones, in turn."""
_MOVEMENTS = "SELECT (SELECT count(*) FROM transactions) + (SELECT count(*) FROM transfers)"
_MONEY_FROM_NOWHERE = "UPDATE accounts SET balance = balance {} 1 WHERE account_id = 1"


def target(stack: Stack) -> Target:
    """The stack's API, to be read while nobody but ``traffic`` writes to its source."""
    if stack.phase == 2:
        source = HostDirectory(stack.parquet_host_dir)
    else:
        source = InContainer(stack.container("backend").id, "/app/data/parquet") if stack.phase == 1 else None
    return Target(
        stack.url("gateway", 8000),
        {user: stack.token(user, all_rows=user == 0) for user in USERS},
        source,
        Decimal(stack.psql("SELECT sum(balance) FROM accounts")),
    )


@contextmanager
def traffic(stack: Stack) -> Iterator[None]:
    """Movements on the source all the while; at least one was written before the block and during it."""
    before = int(stack.psql(_MOVEMENTS))
    stack.run("up", "--detach", "--no-deps", "traffic")
    try:
        wait_for(lambda: int(stack.psql(_MOVEMENTS)) > before, "traffic has begun", seconds=60)
        began = int(stack.psql(_MOVEMENTS))
        yield
        assert int(stack.psql(_MOVEMENTS)) > began, "traffic stopped"
    finally:
        stack.run("rm", "--stop", "--force", "traffic")


@dataclass(frozen=True)
class Build:
    """A build that ended as it should; ``published`` is False for one that its tests had to refuse."""

    selection: tuple[str, ...]
    published: bool
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Operations:
    """Done one after another, as an operator does; each is noted."""

    stack: Stack
    findings: Findings
    builds: list[Build] = field(default_factory=list)
    exec_seconds: list[float] = field(default_factory=list)
    proven: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._selections = cycle(SELECTIONS)

    def build(self) -> Build:
        """The next selection in turn, published."""
        return self._build(next(self._selections), expected="SUCCESS")

    def refused_build(self) -> Build:
        """A build of everything on a source with money from nowhere: its tests fail, and nobody may see its rows."""
        self.stack.psql(_MONEY_FROM_NOWHERE.format("+"))
        try:
            return self._build((), expected="FAILURE")
        finally:
            self.stack.psql(_MONEY_FROM_NOWHERE.format("-"))

    def back_and_forth(self) -> tuple[Rollback, Rollback]:
        """The data one snapshot back, and to the newest again, each until a client has seen it."""
        began = time.monotonic()
        self.stack.exec("dagster-daemon", "python", "-c", "")
        self.exec_seconds.append(time.monotonic() - began)  # what any command costs, to compare with
        newest = self.stack.snapshot()
        return self._rollback(self.stack.manifest(newest)["parent"]), self._rollback(newest)

    def unproven(self) -> list[str]:
        """Snapshots that answers named and that are not of a run that succeeded, tests and all."""
        for snapshot in {*self.findings.snapshots} - {*self.proven, None}:
            # Its run may not have ended yet: Dagster's schedule goes on meanwhile.
            self.proven[snapshot] = self.stack.finished(self.stack.manifest(snapshot)["run_id"]) == "SUCCESS"
        return [snapshot for snapshot, proven in self.proven.items() if not proven]

    def _build(self, selection: tuple[str, ...], *, expected: str) -> Build:
        began = time.monotonic()
        run_id = self.stack.launch(*selection)
        status = self.stack.finished(run_id)
        assert status == expected, f"{status}: {self.stack.failure(run_id)}"
        self.builds.append(Build(selection, expected == "SUCCESS", began, time.monotonic()))
        self.unproven()  # while its manifest is there: retention goes on
        return self.builds[-1]

    def _rollback(self, snapshot: str) -> Rollback:
        rollback = self.findings.announce_rollback(snapshot)
        command = ("python", "-m", "deploy.pipeline", "rollback-data", "--snapshot", snapshot)
        code, output = self.stack.exec("dagster-daemon", *command)
        assert code == 0, output
        wait_for(lambda: rollback.seen, f"a client is answered from {snapshot}", seconds=30)
        return rollback


@contextmanager
def readers_of(stack: Stack, **options: float) -> Iterator[tuple[Readers, Operations]]:
    """Clients that read the stack under traffic, and what can be done to it meanwhile."""
    reading = Readers(target(stack), **options)
    with traffic(stack), reading:
        yield reading, Operations(stack, reading.findings)
