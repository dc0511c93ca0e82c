"""A builder in a process of its own: it can be stopped, killed at any step, run out of disk, or live in the past."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb

import backend.snapshots
from backend.errors import BundleError
from backend.snapshots import SnapshotStore
from tests.chaos import marts
from tests.chaos.served import end_with_parent
from tests.unit.store.test_crash import CALLS


@dataclass(frozen=True)
class Plan:
    """What a builder does.

    Right before the ``fail_at``-th call that changes the disk it dies by SIGKILL or, with ``errno``, that call fails;
    ``gate``: it waits between writing and publishing; ``clock``: how far its clock is off. ``instead`` has other SQL
    for some marts, around ``{mart}``; an empty one writes none.
    """

    root: Path
    generation: int
    name: str = "builder"
    only: tuple[str, ...] = marts.NAMES
    instead: Mapping[str, str] = field(default_factory=dict)
    rollback: str = ""
    wait: float = 30
    gate: bool = False
    fail_at: int = 0
    errno: int = 0
    clock: timedelta = timedelta()


@dataclass(frozen=True)
class Result:
    """``snapshot`` when the builder published to its end, else ``error`` (a type's name) and ``message``."""

    snapshot: str | None
    error: str = ""
    message: str = ""


def run(plan: Plan, connection: Connection, trace: Path) -> None:
    """The builder's process. Every call that changed the disk is noted in ``trace`` once it is done."""
    end_with_parent()
    if plan.clock:
        _shift_clock(plan.clock)
    store = SnapshotStore(plan.root)
    _count_calls(plan, trace)
    try:
        done = _rollback(store, plan) if plan.rollback else _build(store, plan, connection)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the table shows
        connection.send(Result(None, type(error).__name__, str(error)))
    else:
        connection.send(Result(done))


def _build(store: SnapshotStore, plan: Plan, connection: Connection) -> str:
    with store.build(plan.name, holder=plan.name, wait=plan.wait) as build:
        written = {}
        with duckdb.connect(config={"threads": 1}) as duck:
            for name in plan.only:
                if sql := plan.instead.get(name, "{mart}").format(mart=marts.select(name, plan.generation)):
                    written[name] = marts.write(duck, build.path / f"{name}.parquet", sql)
        build.link([name for name in marts.NAMES if name not in plan.only])
        if plan.gate:
            connection.send("written")
            connection.recv()
        manifest = build.publish(marts.SPECS, written=written)
    with suppress(BundleError, OSError):  # as the pipeline has it
        store.retain(keep=4, minutes=0)
    return manifest.id


def _rollback(store: SnapshotStore, plan: Plan) -> str:
    return store.rollback(plan.rollback, holder=plan.name).id


def _count_calls(plan: Plan, trace: Path) -> None:
    note = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    calls = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == plan.fail_at and not plan.errno:
                os.kill(os.getpid(), signal.SIGKILL)
            if calls == plan.fail_at:
                if name == "write_text":  # a full disk takes a part of it
                    real(args[0], args[1][: len(args[1]) // 2], **kwargs)
                raise OSError(plan.errno, os.strerror(plan.errno), str(args[0]) if args else None)
            result = real(*args, **kwargs)
            os.write(note, f"{name}\n".encode())
            return result

        return call

    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    Path.write_text = counted("write_text", Path.write_text)


def _shift_clock(by: timedelta) -> None:
    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + by

    backend.snapshots.datetime = Shifted
