"""``python -m deploy.source``: fills the source and keeps writing to it."""

import logging
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from backend.errors import BundleError
from deploy.source import load
from deploy.source import traffic as traffic_
from deploy.source.generate import generate
from deploy.source.settings import Source

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Scale = Annotated[
    float, typer.Option(envvar="SOURCE_SCALE", min=0.01, help="Multiplies 200 users and their transactions.")
]


def _report(where: str, seeded: load.Seeded) -> None:
    rows = ", ".join(f"{count:,} {name}" for name, count in seeded.rows.items())
    typer.echo(f"{where}: {'filled with' if seeded.fresh else 'left as it is, already filled with'} {rows}")


@app.command()
def seed_postgres(scale: Scale = 1.0) -> None:
    """Fill the PostgreSQL at SOURCE_HOST, unless it is filled already."""
    source = Source.from_env()
    _report(f"{source.host}:{source.port}/{source.database}", load.seed_postgres(source, partial(generate, scale)))


@app.command()
def seed_embedded(path: Annotated[Path, typer.Option(envvar="SOURCE_DUCKDB_PATH")], scale: Scale = 1.0) -> None:
    """Write the same tables to a DuckDB file, replacing it."""
    _report(str(path), load.seed_embedded(path, generate(scale)))


@app.command()
def traffic(rate: Annotated[float, typer.Option(min=0.01, help="Movements per second.")] = 20.0) -> None:
    """Write transactions and transfers until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    traffic_.run(Source.from_env(), rate=rate, stop=stop)


def main() -> None:
    """Runs the command line; what we can explain exits with status 1 and no traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        app()
    except BundleError as error:
        typer.secho(f"{error.message}\n  {error.hint}", err=True, fg=typer.colors.RED)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
