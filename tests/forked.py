"""Processes forked off one that has imported everything and opened nothing: a cold start in a tenth of the time."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["backend.app", "uvicorn", "tests.chaos.matrix"])
