"""Which queries run, how many at once, and for how long. Why: ``deploy/decisions/0013-limits.md``.

A query runs on a thread of a pool that only queries use, so health, metrics and refusals never wait for one. Nobody
gets more than half of the slots or of the queue; whatever a request still does when its time is up, or when its client
has gone, is interrupted. Turns are taken under a lock rather than on an event loop: any loop may ask.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, TypeVarTuple

import duckdb
from starlette.types import Receive

from backend.api import problems

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_INTERRUPT_SECONDS = 0.05


class Stopped(Exception):
    """The work goes no further: nobody waits for it any more."""


@dataclass(eq=False)
class _Turn:
    """A request's turn to run; ``shares`` are the callers and kinds that it counts for."""

    shares: tuple[Hashable, ...]
    come: Future[None] = field(default_factory=Future)


class Admission:
    """``slots`` queries at once, and ``places`` more that wait, each for ``seconds`` in all."""

    def __init__(self, *, slots: int, places: int, seconds: float) -> None:
        self._slots = slots
        self._places = places
        self.seconds = seconds
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="query")
        self._lock = threading.Lock()
        self._running: list[_Turn] = []
        self._waiting: list[_Turn] = []

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def close(self) -> None:
        """Take no more; what runs ends by itself."""
        self._pool.shutdown(wait=False)

    @asynccontextmanager
    async def admitted(self, *shares: Hashable, receive: Receive, deadline: float) -> AsyncIterator[Job]:
        """A job on a slot, kept until the block ends; ``shares`` begin with the caller, ``deadline`` is of the loop.

        Raises ApiError 429 when there is no place to wait or no turn comes in time, and 499 when the client, whose
        ``receive`` it is, goes away meanwhile.
        """
        loop = asyncio.get_running_loop()
        gone = loop.create_task(_disconnected(receive))
        job = Job(self._pool, gone, deadline=deadline, seconds=self.seconds)
        try:
            turn = self._queued(shares)
            try:
                if not turn.come.done():
                    await job.turn(asyncio.wrap_future(turn.come))
                yield job
            finally:
                self._done(turn)
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    def _queued(self, shares: tuple[Hashable, ...]) -> _Turn:
        turn = _Turn(shares)
        with self._lock:
            self._waiting.append(turn)
            self._take_turns()
            full = len(self._waiting) > self._places or self._has_share(self._waiting, turn, self._places, over=1)
            if not turn.come.done() and full:
                self._waiting.remove(turn)
                raise problems.too_many_queries(f"{len(self._running)} run and {len(self._waiting)} wait")
        return turn

    def _done(self, turn: _Turn) -> None:
        with self._lock:
            (self._running if turn in self._running else self._waiting).remove(turn)
            self._take_turns()

    def _take_turns(self) -> None:
        while len(self._running) < self._slots:
            ready = [turn for turn in self._waiting if not self._has_share(self._running, turn, self._slots)]
            if not ready:
                return
            callers = Counter(turn.shares[0] for turn in self._running)
            first = min(ready, key=lambda turn: callers[turn.shares[0]])
            self._waiting.remove(first)
            self._running.append(first)
            first.come.set_result(None)

    @staticmethod
    def _has_share(turns: list[_Turn], turn: _Turn, of: int, *, over: int = 0) -> bool:
        """Whether one that the turn counts for has half of what there is already."""
        held = Counter(share for other in turns for share in other.shares)
        return any(held[share] - over >= max(1, of // 2) for share in turn.shares)


class Job:
    """The work of one admitted request, on one thread at a time."""

    def __init__(self, pool: ThreadPoolExecutor, gone: asyncio.Task[None], *, deadline: float, seconds: float) -> None:
        self._pool = pool
        self._gone = gone
        self._deadline = deadline
        self._seconds = seconds
        self._stopped = False
        self._interrupt: Callable[[], None] = lambda: None

    def interruptible(self, interrupt: Callable[[], None]) -> None:
        """Called by the work: how to end what it does next. Raises Stopped when it is to do nothing more."""
        self._interrupt = interrupt
        if self._stopped:
            raise Stopped

    async def turn(self, come: asyncio.Future[None]) -> None:
        """Wait for it. Raises ApiError 429 or 499."""
        if not await self._finished(come):
            if self._gone.done():
                raise problems.client_gone()
            raise problems.too_many_queries(f"no turn came in {self._seconds:g} seconds")

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What the function returns or raises, else ApiError: 504 when the time is up, 499 when the client is gone."""
        # In the context of the request, so that what is logged has its ids.
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(function, *args))
        try:
            if await self._finished(work):
                return work.result()
        finally:
            # Whatever becomes of the request, its slot is free only when nothing runs in it any more. An interrupt
            # that comes between two statements hits neither, hence more than one.
            while not work.done():
                self._stop()
                await asyncio.wait({work}, timeout=_INTERRUPT_SECONDS)
        work.exception()  # of no interest, but asked for
        raise self._given_up()

    async def sent(self, sending: Awaitable[None]) -> None:
        """Wait until a part of the answer is on its way. Raises as ``run`` when the client does not take it in time."""
        task = asyncio.ensure_future(sending)
        if not await self._finished(task):
            task.cancel()
            raise self._given_up()
        task.result()

    async def close(self, generator: Generator[Any]) -> None:
        """Let a generator that ``run`` was given clean up, however late it is."""
        await asyncio.get_running_loop().run_in_executor(self._pool, generator.close)

    def _stop(self) -> None:
        self._stopped = True
        with suppress(duckdb.ConnectionException):  # closed meanwhile
            self._interrupt()

    def _given_up(self) -> problems.ApiError:
        return problems.client_gone() if self._gone.done() else problems.statement_timeout(self._seconds)

    async def _finished(self, work: asyncio.Future[T]) -> bool:
        left = self._deadline - asyncio.get_running_loop().time()
        either: set[asyncio.Future[Any]] = {work, self._gone}
        await asyncio.wait(either, timeout=max(0, left), return_when=asyncio.FIRST_COMPLETED)
        return work.done()


async def _disconnected(receive: Receive) -> None:
    """Returns once the client has closed the connection; its body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
