"""The way from one phase to its neighbour, as steps that can be done again; and the way back from any of them.

All moves go the same way, forwards and backwards: builds pause, the marts are brought to where the other phase reads
them, its backend is rehearsed, takes over from the old one, and builds go on. While builds pause, both phases have the
same rows, so it doesn't matter to a client which of them answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.errors import BundleError
from deploy.rollout.engine import Container, EngineFailed
from deploy.rollout.phases import BACKEND, DAEMON, WEBSERVER
from deploy.rollout.site import Site
from deploy.rollout.waiting import wait_for

STORAGE_INIT = "storage-init"
PIPELINE = ("python", "-m", "deploy.pipeline")
_SEED = "/seed"
# The backend drains, then ends what it answers; the engine's kill is for one that hangs.
_DRAIN_SECONDS = 90
_BUILD, _COPY, _REHEARSAL = "build", "copy", "rehearsal"


class StepFailed(BundleError):
    """A step did not bring about what it is for."""


@dataclass(frozen=True)
class Step:
    """``run`` does it, checks it, and says what it found; done again, it does what is missing. Raises BundleError."""

    name: str
    title: str
    run: Callable[[], str]


class Move:
    """The way of ``site`` from phase ``origin`` to its neighbour ``target``."""

    def __init__(self, site: Site, origin: int, target: int) -> None:
        if abs(origin - target) != 1:
            raise StepFailed(f"there is no way from phase {origin} to {target}", hint="move one phase at a time")
        self.site = site
        self.origin = origin
        self.target = target
        self._wait = site.settings.wait_seconds

    def steps(self) -> list[Step]:
        """What is to be done, in order.

        A backend of the target that already serves, while no builds of the origin can run, has what the target reads:
        then the marts stay where they are. (They may be newer there than at the origin, never older.)
        """
        observed = self.site.observe()
        ready = any(backend.ready for backend in observed.of(BACKEND, self.target))
        building = any(daemon.running for daemon in observed.of(DAEMON, self.origin))
        return [*(() if ready and not building else self._bring_the_marts()), *self._switch()]

    def _bring_the_marts(self) -> list[Step]:
        storage, source = (self.site.storage(phase) for phase in (self.target, self.origin))
        seed = []
        if self.target == 0:
            bring = Step("refresh-file", "Write what is served into the phase-0 file", self._refresh_file)
        elif self.origin == 0:
            bring = Step("first-snapshot", f"Build, and publish Parquet beside the file in {storage}", self._build)
        else:
            copy = f"Copy the snapshots of {source} to {storage}, checksums compared"
            seed = [Step("seed", f"{copy}, while builds go on", self._take_over)]
            bring = Step("catch-up", "Copy what was published meanwhile", self._take_over)
        return [
            Step("storage", f"Give {storage} to the user of the services", self._prepare_storage),
            *seed,
            Step("rehearse", f"Start a backend of phase {self.target} that gets no traffic", self._rehearse),
            Step("pause-builds", "Wait for the build under way, if any, and stop the Dagster daemon", self._pause),
            bring,
            Step("compare", "Compare its answers with those of the backend that serves", self._compare),
        ]

    def _switch(self) -> list[Step]:
        return [
            Step("start-backend", f"Start a backend of phase {self.target} beside the old one", self._start_backend),
            Step("retire-backend", f"Drain and remove the backend of phase {self.origin}", self._retire_backend),
            Step("resume-builds", f"Start Dagster in phase {self.target}", lambda: self._start_builds(self.target)),
            Step("confirm", "Look at what runs and what it answers", self._confirm),
        ]

    def undo(self) -> str:
        """Go back to the origin, whose backend serves if it still runs; what it says. Raises BundleError."""
        self.sweep()
        if not any(backend.ready for backend in self.site.observe().of(BACKEND, self.origin)):
            return "\n".join(step.run() for step in Move(self.site, self.target, self.origin).steps())
        for backend in self.site.observe().of(BACKEND, self.target):
            self.site.engine.remove(backend, grace=_DRAIN_SECONDS if backend.ready else None)
        return self._start_builds(self.origin)

    def sweep(self) -> None:
        """Remove the containers that an interrupted move left: they serve nobody."""
        for purpose in (_BUILD, _COPY, _REHEARSAL):
            if leftover := self.site.engine.one_off(self.site.one_off_name(purpose)):
                self.site.engine.remove(leftover)

    # --- the marts -----------------------------------------------------------------------------------------------

    def _prepare_storage(self) -> str:
        self.site.shell.output(self.site.compose.up(self.target, STORAGE_INIT))

        def ended() -> Container | None:
            (container,) = self.site.engine.containers(STORAGE_INIT)
            return container if container.state == "exited" else None

        container = wait_for(ended, "storage-init has ended", seconds=self._wait, found=lambda: "it still runs")
        if container.exit_code:
            raise StepFailed(
                f"preparing {self.site.storage(self.target)} failed:\n{self.site.engine.last_words(container)}",
                hint="mend what it names",
            )
        return f"{self.site.storage(self.target)} belongs to {self.site.config(self.target).user(BACKEND)}"

    def _pause(self) -> str:
        daemons = [daemon for daemon in self.site.observe().of(DAEMON) if daemon.running]
        if daemons:
            wait_for(
                lambda: not self.site.builds(),
                "no build is under way",
                seconds=self._wait,
                found=lambda: f"Dagster runs {', '.join(self.site.builds())}",
            )
            self.site.shell.output(self.site.compose.stop(self.target, DAEMON))
        running = [daemon.name for daemon in self.site.observe().of(DAEMON) if daemon.running]
        if running:
            raise StepFailed(f"{', '.join(running)} still runs", hint="see what holds it: `make logs`")
        return "no build runs, and none can start"

    def _take_over(self) -> str:
        # Phase 1 keeps its store in a directory of the volume, phase 2's host directory is the store.
        source = f"{_SEED}/parquet" if self.origin == 1 else _SEED
        return self._pipeline("take-over", "--source", source, volume=f"{self.site.storage(self.origin)}:{_SEED}:ro")

    def _build(self) -> str:
        return self._pipeline("build")

    def _refresh_file(self) -> str:
        return self._pipeline("refresh-file", phase=self.origin)

    def _pipeline(self, *arguments: str, phase: int | None = None, volume: str = "") -> str:
        """A command of the pipeline in a container of its own; the last line it printed."""
        purpose = _BUILD if arguments[0] == "build" else _COPY
        command = self.site.compose.run(
            self.target if phase is None else phase,
            DAEMON,
            *PIPELINE,
            *arguments,
            name=self.site.one_off_name(purpose),
            volume=volume,
        )
        return self.site.shell.output(command).strip().rsplit("\n", 1)[-1]

    # --- the backend ---------------------------------------------------------------------------------------------

    def _rehearse(self) -> str:
        name = self.site.one_off_name(_REHEARSAL)
        self.site.shell.output(self.site.compose.run(self.target, BACKEND, name=name, detach=True))
        self._healthy(lambda: self.site.engine.one_off(name))
        return "it is healthy"

    def _compare(self) -> str:
        rehearsed = self.site.engine.one_off(self.site.one_off_name(_REHEARSAL))
        serving = [backend for backend in self.site.observe().of(BACKEND, self.origin) if backend.ready]
        if rehearsed is None:
            raise StepFailed("the backend without traffic is gone", hint="run this again")
        if not serving:
            self.site.engine.remove(rehearsed)
            return f"no backend of phase {self.origin} serves: there is nothing to compare with"
        old, new = self.site.answers(serving[0]), self.site.answers(rehearsed)
        self.site.engine.remove(rehearsed)
        differing = [
            name
            for name in sorted({*old["datasets"], *new["datasets"]})
            if old["datasets"].get(name) != new["datasets"].get(name)
        ]
        if differing:
            raise StepFailed(
                f"phases {self.origin} and {self.target} answer differently for {', '.join(differing)}",
                hint="`make verify` shows how they differ",
            )
        snapshots = {found["snapshot"] for found in (old, new)} - {None}
        if len(snapshots) != 1 or (new["snapshot"] is None) != (self.target == 0):
            raise StepFailed(
                f"phase {self.origin} serves snapshot {old['snapshot']}, phase {self.target} {new['snapshot']}",
                hint="run this again",
            )
        return f"{len(new['datasets'])} datasets are answered alike, from snapshot {snapshots.pop()}"

    def _start_backend(self) -> str:
        observed = self.site.observe()
        ours = observed.of(BACKEND, self.target)
        for broken in (backend for backend in ours if not backend.running):
            self.site.engine.remove(broken)
        if not any(backend.running for backend in ours):
            stay = len([backend for backend in observed.of(BACKEND) if backend not in ours])
            self.site.shell.output(self.site.compose.add_replica(self.target, BACKEND, replicas=stay + 1))
        backend = self._healthy(lambda: next(iter(self.site.observe().of(BACKEND, self.target)), None))
        return f"{backend.name} is healthy"

    def _healthy(self, find: Callable[[], Container | None]) -> Container:
        """The container once it is healthy. Raises StepFailed with its last words when it ends or takes too long."""
        last: list[Container] = []

        def settled() -> Container | None:
            container = find()
            last[:] = [container] if container else []
            return container if container and (container.ready or not container.running) else None

        try:
            container = wait_for(
                settled, "it is healthy", seconds=self._wait, found=lambda: last[0].health if last else "no container"
            )
        except BundleError as error:
            said = self.site.engine.last_words(last[0]) if last else ""
            raise StepFailed(
                f"a backend of phase {self.target} is not healthy: {error.message}\n{said}", hint=error.hint
            ) from error
        if not container.ready:
            said = self.site.engine.last_words(container)
            raise StepFailed(f"a backend of phase {self.target} did not stay up:\n{said}", hint="mend what it names")
        return container

    def _retire_backend(self) -> str:
        observed = self.site.observe()
        if not any(backend.ready for backend in observed.of(BACKEND, self.target)):
            raise StepFailed(f"no backend of phase {self.target} is healthy, found: {observed}", hint="run this again")
        for old in observed.of(BACKEND):
            if old.phase != self.target:
                self.site.engine.remove(old, grace=_DRAIN_SECONDS)
        ready = self.site.ready()
        return f"only phase {self.target} serves, snapshot {ready['snapshot']}"

    # --- builds --------------------------------------------------------------------------------------------------

    def _start_builds(self, phase: int) -> str:
        try:
            self.site.shell.output(self.site.compose.up(phase, DAEMON, WEBSERVER, wait=self._wait))
        except BundleError as error:
            said = [
                self.site.engine.last_words(container)
                for service in (DAEMON, WEBSERVER)
                for container in self.site.observe().of(service)
                if not container.ready
            ]
            raise StepFailed("\n".join([error.message, *said]), hint=error.hint) from error
        return f"Dagster runs in phase {phase}"

    def _confirm(self) -> str:
        observed, ready = self.site.observe(), self.site.ready()
        if observed.phase != self.target or ready["status"] != "ready":
            raise EngineFailed(
                f"expected all of phase {self.target}, ready, found: {observed}; {ready}", hint="run this again"
            )
        return f"phase {self.target} serves snapshot {ready['snapshot']}, of {ready['last_refresh']}"
