"""An answer made of the data: asked for once there is room for it, and no longer than anybody waits for it.

What it says of itself to caches, and when it is broken off: ``deploy/decisions/0014-formats.md``.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from itertools import chain
from typing import Any, TypeVar

import orjson
import structlog
from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from backend.api import compression, negotiation, problems
from backend.api.admission import Admission, Job
from backend.api.analytics import documents
from backend.api.analytics.kept import Kept, KeptAnswers, Promise
from backend.api.pieces import Buffer, Piece
from backend.api.problems import ApiError
from backend.auth import Principal
from backend.duckdb.client import Connection, Database, NeedsStatement, State
from backend.errors import SnapshotCorrupt

T = TypeVar("T")
Sent = Callable[[Awaitable[None]], Awaitable[None]]
"""Waits for a part to be on its way, no longer than the answer may take."""

log = structlog.get_logger(__name__)

_OK = 200
_NOT_MODIFIED = 304

_EXPORT = "export"  # the share of all of them: however many clients download slowly, half of the slots are left
_WORTH_COMPRESSING = 1000  # bytes: less fits into one packet as it is
SMALL = 1 << 16
"""Bytes of a body that goes out at once: the server waits for a client only where more than that is under way."""
_SHORT = 2048  # bytes of a question that is read between other requests: one of 50,000 values takes a while
_PART_BYTES = 1 << 18  # the server keeps what the client has not taken of one: so much, not a whole page
_VARY = b"Authorization, Cookie, Accept, Accept-Encoding, Prefer"
_PINNED = b"private, max-age=86400, immutable"
_CURRENT = b"private, no-cache"


@functools.lru_cache
def _http_date(moment: datetime) -> bytes:
    return format_datetime(moment, usegmt=True).encode()


@dataclass(frozen=True)
class AnsweredFrom:
    """Where an answer came from: what is kept under ``key``, on ``snapshot``, which was asked for if ``pinned``."""

    pinned: str | None
    snapshot: str
    key: bytes


class Answer(Response):
    """What ``work`` makes of a connection to ``snapshot``, as JSON. It is asked for while the answer is sent.

    ``question`` is what of the request the work depends on beside its URL; ``datasets`` are those that it is about,
    for the metrics. ``work`` may add to ``headers``. Whatever it raises is raised before anything is sent. The slot is
    kept until it is sent: what waits for its client is memory, too. An answer that is kept takes no slot.
    """

    def __init__(
        self,
        request: Request,
        caller: Principal,
        work: Callable[[Connection], Any],
        snapshot: str | None = None,
        *,
        question: str = "",
        datasets: Iterable[str] = (),
        media_type: str = "application/json",
        compressible: bool = True,
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["Content-Length"]
        self._bare = list(self.raw_headers)
        self._request = request
        self._caller = caller
        self._work = work
        self._snapshot = snapshot
        self._question = question
        self._datasets = datasets
        self._key: bytes | None = None
        self._on: str | None = None
        accepted = ",".join(request.headers.getlist("accept-encoding"))
        self._coding = negotiation.encoding(accepted, tuple(compression.CODINGS)) if compressible else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, see the ASGI specification. Raises ApiError 429, 499 or 504, or what the work raises."""
        self._begin()
        state = self._database.state(self._snapshot)
        key = self._described(state) if state else None
        if state and key and (kept := await self._at_hand(key)):
            if kept.pages:
                state.hold()
            self._answered_from(state, key, kept)
            await send_whole(self._request, kept, self._in_time, send)
            return
        with self._answers.making(key) as promise:
            if state and key and (kept := self._at_once(state)):
                self._keep(state, key, kept, promise)
                await send_whole(self._request, kept, self._in_time, send)
                return
            async with self._admitted(receive) as job:
                kept = await job.run(self._read, job)
                if state and key and key == self._key and kept.status == _OK:  # not of one published meanwhile
                    self._keep(state, key, kept, promise)
                await send_whole(self._request, kept, job.sent, send)

    def _keep(self, state: State, key: bytes, kept: Kept, promise: Promise) -> None:
        self._answers.keep(key, kept)
        promise.set_result(kept)
        self._answered_from(state, key, kept)

    def _at_once(self, state: State) -> Kept | None:
        """The answer, where it takes neither a statement nor much else: it is not worth a thread then, nor a slot."""
        length = len(self._request.scope["query_string"]) + len(self._question)
        if length > _SHORT or not (connection := state.at_hand()):
            return None
        try:
            return self._whole(self._pieces(connection))
        except NeedsStatement:
            return None

    def _answered_from(self, state: State, key: bytes, kept: Kept) -> None:
        if state.snapshot and kept.status == _OK:
            self._request.state.answered_from = AnsweredFrom(self._snapshot, state.snapshot, key)

    def _begin(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + self._admission.seconds

    async def _at_hand(self, key: bytes) -> Kept | None:
        """The answer that is kept, or that somebody is about to make; one without a body where the client has it."""
        if self._is_known():
            return Kept(_NOT_MODIFIED, tuple(self.raw_headers), (), pages=True)
        found = self._answers.get(key)
        return await self._in_time(asyncio.wrap_future(found)) if isinstance(found, Future) else found

    def _read(self, job: Job) -> Kept:
        return self._whole(self._database.read(functools.partial(self._pieces_in, job), self._snapshot))

    def _whole(self, pieces: Iterator[Piece]) -> Kept:
        parts = tuple(part for piece in pieces for part in piece.parts if part)
        size = sum(map(len, parts))
        if self.status_code == _OK:
            self.headers["Content-Length"] = str(size)
        pages = getattr(self._request.state, "pages", False)
        body = (b"".join(parts),) if size <= SMALL else parts
        return Kept(self.status_code, tuple(self.raw_headers), body, pages=pages)

    def _encoded(self, connection: Connection) -> Iterator[Piece]:
        return iter([Piece(documents.encoded(self._work(connection)), last=True)])

    def _pieces_in(self, job: Job, connection: Connection) -> Iterator[Piece]:
        job.interruptible(connection.interrupt)
        return self._pieces(connection)

    def _pieces(self, connection: Connection) -> Iterator[Piece]:
        """The body in pieces, the first of which is made; an empty one when the client has it already."""
        self._described(connection)
        if self._is_known():
            self.status_code = _NOT_MODIFIED
            connection.hold()  # for the `next` that the answer the client has may have
            return iter([Piece((), last=True)])
        pieces = self._encoded(connection)
        first = next(pieces)
        pieces = chain([first], pieces)
        if self._coding is None or first.size < _WORTH_COMPRESSING:
            return pieces
        self.headers["Content-Encoding"] = self._coding
        return compression.CODINGS[self._coding](pieces)

    def _described(self, state: State) -> bytes | None:
        """The headers of an answer on that state, and what to keep it by, if anything."""
        # Whatever an attempt before this one made of them.
        self.status_code, self.raw_headers[:] = _OK, self._bare
        self._request.state.snapshot = state.snapshot  # for the header, also of an error
        self._request.state.datasets.update(known for known in self._datasets if known in state.datasets)
        self.raw_headers += [
            (b"vary", _VARY),
            (b"last-modified", _http_date(state.last_refresh)),
            (b"cache-control", _PINNED if self._snapshot else _CURRENT),
        ]
        if state.snapshot != self._on:
            # A DuckDB file has no name for what is in it but a time, which two builds may share.
            self._key = self._key_on(state.snapshot) if state.snapshot else None
            self._on = state.snapshot
        if self._key and self._request.method == "GET":
            self.raw_headers.append((b"etag", b'"%b"' % self._key.hex()[:32].encode()))
        return self._key

    def _key_on(self, snapshot: str) -> bytes:
        """Of all that the answer depends on."""
        request = self._request
        depends_on = [
            snapshot,
            [self._caller.user_id, self._caller.all_rows],
            [request.method, request.scope["path"], sorted(request.query_params.multi_items()), self._question],
            [request.headers.get("prefer"), self.media_type, self._coding],
            request.app.state.answered_with,
        ]
        return hashlib.sha256(orjson.dumps(depends_on)).digest()

    def _is_known(self) -> bool:
        known = ",".join(self._request.headers.getlist("if-none-match")).split(",")
        tag = self.headers.get("ETag")
        return tag is not None and any(item.strip().removeprefix("W/") in (tag, "*") for item in known)

    def _admitted(self, receive: Receive, *shares: str) -> AbstractAsyncContextManager[Job]:
        return self._admission.admitted(self._caller.user_id, *shares, receive=receive, deadline=self._deadline)

    async def _in_time(self, awaited: Awaitable[T]) -> T:
        return await _until(self._deadline, awaited, self._admission.seconds)

    @property
    def _admission(self) -> Admission:
        admission: Admission = self._request.app.state.admission
        return admission

    @property
    def _answers(self) -> KeptAnswers:
        answers: KeptAnswers = self._request.app.state.answers
        return answers

    @property
    def _database(self) -> Database:
        database: Database = self._request.app.state.database
        return database


async def send_whole(request: Request, kept: Kept, sent: Sent, send: Send) -> None:
    """Send an answer that is all there, no faster than the client takes it: see ``_breaking_off``."""
    start = {"type": "http.response.start", "status": kept.status, "headers": kept.headers}
    with _breaking_off(request):
        if kept.size <= SMALL:
            await sent(_at_once(send, start, _part(b"".join(kept.body), more=False)))
            return
        starts = ((part, at) for part in kept.body for at in range(0, len(part), _PART_BYTES))
        first, *others = (_part(memoryview(part)[at : at + _PART_BYTES], more=True) for part, at in starts)
        await sent(_at_once(send, start, first))
        for message in others:
            await sent(send(message))
        await sent(send(_part(b"", more=False)))  # when all before it is on its way


async def send_in_time(request: Request, kept: Kept, send: Send) -> None:
    """``send_whole``, no longer than an answer may take."""
    seconds = request.app.state.admission.seconds
    deadline = asyncio.get_running_loop().time() + seconds
    await send_whole(request, kept, lambda sending: _until(deadline, sending, seconds), send)


async def _until(deadline: float, awaited: Awaitable[T], seconds: float) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await awaited
    except TimeoutError as error:
        raise problems.statement_timeout(seconds) from error


@contextmanager
def _breaking_off(request: Request) -> Iterator[None]:
    """Where an answer has begun: an error breaks it off, and the server closes the connection of one without an end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - too late for any other way to say so
        request.state.error_code = error.code if isinstance(error, ApiError) else "broken_off"
        log.warning("answer_broken_off", code=request.state.error_code, error=str(error))


async def _at_once(send: Send, *messages: Message) -> None:
    """In one turn of the event loop, so that ``backend.protocol`` writes them in one piece."""
    for message in messages:
        await send(message)


def _part(part: Buffer, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


class Export(Answer):
    """An answer that is sent piece by piece, as ``work`` makes them.

    No piece is sent before it is certain that all read so far is of one state. What fails later breaks the connection
    off, so that nobody takes a part for the whole.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, see the ASGI specification. Raises as Answer, before anything is sent."""
        self._begin()
        async with self._admitted(receive, _EXPORT) as job:
            pieces = self._read_on(job)
            try:
                first = await job.run(_next, pieces)
                if first.last and self.status_code == _OK:
                    self.headers["Content-Length"] = str(first.size)
                await self._send(job, first, pieces, send)
            finally:
                if inspect.getgeneratorstate(pieces) != inspect.GEN_CLOSED:
                    await job.close(pieces)

    async def _send(self, job: Job, piece: Piece, rest: Generator[Piece], send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        end = _part(b"", more=False)  # which waits until all before it is on its way
        with _breaking_off(self._request):
            if getattr(self._request.state, "head", False):
                await job.sent(_at_once(send, start, end))
                return
            await job.sent(_at_once(send, start, *_parts(piece)))
            while not piece.last:
                piece = await job.run(_next, rest)
                await job.sent(_at_once(send, *_parts(piece)))
            await job.sent(send(end))

    def _encoded(self, connection: Connection) -> Iterator[Piece]:
        pieces: Iterator[Piece] = self._work(connection)
        return pieces

    def _read_on(self, job: Job) -> Generator[Piece]:
        with self._database.reading(functools.partial(self._pieces_in, job), self._snapshot) as read:
            connection, pieces = read
            for piece in pieces:
                if not connection.unchanged():
                    raise SnapshotCorrupt("the Parquet files were changed while they were read", hint="ask again")
                yield piece


def _next(pieces: Generator[Piece]) -> Piece:
    """The next piece; with the last one all is closed that it came from."""
    piece = next(pieces)
    if piece.last:
        pieces.close()
    return piece


def _parts(piece: Piece) -> list[Message]:
    return [_part(part, more=True) for part in piece.parts if part]
