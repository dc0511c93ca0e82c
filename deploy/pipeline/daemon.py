"""``dagster-daemon``, except that it keeps the code it has loaded: ``python -m deploy.pipeline.daemon run -w FILE``.

Dagster starts another code server each minute, in case the code has changed. Ours is part of the image, and starting a
server takes seconds of a processor. Dagster has no setting for it:
``deploy/decisions/0030-what-an-idle-stack-costs.md``.
"""

from __future__ import annotations

from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._daemon.cli import main

_start_anew = GrpcServerRegistry.clear_all_grpc_endpoints


def start_what_ended(registry: GrpcServerRegistry) -> None:
    """Have another code server started only where there is none, or the one there was has ended."""
    servers = [known.server_process for known in registry._all_processes]  # noqa: SLF001
    if not servers or any(server.poll() is not None for server in servers):
        _start_anew(registry)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    GrpcServerRegistry.clear_all_grpc_endpoints = start_what_ended  # type: ignore[method-assign]
    main()
