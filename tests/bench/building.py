"""Ours while a build runs on the same cores, against ours alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from backend.filepaths import REPO_ROOT
from tests.bench import usage
from tests.bench.asking import Request
from tests.bench.figures import percentile
from tests.bench.load import Load
from tests.bench.measuring import Bench
from tests.bench.peers import OURS
from tests.bench.questions import QUESTIONS
from tests.bench.site import SetUpFailed, Site
from tests.bench.targets import CONNECTIONS

NICENESS = 9
"""Gives the build a seventh of what the API gets, near the eighth that ``cpu_shares`` of the Compose files give it."""
WINDOW_SECONDS = 2  # of each load during a build: what of one is not beside the build is left out
_ASK_EVERY_SECONDS = 0.01
_QUESTION = QUESTIONS["Q1"]


def beside_a_build(bench: Bench, *, builds: int, seconds: float) -> dict[str, float]:
    """Figures of so many ``builds``, each after a load without one. Raises SetUpFailed when a build fails."""
    idle: list[Load] = []
    beside: list[Load] = []
    visible: list[float] = []
    took: list[float] = []
    for turn in range(builds):
        idle.append(bench.load(OURS, _QUESTION, connections=CONNECTIONS, seconds=seconds))
        begun = time.monotonic()
        loads, seen_after = _during(bench)
        took.append(time.monotonic() - begun)
        beside += loads
        visible.append(seen_after)
        bench.say(f"build {turn + 1}: {took[-1]:.0f} s, its snapshot in every answer after {seen_after * 1000:.0f} ms")
    alone, together = _latencies(idle), _latencies(beside)
    figures = {
        "rate without": _rate(idle),
        "rate beside": _rate(beside),
        "p99 ms without": percentile(alone, 0.99) / 1000,
        "p99 ms beside": percentile(together, 0.99) / 1000,
        "slowest ms beside": max(together) / 1000,
        "visible seconds": max(visible),
        "build seconds": max(took),
    }
    figures["rate ratio"] = figures["rate beside"] / figures["rate without"]
    figures["p99 ratio"] = figures["p99 ms beside"] / figures["p99 ms without"]
    return figures


def _during(bench: Bench) -> tuple[list[Load], float]:
    """Loads during which a build ran all the time, and for how many seconds its snapshot was not in every answer."""
    loads = []
    with _Watch(bench) as watch, _build(bench.site) as build:
        while build.poll() is None:
            done = bench.load(OURS, _QUESTION, connections=CONNECTIONS, seconds=WINDOW_SECONDS)
            if build.poll() is None:
                loads.append(done)
        if build.returncode != 0:
            raise SetUpFailed(f"the build failed: {(bench.site.root / 'build.log').read_text()[-2000:]}")
        watch.wait()
    if not loads:
        raise SetUpFailed(f"the build took less than {WINDOW_SECONDS} s: build at a larger scale")
    return loads, watch.seconds


@contextmanager
def _build(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A build as ``make dbt`` runs it, with a smaller share of the processors."""
    with (site.root / "build.log").open("wb") as log:
        process = subprocess.Popen(
            ["nice", "-n", str(NICENESS), sys.executable, "-m", "deploy.pipeline", "build"],
            stdout=log,
            stderr=log,
            cwd=REPO_ROOT,
            env={**os.environ, **site.environment},
            start_new_session=True,
        )
    with suppress(OSError):  # where sessions are scheduled against each other, a nice value counts within one
        Path(f"/proc/{process.pid}/autogroup").write_text(str(NICENESS))
    try:
        yield process
    finally:
        for member in usage.tree([process.pid]):
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


class _Watch:
    """Asks all the time, each time on a new connection, which snapshot answers, and compares it with the pointer."""

    def __init__(self, bench: Bench) -> None:
        self._pointer = bench.site.mart
        self._port = bench.server(OURS).port
        token = bench.site.token(bench.site.users[0])
        target = "/api/analytics/datasets/dim_categories/query?select=count()"
        self._request = Request(target, headers={"Authorization": f"Bearer {token}"})
        self._done = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._before = self._pointer.resolve().name
        self._moved_at = self._stale_at = 0.0
        self._seen = threading.Event()

    @property
    def seconds(self) -> float:
        """From the pointer's move to the last answer of the snapshot before; 0 where none came after it."""
        return max(0.0, self._stale_at - self._moved_at)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def wait(self) -> None:
        """Until the new snapshot was in a hundred answers in a row. Raises SetUpFailed."""
        if not self._seen.wait(60):
            raise SetUpFailed(f"the new snapshot was not in every answer within 60 s: {self._failure}")

    def _run(self) -> None:
        fresh = 0
        try:
            while not self._done.wait(_ASK_EVERY_SECONDS):
                if not self._moved_at and self._pointer.resolve().name != self._before:
                    self._moved_at = time.monotonic()
                answered = json.loads(self._request.ask(self._port))["snapshot"]
                if self._moved_at and answered == self._before:
                    self._stale_at, fresh = time.monotonic(), 0
                elif self._moved_at:
                    fresh += 1
                if fresh >= 100:
                    self._seen.set()
        except Exception as error:  # noqa: BLE001 - told by whoever waits
            self._failure = error


def _latencies(loads: list[Load]) -> Counter[int]:
    return sum((load.latencies for load in loads), Counter())


def _rate(loads: list[Load]) -> float:
    return sum(load.answers for load in loads) / sum(load.seconds for load in loads)
