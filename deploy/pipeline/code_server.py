"""Dagster's commands, of which ``api grpc`` begins each run in a fork of a process that has imported our definitions.

Dagster starts a Python for each run, which imports all of it anew: seconds of a processor before anything is built.
``deploy/decisions/0032-a-run-is-forked.md``.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from dagster._cli import main
from dagster._grpc import server

_IMPORTED = ["deploy.pipeline.definitions"]


class ForkingServer(server.DagsterApiServer):
    """The code server of a container, where code does not change while it runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload(_IMPORTED)  # by the first run
        self._mp_ctx = forking  # type: ignore[assignment]  # of the same interface


if __name__ == "__main__":
    server.DagsterApiServer = ForkingServer  # type: ignore[misc]
    main()  # type: ignore[no-untyped-call]
