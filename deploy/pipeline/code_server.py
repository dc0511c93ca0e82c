"""Dagster's code server, in a thread of the daemon: definitions are loaded once, and runs begin in forks.

The daemon asks it over the network, as the web server does, which has no definitions of its own.
``deploy/decisions/0033-one-code-server.md``; runs: ``deploy/decisions/0032-a-run-is-forked.md``.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from typing import Any

from dagster import DagsterInstance
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._grpc import server

from deploy.pipeline.healthcheck import CODE_SERVER

LOCATION = "deploy.pipeline.definitions"


class ForkingServer(server.DagsterApiServer):
    """The code server of a container, where code does not change while it runs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        forking = multiprocessing.get_context("forkserver")
        # By the first run. Each run imports the program's main module as well.
        forking.set_forkserver_preload([LOCATION, "deploy.pipeline.daemon"])
        self._mp_ctx = forking  # type: ignore[assignment]  # of the same interface


def start(instance: DagsterInstance) -> None:
    """Load the definitions, and serve them for as long as this process lives, which ends when the server does.

    What fails while they are loaded is shown by Dagster's web server.
    """
    ending, threads, log = threading.Event(), FuturesAwareThreadPoolExecutor(), logging.getLogger("dagster.code_server")
    servicer = ForkingServer(
        server_termination_event=ending,
        logger=log,
        server_threadpool_executor=threads,
        loadable_target_origin=LoadableTargetOrigin(
            executable_path=sys.executable, module_name=LOCATION, working_directory=os.getcwd()
        ),
        lazy_load_user_code=True,
        instance_ref=instance.get_ref(),
        location_name=LOCATION,
    )
    host, port = CODE_SERVER
    # By its address: for nobody else than who finds it by that name.
    serving = server.DagsterGrpcServer(ending, servicer, log, threads, host=socket.gethostbyname(host), port=port)

    def serve() -> None:
        serving.serve()  # type: ignore[no-untyped-call]
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=serve, name="code-server", daemon=True).start()
