"""Where and when a run was, and what ran."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from backend.filepaths import REPO_ROOT
from tests.bench.site import Site

_OURS = ("duckdb", "fastapi", "uvicorn", "polars", "pyarrow")
_PEERS = ("roapi", "datasette", "datasette-parquet", "asyncpg")
_LOCK = Path(__file__).with_name("peers.lock")


def described(site: Site, asked: dict[str, str], note: str) -> dict[str, str]:
    """All that a reader of the figures has to know; ``asked`` is how the run was steered."""
    rows = ", ".join(f"{mart.name} {mart.rows:,}" for mart in site.manifest.marts.values())
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", _LOCK.read_text(), re.MULTILINE))
    versions = [f"{name} {version(name)}" for name in _OURS] + [f"{name} {locked[name]}" for name in _PEERS]
    described = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _git("describe", "--always", "--dirty"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"Linux {platform.release().partition('-')[0]}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions, *_installed()]),
        "marts": rows,
        **asked,
    }
    return {**({"note": note} if note else {}), **described}


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _installed() -> list[str]:
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    commands = [["wrk", "-v"], *([str(path), "--version"] for path in servers[-1:])]
    outputs = (subprocess.run(command, capture_output=True, text=True, check=False).stdout for command in commands)
    return [" ".join(output.split()[:3]) for output in outputs]


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=REPO_ROOT)
    return found.stdout.strip() or "unknown"
