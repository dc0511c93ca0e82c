"""The control arm: publishing by writing in place, where the comparison has to report that other content is served.

Same marts, same backend, same procedure; only there is no snapshot: ``mart`` is a directory whose files are written
one after another, as dbt-duckdb's ``external`` does.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb

from tests.chaos import marts
from tests.chaos.faults import Ended, Fault
from tests.chaos.served import Backend, State
from tests.chaos.store_faults import overwritten, removed, truncated


class InPlaceSite:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "parquet"
        self.current = self.root / "mart"
        self.current.mkdir(parents=True)
        self.generation = 0
        self.states: list[State] = []
        self.good_build()
        self.warm = Backend(self.root, directory)
        self.states.append(self.warm.state())

    def cold(self) -> Backend:
        return Backend(self.root, self.directory)

    def close(self) -> None:
        self.warm.close()
        shutil.rmtree(self.directory)

    def good_build(self) -> str:
        self.generation += 1
        for name in marts.NAMES:
            self.write(name)
        return marts.expected(dict.fromkeys(marts.NAMES, self.generation))

    def write(self, name: str) -> None:
        with duckdb.connect() as connection:
            marts.write(connection, self.current / f"{name}.parquet", marts.select(name, self.generation))


def _half_a_build(site: InPlaceSite, dice: random.Random, _: int) -> Ended:
    site.generation += 1
    for name in marts.NAMES[: dice.randrange(1, len(marts.NAMES))]:
        site.write(name)
    return Ended("half a build is served")


def _damaged(damage: Callable[[Path, random.Random], str]) -> Callable[[InPlaceSite, random.Random, int], Ended]:
    def inject(site: InPlaceSite, dice: random.Random, _: int) -> Ended:
        return Ended("the damage is served", damage(site.current / f"{dice.choice(marts.NAMES)}.parquet", dice))

    return inject


FAULTS = [
    Fault("in place: builder dies half-way", "control", _half_a_build, 4, 1),
    *(Fault(f"in place: file {d.__name__}", "control", _damaged(d), 3, 1) for d in (truncated, overwritten, removed)),
]
