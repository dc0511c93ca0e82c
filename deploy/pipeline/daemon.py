"""``dagster-daemon`` with the code server in it: ``python -m deploy.pipeline.daemon run -w FILE``.

And with connections that it keeps: Dagster opens one to its database for each thing it asks, eleven a second, and has
no setting for it. ``deploy/decisions/0030-what-an-idle-stack-costs.md``.
"""

from __future__ import annotations

from typing import Any

from dagster import DagsterInstance
from dagster._daemon import cli

from deploy.pipeline import code_server
from deploy.pipeline.connections import keep_connections
from deploy.pipeline.orphans import fail_orphaned_runs

_controller = cli.daemon_controller_from_instance  # type: ignore[attr-defined]


def prepared(instance: DagsterInstance, *args: Any, **options: Any) -> Any:
    """The daemon's controller. First: settle what an earlier daemon left, and serve the definitions."""
    fail_orphaned_runs(instance)
    keep_connections(instance)
    code_server.start(instance)
    return _controller(instance, *args, **options)


if __name__ == "__main__":
    cli.daemon_controller_from_instance = prepared  # type: ignore[attr-defined]
    cli.main()
