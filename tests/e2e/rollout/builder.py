"""Builds, one after another, for as long as there is somebody who can run them."""

import threading
from collections import Counter
from contextlib import contextmanager

PAUSE_SECONDS = 1  # between two builds, or two looks at a web server that is just being replaced


@contextmanager
def builds_of(stack):
    """Full builds in phases 1 and 2, until the block ends."""
    builder = Builder(stack)
    try:
        yield builder
    finally:
        builder.end()


class Builder:
    """``ended`` counts runs by their status: FAILURE is one whose daemon was stopped under it."""

    def __init__(self, stack):
        self.ended = Counter()
        self._stack = stack
        self._allowed = threading.Event()
        self._building = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self):
        """Build from now on; returns once a build is under way."""
        self._allowed.set()
        assert self._building.wait(300), "no build began"

    def last_one(self):
        """Begin no more: the one under way, if any, may end."""
        self._allowed.clear()

    def end(self):
        self._done.set()
        self._allowed.set()
        self._thread.join()

    def _run(self):
        while not self._done.is_set():
            self._allowed.wait()
            if not self._done.wait(PAUSE_SECONDS):
                self._build()

    def _build(self):
        run_id = self._asked(self._stack.launch)
        if run_id is None:
            return
        self._building.set()
        while not self._done.wait(0.5):
            status = self._asked(self._stack.status, run_id)
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                self.ended[status] += 1
                break
        self._building.clear()

    def _asked(self, ask, *arguments):
        try:
            return ask(*arguments)
        except Exception:  # noqa: BLE001 - the web server is being replaced: ask again later
            return None
