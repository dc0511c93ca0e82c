"""``python -m tests.bench``: how fast the marts are served, beside what one would take instead."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from backend.errors import BundleError
from backend.filepaths import REPO_ROOT
from tests.bench import baseline, building, environment, growing, growth_report, report
from tests.bench.asking import Refused
from tests.bench.generated import ROWS_PER_USER, Generated
from tests.bench.load import LoadFailed
from tests.bench.measuring import Bench, Different
from tests.bench.peers import PEERS
from tests.bench.points import Growth
from tests.bench.processes import NotStarted
from tests.bench.questions import QUESTIONS
from tests.bench.results import Results
from tests.bench.serving import PEERS_BIN
from tests.bench.site import SetUpFailed, Site
from tests.bench.targets import ANCHORED, CONNECTIONS

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Some = Annotated[list[str] | None, typer.Option(help="One of them; may be given several times. All by default.")]
Connections = Annotated[list[int], typer.Option(help="Connections at a time; may be given several times.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each load is repeated, all the others in between.")]
Seconds = Annotated[int, typer.Option(min=1, help="Of each load, or longer where one answer takes that long.")]
Builds = Annotated[int, typer.Option(min=0, help="Builds that ours is measured beside.")]
Scale = Annotated[float, typer.Option(min=0.01, help="Multiplies 200 users and their 100,000 transactions.")]
_FEW_ROWS = 10_000  # of the one mart among many that is asked

Output = Annotated[Path, typer.Option(help="Directory of the report.")]
Note = Annotated[str, typer.Option(help="What a reader should know about this run.")]


@app.command()
def full(
    *,
    peer: Some = None,
    question: Some = None,
    connections: Connections = [1, 8, 32],  # noqa: B006 - typer copies it
    rounds: Rounds = 5,
    seconds: Seconds = 3,
    builds: Builds = 3,
    scale: Scale = 1,
    output: Output = report.OUTPUT,
    note: Note = "",
) -> None:
    """Every peer, with a report and plots."""
    asked = {"rounds": f"{rounds} of {seconds} s and more for each load", "scale": f"{scale:g}"}
    with _site(scale) as site, _bench(site, peer or list(PEERS), question or list(QUESTIONS)) as bench:
        results = Results(environment.described(site, asked, note))
        bench.check()
        for cell in bench.measure(connections=connections, rounds=rounds, seconds=seconds):
            results.cells.append(cell)
        path = report.written(results, output)  # whatever becomes of the builds
        if builds:
            results.building = building.beside_a_build(bench, builds=builds, seconds=seconds * 2)
            report.written(results, output)
    _draw(path.with_suffix(".json"))
    typer.echo(f"\n{path}")


@app.command()
def quick(
    *,
    save: Annotated[bool, typer.Option("--save", help="Make this run the baseline of later ones.")] = False,
    question: Some = None,
    rounds: Rounds = 6,
    seconds: Seconds = 1,
    scale: Scale = 1,
    output: Output = report.OUTPUT,
) -> None:
    """Ours and its two anchors only, and what changed since the baseline."""
    asked = {"rounds": f"{rounds} of {seconds} s and more for each load", "scale": f"{scale:g}"}
    with _site(scale) as site, _bench(site, ANCHORED, question or list(QUESTIONS)) as bench:
        results = Results(environment.described(site, asked, ""))
        bench.check()
        results.cells += bench.measure(connections=[CONNECTIONS], rounds=rounds, seconds=seconds)
    path = report.written(results, output, "quick")
    saved = output / "baseline.json"
    if save:
        results.write(saved)
        typer.echo(f"\n{path}; saved as the baseline, {saved}")
    elif saved.exists():
        typer.echo(f"\n{baseline.text(Results.read(saved), results)}\n\n{path}")
    else:
        typer.echo(f"\n{path}; there is no baseline to compare with: `make bench-quick SAVE=1` makes one")


@app.command("building")
def beside_builds(
    *, builds: Builds = 3, seconds: Seconds = 6, scale: Scale = 1, output: Output = report.OUTPUT
) -> None:
    """Ours while a build runs, and alone."""
    with _site(scale) as site, _bench(site, ["ours"], ["Q1"]) as bench:
        results = Results(environment.described(site, {"builds": str(builds), "scale": f"{scale:g}"}, ""))
        bench.check()
        results.building = building.beside_a_build(bench, builds=builds, seconds=seconds)
    typer.echo(f"\n{report.building(results)}\n\n{report.written(results, output, 'building')}")


@app.command()
def growth(
    *,
    rows: Annotated[list[int], typer.Option(min=ROWS_PER_USER, help="Of a mart; may be given several times.")] = [  # noqa: B006
        100_000,
        1_000_000,
        10_000_000,
    ],
    datasets: Annotated[list[int], typer.Option(min=2, help="Of a snapshot; may be given several times.")] = [  # noqa: B006
        10,
        100,
        1000,
    ],
    rounds: Rounds = 5,
    seconds: Seconds = 3,
    scale: Scale = 1,
    output: Output = report.OUTPUT,
    note: Note = "",
) -> None:
    """How figures grow with rows and datasets, and what a build costs beside dbt's own, with a report and plots."""
    with _site(scale) as site:
        asked = {"rounds": f"{rounds}, loads of {seconds} s and more", "scale": f"{scale:g}"}
        measured = Growth(environment.described(site, asked, note))
        curves = {
            "rows": {size: (size, 1) for size in sorted(rows)},
            "datasets": {size: (_FEW_ROWS, size - 1) for size in sorted(datasets)},
        }
        for point in growing.costs(site, rounds=rounds):
            measured.points.append(point)
        for curve, sizes in curves.items():
            typer.echo(f"generating marts of {', '.join(f'{size:,}' for size in sizes)} {curve}")
            marts = {
                size: Generated(site.root / f"{curve}-{size}", rows=of_one, others=others)
                for size, (of_one, others) in sizes.items()
            }
            sizes_on_disk = (f"{size:,} ({made.bytes / 1e6:.0f} MB)" for size, made in marts.items())
            measured.environment[curve] = ", ".join(sizes_on_disk)
            for point in growing.along(curve, marts, rounds=rounds, seconds=seconds):
                measured.points.append(point)
            path = growth_report.written(measured, output)  # whatever becomes of the next
    _draw(path)
    typer.echo(f"\n{path.with_suffix('.md')}")


@contextmanager
def _site(scale: float) -> Iterator[Site]:
    # SIGTERM ends servers and takes away data as Ctrl-C does, and that also where a shell has us ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory).chmod(0o711)  # PostgreSQL runs as somebody else
        site = Site(Path(directory))
        typer.echo("building the marts")
        site.build(scale)
        yield site


def _bench(site: Site, peers: list[str] | tuple[str, ...], questions: list[str]) -> Bench:
    for chosen, known in ((peers, PEERS), (questions, QUESTIONS)):
        if unknown := set(chosen) - set(known):
            raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}")
    return Bench(
        site,
        [peer for name, peer in PEERS.items() if name in peers],
        [question for name, question in QUESTIONS.items() if name in questions],
    )


def _draw(figures: Path) -> None:
    python = PEERS_BIN / "python"
    if not python.exists():
        typer.echo("no plots: `deploy/setup.sh bench` installs Matplotlib, among others")
        return
    subprocess.run([python, "-m", "tests.bench.plots", figures.resolve()], check=True, cwd=REPO_ROOT)


if __name__ == "__main__":
    try:
        app()
    except (BundleError, Different, LoadFailed, NotStarted, Refused, SetUpFailed) as error:
        sys.exit(f"{type(error).__name__}: {error}")
