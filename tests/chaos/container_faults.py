"""Faults of the containers' layer: what befalls the containers, their source and their file system."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from docker.models.containers import Container
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from tests.chaos.container_site import ContainerSite
from tests.chaos.faults import Ended, Fault
from tests.chaos.served import State
from tests.e2e.stack import wait_for

FAULTS: list[Fault] = []


def _fault(name: str, *, fast: int, full: int = 4, **options: object) -> Callable:
    def register(inject: Callable[[ContainerSite], Ended]) -> Callable:
        FAULTS.append(Fault(name, "containers", lambda site, _dice, _turn: inject(site), full, fast, **options))
        return inject

    return register


def _begun(site: ContainerSite) -> tuple[str, Path]:
    """A build under way, of a source that is not what is served; its run, and the directory it writes to."""
    site.other_state()
    run_id = site.stack.launch()
    directory = site.root / "building" / run_id
    wait_for(directory.is_dir, "the build has begun", seconds=120)
    return run_id, directory


def _failed(site: ContainerSite, run_id: str, *says: str) -> Ended:
    status = site.stack.finished(run_id)
    assert status == "FAILURE", status
    message = site.stack.failure(run_id)
    assert any(text in message for text in says), f"expected one of {says}: {message[-1500:]}"
    return Ended("run failed", message[:300])


@_fault("SIGKILL of the daemon's container mid-build", fast=0)
def daemon_killed(site):
    run_id, directory = _begun(site)

    def how_far() -> str:
        if any(directory.glob("*.parquet")):
            return "a mart is written"
        return "" if directory.is_dir() else "published"

    # On a busy machine nobody may have looked while it was there.
    if wait_for(how_far, "a mart is written", seconds=120) == "published":
        status = site.stack.finished(run_id)
        assert status == "SUCCESS", f"{status}: {site.stack.failure(run_id)}"
        return Ended("published before the kill", rows=site.rows)
    site.stack.container("dagster-daemon").kill("SIGKILL")
    site.stack.up("dagster-daemon")
    assert site.stack.status(run_id) == "FAILURE"
    return Ended("run failed")


@retry(
    retry=retry_if_exception_message(match=".*unable to freeze"),
    stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True,
)  # fmt: skip
def _pause(container: Container) -> None:
    """The engine gives up after some milliseconds where a process of it can't be stopped right now, and says so."""
    container.pause()


@_fault("docker pause of the daemon mid-build, another one builds", fast=0)
def daemon_paused(site):
    run_id, _ = _begun(site)
    daemon = site.stack.container("dagster-daemon")
    _pause(daemon)
    try:
        second = site.stack.run(
            *("run", "--rm", "--no-deps", "-T", "-e", "BUILD_LOCK_WAIT_SECONDS=1", "-e", "DBT_TARGET_PATH=/tmp/target"),
            *("dagster-daemon", "python", "-m", "deploy.pipeline", "build"),
            check=False,
        )
        said = second.stdout + second.stderr
        assert second.returncode != 0, said[-1500:]
        assert "it is held by" in said, said[-1500:]
        assert run_id in said, said[-1500:]
    finally:
        daemon.unpause()
    status = site.stack.finished(run_id)
    assert status == "SUCCESS", f"{status}: {site.stack.failure(run_id)}"
    return Ended("LockHeld, then published", said[-300:], site.rows)


@_fault("SIGKILL of PostgreSQL mid-read", fast=1)
def postgres_killed(site):
    """A lock on one of the tables holds the landing in the middle."""
    site.other_state()
    lock = "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"
    postgres = site.stack.container("postgres")
    postgres.exec_run(["psql", "-U", "postgres", "-d", "finance", "-c", lock], detach=True)
    run_id = site.stack.launch()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'analytics_reader' AND wait_event_type = 'Lock'"
    wait_for(lambda: site.stack.psql(waiting) != "0", "the build reads the source", seconds=120)
    postgres.kill("SIGKILL")
    ended = _failed(site, run_id, "server closed the connection", "connection", "postgres")
    site.stack.up("postgres")
    return ended


@_fault("SIGKILL of the backend's container under load", fast=1, full=8, gap=True)
def backend_killed(site):
    """The kernel's signal rather than ``docker kill``, after which the engine would not start it again."""
    backend = site.stack.container("backend")
    backend.update(restart_policy={"Name": "always"})
    killed = backend.attrs["State"]["Pid"]
    os.kill(killed, signal.SIGKILL)

    def another() -> bool:
        backend.reload()
        return backend.attrs["State"]["Pid"] not in (0, killed)

    wait_for(another, "the engine has started it anew", seconds=60)  # a signal takes its time on a busy machine
    wait_for(lambda: isinstance(site.warm.read(), State), "the backend answers again", seconds=120)
    return Ended("came back by itself")


def _unballasted(site: ContainerSite) -> None:
    (site.root / "ballast").unlink(missing_ok=True)


@_fault("disk full (tmpfs) under the daemon", fast=1, heal=_unballasted, site="tmpfs")
def disk_full(site):
    free = os.statvfs(site.root)
    with (site.root / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, (free.f_bavail - 8) * free.f_frsize)
    site.other_state()
    return _failed(site, site.stack.launch(), "No space left")


def _remount(site: ContainerSite, how: str) -> None:
    def done() -> bool:
        return subprocess.run(["mount", "-o", f"remount,{how}", site.root], check=False, timeout=10).returncode == 0

    wait_for(done, f"{site.root} is mounted {how}", seconds=10)


@_fault(
    "read-only file system under the daemon",
    fast=0, heal=lambda site: _remount(site, "rw"), site="tmpfs",
)  # fmt: skip
def read_only(site):
    _remount(site, "ro")
    site.other_state()
    return _failed(site, site.stack.launch(), "Read-only file system")
