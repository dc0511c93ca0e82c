"""Checks before a promotion. None changes anything; one that can't be made says so, and that blocks as well."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend import lockfile
from backend.errors import BundleError
from deploy.rollout import report
from deploy.rollout.moves import PIPELINE
from deploy.rollout.phases import BACKEND, DAEMON, PHASES
from deploy.rollout.site import GATEWAY, Site

_ENGINE, _COMPOSE = (20, 10), (2, 24, 4)
_SIZES = """
import os, sys
root, file = sys.argv[1:]
parquet = os.path.join(root, "mart")
directory, names = (os.path.realpath(parquet), os.listdir(parquet)) if os.path.isdir(parquet) else (
    os.path.dirname(file), [os.path.basename(file)] if os.path.isfile(file) else [])
free = os.statvfs(root if os.path.isdir(root) else os.path.dirname(root))
print(sum(os.path.getsize(os.path.join(directory, name)) for name in names), free.f_bavail * free.f_frsize)
"""


@dataclass(frozen=True)
class Finding:
    """One check: whether all is well, what was expected, what was found, and what to do if they differ."""

    check: str
    verdict: Literal["ok", "failed", "unknown"]
    expected: str
    found: str
    to_do: str = ""


class _Unfit(Exception):
    """What was found is not what was expected."""


@dataclass(frozen=True)
class _Check:
    """``run`` says what it found, or raises _Unfit when that isn't what was expected; other errors mean: unknown."""

    name: str
    run: Callable[[Site, int], str]
    expected: str
    to_do: str


def preflight(site: Site, target: int) -> list[Finding]:
    """All checks for a promotion to phase ``target``."""
    return [_made(check, site, target) for check in _CHECKS]


def _made(check: _Check, site: Site, target: int) -> Finding:
    expected = check.expected.format(target=target, before=target - 1)
    try:
        return Finding(check.name, "ok", expected, check.run(site, target))
    except _Unfit as unfit:
        return Finding(check.name, "failed", expected, str(unfit), check.to_do)
    except BundleError as error:
        return Finding(check.name, "unknown", expected, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - whatever it is, the check was not made
        return Finding(check.name, "unknown", expected, f"{type(error).__name__}: {error}", check.to_do)


def _engine(site: Site, _: int) -> str:
    return _at_least(site.engine.version(), _ENGINE)


def _compose(site: Site, _: int) -> str:
    return _at_least(site.shell.output(site.compose.version()).strip(), _COMPOSE)


def _at_least(version: str, minimum: tuple[int, ...]) -> str:
    if tuple(map(int, re.findall(r"\d+", version)[: len(minimum)])) < minimum:
        raise _Unfit(version)
    return version


def _phase(site: Site, target: int) -> str:
    observed = site.observe()
    if observed.phase == target - 1:
        return str(observed)
    if observed.serving and observed.serving <= {target - 1, target} and site.journal.unfinished():
        return f"a move that was interrupted: {observed}"
    raise _Unfit(str(observed))


def _mounts(site: Site, _: int) -> str:
    strangers = [container.name for container in site.observe().containers if container.phase is None]
    if strangers:
        raise _Unfit(f"{', '.join(strangers)}: mounts or variables of no phase")
    return "; ".join(
        f"{container.service} {mount}"
        for container in site.observe().containers
        for mount in container.mounts
        if mount.target == PHASES[container.phase or 0][container.service].mount.target
    )


def _ready(site: Site, _: int) -> str:
    ready = site.ready()
    if ready["status"] != "ready":
        raise _Unfit(f"{ready['status']}: {ready['problem']}")
    return f"snapshot {ready['snapshot']}" if ready["snapshot"] else f"the DuckDB file of {ready['last_refresh']}"


def _space(site: Site, target: int) -> str:
    backend = site.one(BACKEND)  # of what is served; the daemon is stopped while a move is interrupted
    place = PHASES[backend.phase or 0][BACKEND]
    root = place.variables.get("PARQUET_DIR", f"{place.mount.target}/parquet")
    file = site.config(backend.phase or 0).variable(BACKEND, "DUCKDB_PATH") or ""
    size, free = map(int, site.execute(backend, "python", "-c", _SIZES, root, file).split())
    if target == 2:  # noqa: PLR2004 - the phase with a directory of the host's
        free = shutil.disk_usage(_existing(site.parquet_host_dir)).free
    keep = int(site.config(target).variable(DAEMON, "SNAPSHOTS_KEEP") or 0)
    found = f"{keep + 1} times {size / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free for {site.storage(target)}"
    if not size or free < (keep + 1) * size:
        raise _Unfit(found)
    return found


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _storage(site: Site, target: int) -> str:
    if target != 2:  # noqa: PLR2004
        return f"the volume {site.storage(target)}, given to its user by storage-init"
    path, user = site.parquet_host_dir, site.config(target).user(DAEMON)
    existing = _existing(path)
    if path.exists() and not path.is_dir():
        raise _Unfit(f"{path} is no directory")
    stat = existing.stat()
    return f"{existing} of {stat.st_uid}:{stat.st_gid}, for {user}; storage-init gives {path} to it"


def _secrets(site: Site, target: int) -> str:
    unfit = []
    for name, file in sorted(site.config(target).secrets.items()):
        path = Path(file)
        if not path.is_file() or not path.stat().st_size:
            unfit.append(f"{path} is missing or empty")
        elif path.parent.stat().st_mode & 0o077 and name != "ca_bundle":
            unfit.append(f"others can look into {path.parent}")
    if unfit:
        raise _Unfit("; ".join(dict.fromkeys(unfit)))
    return f"{len(site.config(target).secrets)} files"


def _ports(site: Site, target: int) -> str:
    taken = []
    for service, (address, port) in site.config(target).ports.items():
        ours = {p for c in site.engine.containers(service) if c.running for p in c.ports.values()}
        if f"{address}:{port}" in ours:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                taken.append(f"{address}:{port} for {service}: {error.strerror}")
    if taken:
        raise _Unfit("; ".join(taken))
    return ", ".join(f"{a}:{p} {s}" for s, (a, p) in site.config(target).ports.items()) or "the engine picks them"


def _images(site: Site, target: int) -> str:
    missing = sorted(image for image in site.config(target).images if site.engine.image_id(image) is None)
    if missing:
        raise _Unfit(f"not there: {', '.join(missing)}")
    return f"{len(site.config(target).images)} images"


def _gateway(site: Site, _: int) -> str:
    return f"{site.one(GATEWAY).name} on {site.gateway_address}"


def _source(site: Site, target: int) -> str:
    command = site.compose.run(target, DAEMON, *PIPELINE, "check-source")
    return site.shell.output(command).strip().rsplit("\n", 1)[-1]


def _file(site: Site, target: int) -> str:
    if target != 1:
        return "no file is read any more"
    if not site.adopted:
        return f"{site.legacy_file} is the example's"
    command = site.compose.run(target, DAEMON, *PIPELINE, "check-file")
    return site.shell.output(command).strip().rsplit("\n", 1)[-1]


def _nobody(site: Site, _: int) -> str:
    if found := lockfile.holder(site.directory / "lock"):
        raise _Unfit(f"held by {found}")
    return "nobody"


def _builds(site: Site, _: int) -> str:
    if not any(daemon.running for daemon in site.engine.containers(DAEMON)):
        return "none can run: the daemon is stopped"
    running = site.builds()
    return f"{', '.join(running)} under way: the move waits for its end" if running else "none"


def _parity(site: Site, target: int) -> str:
    kept = report.read(site)
    if kept is None:
        raise _Unfit("no report")
    problem = kept.problem(
        phase=target - 1,
        image=site.engine.image_id(site.config(target).image(DAEMON)),
        max_age_minutes=site.settings.parity_max_age_minutes,
    )
    if problem:
        raise _Unfit(problem)
    return f"equal, {kept.age_minutes:.0f} minutes ago"


_CHECKS = [
    _Check("engine", _engine, "Docker Engine 20.10 or newer", "upgrade the engine"),
    _Check("compose", _compose, "Docker Compose 2.24.4 or newer", "upgrade Compose, or run `make setup`"),
    _Check("rollout lock", _nobody, "no other rollout", "wait for it, or end it: its lock ends with it"),
    _Check(
        "phase",
        _phase,
        "all of phase {before}, running",
        "`make status` shows more; `make rollback` ends what was begun",
    ),
    _Check(
        "mounts", _mounts, "each container with the mount and the variables of its phase", "`docker compose up` it anew"
    ),
    _Check("gateway", _gateway, "the gateway runs", "`make up` with the phase that runs"),
    _Check(
        "data", _ready, "a snapshot or the file is served, undamaged", "`make logs`; build anew, or roll the data back"
    ),
    _Check("builds", _builds, "none, or one that the move waits for", "`make logs`"),
    _Check("images", _images, "all images of phase {target} are in the engine", "`make images`"),
    _Check("secrets", _secrets, "a file each, not empty, in a directory closed to others", "`make secrets`"),
    _Check("ports", _ports, "free, or the stack's own", "end what uses them, or set PORT and DAGSTER_PORT"),
    _Check("storage", _storage, "a place for the marts of phase {target}", "set PARQUET_HOST_DIR to a directory"),
    _Check("disk space", _space, "room for SNAPSHOTS_KEEP + 1 snapshots", "free some, or set SNAPSHOTS_KEEP"),
    _Check("source", _source, "reachable, as a role that can only read", "see deploy/source/initdb/10-roles.sh"),
    _Check("file", _file, "what phase 0 shows can be read as phase {target} will show it", "see deploy/ADOPT.md"),
    _Check("parity", _parity, "a report that says equal, and is fresh", "`make verify`"),
]
