"""The store layer's site: small marts, real builders in processes of their own, a real backend on the same store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from backend.snapshots import SnapshotStore
from tests.chaos import builder, marts
from tests.chaos.builder import Plan, Result
from tests.chaos.faults import Ended
from tests.chaos.served import Backend, State
from tests.forked import PROCESSES

BUILDER_SECONDS = 60
TMPFS_BYTES = 4_000_000


class Builder:
    """One builder's process, from outside."""

    def __init__(self, plan: Plan, trace: Path) -> None:
        self.plan = plan
        self._trace = trace
        self._connection, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=builder.run, args=(plan, theirs, trace), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def steps(self) -> list[str]:
        """Names of the calls that changed the disk so far."""
        return self._trace.read_text().split() if self._trace.exists() else []

    @property
    def moved_the_pointer(self) -> bool:
        return "replace" in self.steps

    def written(self) -> None:
        """Wait until all marts are written and nothing is published."""
        if not self._connection.poll(BUILDER_SECONDS):
            raise AssertionError("the builder wrote nothing in time")
        came = self._connection.recv()
        assert came == "written", came

    def go(self) -> Builder:
        self._connection.send("go")
        return self

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def result(self) -> Result:
        """How it ended; a killed one ended by ``Killed``."""
        try:
            if not self._connection.poll(BUILDER_SECONDS):
                raise AssertionError("the builder did not end in time")
            result = self._connection.recv()
        except EOFError:
            result = Result(None, "killed", "SIGKILL")
        self.process.join(BUILDER_SECONDS)
        self._connection.close()
        return result


class StoreSite:
    """``tmpfs``: the store lies on a small file system of its own, which can be filled or made read-only."""

    def __init__(self, directory: Path, *, tmpfs: bool = False, **settings: str) -> None:
        self.directory = directory
        self.root = directory / "parquet"
        self.root.mkdir(parents=True)
        self.mounted = tmpfs
        if tmpfs:
            command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "chaos", self.root]
            subprocess.run(command, check=True, timeout=10)
        self.store = SnapshotStore(self.root)
        self.generation = 0
        self.states: list[State] = []
        self._settings = settings
        self._builders = 0
        self.built: dict[str, dict[str, int]] = {}  # snapshot: generation of each mart
        self.good_build()
        self.warm = Backend(self.root, directory, **settings)
        self.states.append(self.warm.state())
        self.good_build()
        self.states.append(self.warm.state())

    def cold(self) -> Backend:
        return Backend(self.root, self.directory, **self._settings)

    def close(self) -> None:
        self.warm.close()
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.root], check=True, timeout=10)
        shutil.rmtree(self.directory)

    # --- builds ---------------------------------------------------------------------------------------------------

    def plan(self, **options: object) -> Plan:
        """A build of a generation that no build before had."""
        self.generation += 1
        return Plan(self.root, self.generation, **options)

    def start(self, plan: Plan) -> Builder:
        self._builders += 1
        return Builder(plan, self.directory / f"trace{self._builders}")

    def good_build(self) -> str:
        plan = self.plan()
        result = self.start(plan).result()
        assert result.snapshot, f"the good build failed: {result}"
        return self.rows(plan, result.snapshot)

    def rows(self, plan: Plan, snapshot: str) -> str:
        """The digest of what the plan publishes, which is now the snapshot."""
        self.built[snapshot] = self.marts(plan)
        return marts.expected(self.built[snapshot])

    def marts(self, plan: Plan) -> dict[str, int]:
        parent = self.built.get(self.states[-1].snapshot, {}) if self.states else {}
        return {name: plan.generation if name in plan.only else parent[name] for name in marts.NAMES}

    def ended(self, faulty: Builder) -> Ended:
        """How a build ended that a fault befell: past the moment the pointer moves it has published."""
        result = faulty.result()
        if faulty.moved_the_pointer:
            plan = faulty.plan
            rows = self.rows(plan, os.readlink(self.root / "mart").rsplit("/", 1)[1])
            return Ended(f"published, then {result.error}" if result.error else "published", result.message, rows)
        return Ended(result.error or "published nothing", result.message)

    @cached_property
    def steps(self) -> dict[str, int]:
        """How many calls change the disk in a whole build, a partial one and a rollback."""
        plans = {
            "whole": self.plan(),
            "partial": self.plan(only=marts.NAMES[1:2]),
            "rollback": self.plan(rollback=self.states[-1].snapshot),
        }
        counts = {}
        root = self.directory / "rehearsal"
        shutil.copytree(self.root, root, symlinks=True)
        for name, plan in plans.items():
            run = self.start(replace(plan, root=root))
            assert run.result().snapshot
            counts[name] = len(run.steps)
        shutil.rmtree(root)
        return counts

    # --- what is damaged ------------------------------------------------------------------------------------------

    @property
    def current(self) -> Path:
        """The directory of what is served."""
        return (self.root / "mart").resolve()

    @contextmanager
    def between_write_and_publish(self, **options: object) -> Iterator[tuple[Builder, Path]]:
        """A builder that has written its marts, and the directory they lie in; let go afterwards."""
        faulty = self.start(self.plan(gate=True, **options))
        faulty.written()
        yield faulty, self.root / "building" / faulty.plan.name
        faulty.go()
