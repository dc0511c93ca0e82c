"""How figures grow with the rows of a mart and with the number of marts, and what a build costs beside dbt's own.

One server is up at a time, on one size. The sizes take turns, so that a busy minute is in the figures of all of them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import typer

from backend.filepaths import DBT_PROJECT_DIR, REPO_ROOT
from tests.bench import load, usage
from tests.bench.asking import TIMEOUT_SECONDS, Request
from tests.bench.generated import Generated
from tests.bench.measuring import Different
from tests.bench.peers import OURS
from tests.bench.points import Point
from tests.bench.processes import Running
from tests.bench.questions import FIRST_SERIAL, QUESTIONS, TRANSACTIONS
from tests.bench.serving import ours
from tests.bench.site import SetUpFailed, Site
from tests.e2e.stack import wait_for

_ANSWERED = {"Q1": 100, "Q2": 36, "Q3": 28}
"""What is asked, and how many rows that has, however many the mart has."""
_PUBLISHES = 5  # of which the median is taken: the first one is of caches that a load has left cold
_ANSWERS = 3  # that there is time for at least, where one takes longer than a load is to be
_Figures = dict[str, float]


def along(curve: str, sizes: Mapping[int, Generated], *, rounds: int, seconds: float) -> Iterator[Point]:
    """Every figure of every size in every round. Raises Different for an answer of another size, LoadFailed."""
    for turn in range(rounds):
        for size, marts in sizes.items():
            figures = _on(marts, seconds)
            typer.echo(f"round {turn + 1}, {size:,} {curve}: Q1 p50 {figures['Q1 p50 ms']:.2f} ms")
            yield from (Point(curve, figure, size, value) for figure, value in figures.items())


def costs(site: Site, *, rounds: int) -> Iterator[Point]:
    """Builds of ours and of dbt alone, each with a parsed project at hand and without. Raises BuildFailed, SetUpFailed.

    Also cold starts of the API on what these builds publish.
    """
    _dbt(site, site.root / "parsed", "parse")
    for turn in range(rounds):
        for parsed in ("parsed before", "parsed anew"):
            builds = [("dbt build", _build_by_dbt), ("pipeline", _build_by_pipeline)]
            for who, build in builds if turn % 2 == 0 else reversed(builds):
                for measure, value in _spent(site, build, at_hand=parsed == "parsed before").items():
                    typer.echo(f"round {turn + 1}, {parsed}, {who}: {measure} {value:.2f}")
                    yield Point("build", f"{parsed}, {measure}", who, value)
        yield Point("start", "start to ready s", "default data", _start(site))


def _on(marts: Generated, seconds: float) -> _Figures:
    scratch, begun = _scratch(marts.site), time.perf_counter()
    with ours(marts.site, scratch) as server, usage.measured(server.pids) as used:
        found = {"start to ready s": time.perf_counter() - begun}
        asking = {name: _requests(marts, name) for name in _ANSWERED}
        _warm_up(server, [requests[0] for requests in asking.values()])
        found["Q1 first p50 ms"], _ = (_once_each(server, asking["Q1"], FIRST_SERIAL - turn) for turn in (2, 1))
        for name, requests in asking.items():
            found |= _loaded(name, server, requests, seconds, scratch)
        token = marts.site.token(marts.users[0])
        headers = {"Authorization": f"Bearer {token}"}
        listed = Request("/api/analytics/datasets", headers=headers)
        found |= _loaded("datasets", server, [listed], seconds, scratch)
        asked = Request(f"/api/analytics/datasets/{marts.another}/query?select=count()", headers=headers)
        for what, name, times in (("another mart", marts.another, _PUBLISHES), ("the mart", TRANSACTIONS, 1)):
            switches = [_switch(marts, name, server, asked) for _ in range(times)]
            found[f"publish {what} s"] = statistics.median(published for published, _ in switches)
            found[f"{what} visible after s"] = statistics.median(visible for _, visible in switches)
    return found | {"memory MB": used.peak_bytes / 1e6}


def _warm_up(server: Running, requests: Sequence[Request]) -> None:
    """Ask, and wait until what the API makes of marts in the background, once after a start, is made."""
    seen = [""]

    def settled() -> bool:
        for request in requests:
            request.ask(server.port)
        metrics = Request("/metrics").ask(server.port).decode()
        seen.append(next(line for line in metrics.splitlines() if line.startswith("analytics_table_bytes")))
        return seen[-1] == seen[-2] and not seen[-1].endswith(" 0.0")

    wait_for(settled, "tables are made, and rows kept", seconds=TIMEOUT_SECONDS, every=1)


def _once_each(server: Running, requests: Sequence[Request], serial: int) -> float:
    """Milliseconds that half of these took at most, each asked once; with what a new connection takes."""
    took = []
    for request in requests:
        begun = time.perf_counter()
        request.ask(server.port, serial)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


def _requests(marts: Generated, name: str) -> list[Request]:
    return [OURS.request(marts.site, QUESTIONS[name], user) for user in marts.users]


def _loaded(name: str, server: Running, requests: Sequence[Request], seconds: float, scratch: Path) -> _Figures:
    begun = time.perf_counter()
    body = requests[0].ask(server.port, FIRST_SERIAL + 1)  # which nobody has asked yet
    longest = time.perf_counter() - begun
    if name in _ANSWERED and (rows := len(OURS.rows(QUESTIONS[name], body))) != _ANSWERED[name]:
        raise Different(f"{name} of generated marts has {rows} rows, expected {_ANSWERED[name]}")
    with usage.measured(server.pids) as used:
        done = load.put(
            server.port,
            requests,
            connections=1,
            seconds=max(seconds, _ANSWERS * longest),
            serial=FIRST_SERIAL + 2,
            scratch=scratch,
        )
    return {f"{name} p50 ms": done.milliseconds(0.5), f"{name} CPU ms": used.cpu_seconds / done.answers * 1000}


def _switch(marts: Generated, name: str, server: Running, asked: Request) -> tuple[float, float]:
    """Seconds that the store takes to publish that mart anew, and from then to the first answer of it."""
    published, seconds = marts.publish([name])
    return seconds, _visible_after(server, asked, published.id)


def _visible_after(server: Running, asked: Request, snapshot: str) -> float:
    """Seconds from the end of a publish to the first answer of its snapshot, asked for without a pause."""
    begun = time.perf_counter()
    wait_for(
        lambda: json.loads(asked.ask(server.port))["snapshot"] == snapshot,
        f"an answer is of snapshot {snapshot}",
        seconds=TIMEOUT_SECONDS,
        every=0,
    )
    return time.perf_counter() - begun


def _spent(site: Site, build: Callable[[Site, Path], None], *, at_hand: bool) -> _Figures:
    """What the build took, with a target directory of its own; of the processor, all its processes."""
    target = site.root / "target-of-a-build"
    if at_hand:
        shutil.copytree(site.root / "parsed", target)
    before, begun = _children_seconds(), time.perf_counter()
    build(site, target)
    figures = {"CPU s": _children_seconds() - before, "wall s": time.perf_counter() - begun}
    shutil.rmtree(target, ignore_errors=True)
    return figures


def _build_by_dbt(site: Site, target: Path) -> None:
    shutil.rmtree(site.root / "bare", ignore_errors=True)
    (site.root / "bare").mkdir()
    Path(site.environment["DUCKDB_PATH"]).unlink(missing_ok=True)
    _dbt(site, target, "build")


def _dbt(site: Site, target: Path, command: str) -> None:
    """dbt alone, writing to a directory where nobody looks at what it wrote.

    In the same build file: to dbt, another one is another profile, for which it would parse the project anew.
    """
    project = dict.fromkeys(("DBT_PROJECT_DIR", "DBT_PROFILES_DIR"), str(DBT_PROJECT_DIR))
    _python(site, target, "dbt.cli.main", command, MART_BUILD_DIR=str(site.root / "bare"), **project)


def _build_by_pipeline(site: Site, target: Path) -> None:
    _python(site, target, "deploy.pipeline", "build")


def _python(site: Site, target: Path, *command: str, **variables: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO_ROOT,
        env={
            **os.environ,
            **site.environment,
            **variables,
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
        },
    )
    if finished.returncode != 0:
        raise SetUpFailed(f"the build failed:\n{finished.stdout[-2000:]}{finished.stderr}")


def _start(site: Site) -> float:
    begun = time.perf_counter()
    with ours(site, _scratch(site)):
        return time.perf_counter() - begun


def _scratch(site: Site) -> Path:
    path = site.root / "server"
    path.mkdir(exist_ok=True)
    return path


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
