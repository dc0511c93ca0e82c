"""``python -m tests.chaos``: the full matrix, with a report; exit code 1 when any content changed or stayed away."""

from __future__ import annotations

import queue
import secrets
import sys
import threading
import time
from contextlib import nullcontext
from typing import Annotated

import typer

from tests.chaos import matrix, report
from tests.chaos.faults import Fault, Record
from tests.e2e.stack import alone


def main(
    layer: Annotated[list[str] | None, typer.Option(help="store, control, dbt, containers; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random; 0 draws one.")] = 0,
    workers: Annotated[int, typer.Option(help="How many faults at a time, each with a store of its own.")] = 2,
    only: Annotated[str, typer.Option(help="Faults whose name has this in it.")] = "",
    fast: Annotated[bool, typer.Option(help="The few that `make test` injects.")] = False,
) -> None:
    """Inject the faults and compare what is served."""
    seed = seed or secrets.randbelow(2**31)
    started = time.monotonic()
    wanted = layer or ["store", "control", "dbt", "containers"]
    due = [job for name in wanted for job in matrix.jobs(name, fast=fast) if only in job[0].name]
    skipped = [f.name for f in matrix.FAULTS if f.layer in wanted and f not in matrix.of_layer(f.layer)]
    typer.echo(f"{len(due)} faults, seed {seed}")
    # One stack of containers, and nothing beside it: they are what takes the time.
    with alone() if "containers" in wanted else nullcontext():
        found = _run([j for j in due if j[0].layer != "containers"], seed, workers)
        found += _run([j for j in due if j[0].layer == "containers"], seed, 1)
    order = {fault.name: number for number, fault in enumerate(matrix.FAULTS)}
    found.sort(key=lambda record: (order[record.fault], record.turn))
    path = report.write(found, seed=seed, seconds=time.monotonic() - started, skipped=skipped)
    typer.echo(f"{report.as_text(found)}\n\n{path}: {time.monotonic() - started:.0f} s, seed {seed}")
    sys.exit(len(found) != len(due) or not all(record.fine for record in found))


def _run(due: list[tuple[Fault, int]], seed: int, workers: int) -> list[Record]:
    todo: queue.SimpleQueue[tuple[Fault, int]] = queue.SimpleQueue()
    for job in due:
        todo.put(job)
    found: list[Record] = []

    def work() -> None:
        sites = matrix.Sites()
        try:
            while True:
                try:
                    fault, turn = todo.get_nowait()
                except queue.Empty:
                    return
                record = sites.inject(fault, seed=seed, turn=turn)
                found.append(record)
                mark = "ok" if record.fine else f"NOT OK: {record.message} {record.changed} {record.problems}"
                typer.echo(f"{len(found)}/{len(due)} {fault.name} #{turn}: {record.how}, {mark}")
        finally:
            sites.close()

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(due)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


if __name__ == "__main__":
    typer.run(main)
