"""``dagster-daemon`` for one container that keeps what it has: ``python -m deploy.pipeline.daemon run -w FILE``.

Dagster starts another code server each minute, in case the code has changed. Ours is part of the image, and starting a
server takes seconds of a processor. And it opens a connection to its database for each thing it asks, eleven a second.
Dagster has no setting for either: ``deploy/decisions/0030-what-an-idle-stack-costs.md``.
"""

from __future__ import annotations

from typing import Any

from dagster import DagsterInstance
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._daemon import cli
from dagster._grpc import server

from deploy.pipeline import code_server
from deploy.pipeline.connections import keep_connections
from deploy.pipeline.orphans import fail_orphaned_runs

_start_anew = GrpcServerRegistry.clear_all_grpc_endpoints
_controller = cli.daemon_controller_from_instance  # type: ignore[attr-defined]


def start_what_ended(registry: GrpcServerRegistry) -> None:
    """Have another code server started only where there is none, or the one there was has ended."""
    servers = [known.server_process for known in registry._all_processes]  # noqa: SLF001
    if not servers or any(server.poll() is not None for server in servers):
        _start_anew(registry)  # type: ignore[no-untyped-call]


def our_code_server(executable_path: str) -> list[str]:
    """The command that a code server is started with."""
    return [executable_path, "-m", code_server.__name__]


def prepared(instance: DagsterInstance, *args: Any, **options: Any) -> Any:
    """The daemon's controller. First: settle what an earlier daemon left."""
    fail_orphaned_runs(instance)
    keep_connections(instance)
    return _controller(instance, *args, **options)


if __name__ == "__main__":
    GrpcServerRegistry.clear_all_grpc_endpoints = start_what_ended  # type: ignore[method-assign]
    server.get_python_environment_entry_point = our_code_server  # type: ignore[attr-defined]
    cli.daemon_controller_from_instance = prepared  # type: ignore[attr-defined]
    cli.main()
