"""What the stack is doing, at one glance."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from backend import lockfile
from backend.errors import BundleError
from deploy.rollout.say import console
from deploy.rollout.site import Site
from deploy.rollout.tables import table

_JOURNAL_LINES = 8
_EVERY_SECONDS = 2


def overview(site: Site) -> RenderableType:
    """Phase, what is served and how old it is, containers with their mounts, the journal's last entries."""
    observed = site.observe()
    phase = f"{observed.phase}" if observed.phase is not None else f"between phases, or not all there: {observed}"
    lines = [f"Phase: {phase}", *_served(site)]
    if unfinished := site.journal.unfinished():
        lines.append("Unfinished: the move from phase {} to {}; run it again, or `make rollback`".format(*unfinished))
    if holder := lockfile.holder(site.directory / "lock"):
        lines.append(f"Under way: {holder}")
    containers = [
        (
            container.service,
            container.name,
            "" if container.phase is None else str(container.phase),
            f"{container.state} {container.health}".strip(),
            "\n".join(str(mount) for mount in container.mounts if not mount.target.startswith("/run/secrets/")),
        )
        for container in site.engine.containers()
    ]
    entries = [
        (e.at, e.command, f"{e.origin} → {e.target}", e.step, e.event, e.result, e.who)
        for e in site.journal.entries()[-_JOURNAL_LINES:]
    ]
    return Group(
        Text("\n".join(lines)),
        table("Containers", ("service", "container", "phase", "state", "mounts"), containers),
        table("Journal", ("at", "command", "phases", "step", "event", "result", "who"), entries),
    )


def _served(site: Site) -> list[str]:
    try:
        ready = site.ready()
    except BundleError as error:
        return [f"Served: unknown: {error.message}"]
    age = datetime.now(UTC) - datetime.fromisoformat(ready["last_refresh"])
    problem = f", {ready['status']}: {ready['problem']}" if ready["problem"] else ""
    return [
        f"Served: {'snapshot ' + ready['snapshot'] if ready['snapshot'] else 'the DuckDB file'}{problem}",
        f"Data as of: {ready['last_refresh']}, {age.total_seconds() / 60:.0f} minutes ago",
        f"API: http://{site.gateway_address}",
    ]


def watch(site: Site) -> None:
    """The overview, anew every two seconds, until Ctrl-C."""
    with suppress(KeyboardInterrupt), Live(overview(site), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_SECONDS)
            live.update(overview(site), refresh=True)
