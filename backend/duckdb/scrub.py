"""Looks after the files of the current snapshot, again and again, so that damage is known before it matters.

What is served lies verified in memory; the files matter for the next start, for a partial build that takes marts over
and for a rollback. The term is that of storage systems.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PAUSE = 20  # times the work: a large store takes a twentieth of a processor at most


class Scrubber:
    """Calls ``scrub`` every ``seconds`` in a thread of its own, until closed."""

    def __init__(self, scrub: Callable[[], None], seconds: float) -> None:
        self._scrub = scrub
        self._seconds = seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrubber", daemon=True)

    def start(self) -> None:
        """Begin, once ``seconds`` have passed."""
        self._thread.start()

    def close(self) -> None:
        """Stop; one pass under way is waited for."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = self._seconds
        while not self._closed.wait(pause):
            started = time.thread_time()
            self._scrub()
            pause = max(self._seconds, _PAUSE * (time.thread_time() - started))
