"""Faults of the store layer: what befalls the processes, the disk and the clock while a build goes on."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta

from tests.chaos import marts
from tests.chaos.faults import Ended, Fault
from tests.chaos.store_faults import FAULTS, fault
from tests.chaos.store_site import StoreSite
from tests.e2e.stack import wait_for

PARTIAL = marts.NAMES[1:2]

# --- at every boundary of a build, a partial build and a rollback -------------------------------------------------


def _at_step(kind: str, number: int) -> Callable[[StoreSite, random.Random, int], Ended]:
    def inject(site: StoreSite, _dice: random.Random, turn: int) -> Ended:
        step = 13 * turn % site.steps[kind] + 1  # few turns are spread over all of it, many reach each
        plan = site.plan(only=PARTIAL if kind == "partial" else marts.NAMES, fail_at=step, errno=number)
        ended = site.ended(site.start(plan))
        return Ended(ended.how, f"step {step} of {site.steps[kind]}: {ended.message}", ended.rows)

    return inject


for kind, full in (("whole", 30), ("partial", 30)):
    FAULTS.append(Fault(f"SIGKILL of the publisher at each step, {kind} build", "store", _at_step(kind, 0), full, 1))
for number, full in ((errno.ENOSPC, 30), (errno.EIO, 16), (errno.EROFS, 8)):
    name = f"{errno.errorcode[number]} at each step of a publisher"
    FAULTS.append(Fault(name, "store", _at_step("whole", number), full, 1))


@fault("SIGKILL at each step of a rollback", full=8)
def rollback_killed(site, _dice, turn):
    """A rollback changes what is served, on purpose: to what it was told, or not at all."""
    earlier = site.states[-2]
    run = site.start(site.plan(rollback=earlier.snapshot, fail_at=turn % site.steps["rollback"] + 1))
    result = run.result()
    return Ended(result.error, result.message, earlier.rows if run.moved_the_pointer else None)


@fault("SIGKILL of the builder at any moment", full=24)
def builder_killed(site, dice, _):
    faulty = site.start(site.plan())
    faulty.process.join(dice.uniform(0, 0.6))
    if faulty.process.is_alive():
        faulty.signal(signal.SIGKILL)
    return site.ended(faulty)


# --- who else is there --------------------------------------------------------------------------------------------


@fault("two publishers race", full=12)
def publishers_race(site, _dice, _):
    plans = [site.plan(name=f"racer-{n}") for n in (1, 2)]
    results = [racer.result() for racer in [site.start(plan) for plan in plans]]
    assert all(result.snapshot for result in results), results
    rows = {result.snapshot: site.rows(plan, result.snapshot) for plan, result in zip(plans, results, strict=True)}
    last = max(rows)
    return Ended("one after the other", rows=rows[last], passing=tuple(rows.values()))


@fault("second publisher that does not wait", full=5)
def publisher_in_a_hurry(site, _dice, _):
    with site.between_write_and_publish(name="the-first") as (first, _):
        second = site.start(site.plan(name="the-second", wait=0)).result()
        assert second.error == "LockHeld", second
        assert "the-first" in second.message, second
    return Ended("LockHeld", second.message, site.ended(first).rows)


@fault("builder stopped (SIGSTOP), another one tries", full=5)
def builder_stopped(site, _dice, _):
    with site.between_write_and_publish(name="the-stopped") as (stopped, _):
        stopped.signal(signal.SIGSTOP)
        second = site.start(site.plan(name="the-second", wait=0.2)).result()
        assert second.error == "LockHeld", second
        assert "the-stopped" in second.message, second
        stopped.signal(signal.SIGCONT)
    return Ended("LockHeld", second.message, site.ended(stopped).rows)


@fault("pointer rolled back under a build", full=5)
def rolled_back_under_a_build(site, _dice, _):
    earlier = site.states[-2]
    with site.between_write_and_publish() as (faulty, _):
        site.store.rollback(earlier.snapshot, holder="an operator")
    ended = site.ended(faulty)
    return Ended(ended.how, ended.message, earlier.rows)


@fault("lock files removed under a builder, another one builds", full=5)
def locks_removed(site, _dice, _):
    with site.between_write_and_publish(name="the-first") as (first, _):
        for path in site.root.glob("*.lock"):
            path.unlink()
        second = site.ended(site.start(site.plan(name="the-second")))
    result = first.result()
    assert result.error in ("AuditFailed", "PublishConflict", "FileNotFoundError"), result
    return Ended(result.error, result.message, second.rows)


@fault("what a dead builder left", full=8)
def left_by_the_dead(site, dice, _):
    building = site.root / "building"
    dead = site.start(site.plan(name="the-dead", gate=True))
    dead.written()
    dead.signal(signal.SIGKILL)
    dead.result()
    (building / "the-dead" / "tmp_fct_in.parquet").write_bytes(dice.randbytes(1000))
    shutil.copytree(site.current, building / "trash-of-somebody")
    (site.root / ".mart.next").symlink_to("snapshots/never-published")
    if dice.randrange(2):
        (building / "a-file").write_bytes(b"")
    return Ended("swept by the next")


@fault("clock steps backwards", full=8)
def clock_backwards(site, dice, _):
    plan = site.plan(clock=timedelta(days=-dice.randrange(1, 4000)))
    ended = site.ended(site.start(plan))
    assert os.readlink(site.root / "mart") > f"snapshots/{site.states[-1].snapshot}", "ids go back with the clock"
    return ended


@fault("clock is ahead for one build", full=3, fast=0)
def clock_ahead(site, dice, _):
    return site.ended(site.start(site.plan(clock=timedelta(minutes=dice.randrange(1, 60)))))


# --- the reader ---------------------------------------------------------------------------------------------------


@fault("SIGKILL of the backend under load", full=8, gap=True)
def backend_killed(site, dice, _):
    site.warm.process.join(dice.uniform(0, 0.2))
    site.warm.signal(signal.SIGKILL)
    site.warm.process.join()
    site.warm.start()
    return Ended("started again")


@fault("backend stopped (SIGSTOP) while builds publish and delete", full=5)
def backend_stopped(site, _dice, _):
    site.warm.signal(signal.SIGSTOP)
    try:
        rows = [site.good_build() for _ in range(3)]
    finally:
        site.warm.signal(signal.SIGCONT)
    return Ended("goes on with the newest", rows=rows[-1], passing=tuple(rows))


# --- a file system that is full, or read-only ---------------------------------------------------------------------


def _emptied(site: StoreSite) -> None:
    (site.root / "ballast").unlink(missing_ok=True)


@fault("disk full (tmpfs), from the first byte to the last", full=24, site="tmpfs", heal=_emptied)
def disk_full(site, dice, _):
    need = sum(path.stat().st_size for path in site.current.iterdir())
    free = os.statvfs(site.root)
    left = int(dice.uniform(0, 1.4) * need) // free.f_frsize
    with (site.root / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(1, free.f_bavail - left) * free.f_frsize)
    ended = site.ended(site.start(site.plan()))
    return Ended(ended.how, f"{left * free.f_frsize} bytes free, a build has {need}: {ended.message}", ended.rows)


def _remounted(site: StoreSite, how: str) -> None:
    def done() -> bool:  # busy as long as the last builder's descriptors are being closed
        return subprocess.run(["mount", "-o", f"remount,{how}", site.root], check=False, timeout=10).returncode == 0

    wait_for(done, f"{site.root} is mounted {how}", seconds=10, every=0.05)


@fault("read-only file system", full=8, site="tmpfs", heal=lambda site: _remounted(site, "rw"))
def read_only(site, _dice, _):
    _remounted(site, "ro")
    return site.ended(site.start(site.plan()))
