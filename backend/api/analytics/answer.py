"""An answer made of the data: asked for once there is room for it, and no longer than anybody waits for it.

What it says of itself to caches, and when it is broken off: ``deploy/decisions/0014-formats.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from email.utils import format_datetime
from itertools import chain
from typing import Any

import orjson
import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from backend.api import compression, negotiation
from backend.api.admission import Admission, Job
from backend.api.analytics.cursor import Cursor
from backend.api.problems import ApiError
from backend.auth import Principal
from backend.duckdb.client import Connection, Database
from backend.errors import SnapshotCorrupt

log = structlog.get_logger(__name__)

_EXPORT = "export"  # the share of all of them: however many clients download slowly, half of the slots are left
_WORTH_COMPRESSING = 1000  # bytes: less fits into one packet as it is
_PART_BYTES = 1 << 18  # the server keeps what the client has not taken of one: so much, not a whole page
_VARY = "Authorization, Cookie, Accept, Accept-Encoding, Prefer"
_PINNED = "private, max-age=86400, immutable"
_CURRENT = "private, no-cache"


class Answer(Response):
    """What ``work`` makes of a connection to ``snapshot``, as JSON. It is asked for while the answer is sent.

    ``datasets`` are those that it is about, for the metrics. ``work`` may add to ``headers``. Whatever it raises is
    raised before anything is sent. The slot is kept until it is sent: what waits for its client is memory, too.
    """

    def __init__(
        self,
        request: Request,
        caller: Principal,
        work: Callable[[Connection], Any],
        snapshot: str | None = None,
        *,
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
        self._datasets = datasets
        accepted = ",".join(request.headers.getlist("accept-encoding"))
        self._coding = negotiation.encoding(accepted, tuple(compression.CODINGS)) if compressible else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, see the ASGI specification. Raises ApiError 429, 499 or 504, or what the work raises."""
        async with self._admitted(receive) as job:
            body = await job.run(self._read, job)
            if self.status_code != 304:  # noqa: PLR2004 - has no body whose length it could be
                self.headers["Content-Length"] = str(len(body))
            await self._send(job, _parts(body), send)

    def _read(self, job: Job) -> bytes:
        return b"".join(self._database.read(lambda connection: self._pieces(connection, job), self._snapshot))

    def _encoded(self, connection: Connection) -> Iterator[bytes]:
        return iter([orjson.dumps(self._work(connection))])

    def _pieces(self, connection: Connection, job: Job) -> Iterator[bytes]:
        """The body in pieces, the first of which is made; none when the client has it already."""
        job.interruptible(connection.interrupt)
        self.status_code, self.raw_headers[:] = 200, self._bare  # whatever an attempt before this one made of them
        self._request.state.snapshot = connection.snapshot  # for the header, also of an error
        self._request.state.datasets.update(known for known in self._datasets if known in connection.datasets)
        self._describe(connection)
        if self._is_known():
            self.status_code = 304
            connection.hold()  # for the `next` that the answer the client has may have
            return iter([b""])
        pieces = self._encoded(connection)
        first = next(pieces)
        pieces = chain([first], pieces)
        if self._coding is None or len(first) < _WORTH_COMPRESSING:
            return pieces
        self.headers["Content-Encoding"] = self._coding
        return compression.CODINGS[self._coding](pieces)

    def _describe(self, connection: Connection) -> None:
        self.headers["Vary"] = _VARY
        self.headers["Last-Modified"] = format_datetime(connection.last_refresh, usegmt=True)
        self.headers["Cache-Control"] = _PINNED if self._snapshot else _CURRENT
        # A DuckDB file has no name for what is in it but a time, which two builds may share.
        if connection.snapshot and self._request.method == "GET":
            self.headers["ETag"] = self._tag(connection.snapshot)

    def _tag(self, snapshot: str) -> str:
        """Of all that the answer depends on; a cursor stands for what the answer's own is signed with."""
        state, request = self._request.app.state, self._request
        depends_on = [
            snapshot,
            [self._caller.user_id, self._caller.all_rows],
            [request.url.path, sorted(request.query_params.multi_items()), request.headers.get("prefer")],
            [self.media_type, self._coding],
            state.settings.model_dump_json(),
            Cursor(dataset="", params={}, snapshot=snapshot, as_of="", offset=0).encode(state.cursor_key),
        ]
        return f'"{hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:32]}"'

    def _is_known(self) -> bool:
        known = ",".join(self._request.headers.getlist("if-none-match")).split(",")
        tag = self.headers.get("ETag")
        return tag is not None and any(item.strip().removeprefix("W/") in (tag, "*") for item in known)

    def _admitted(self, receive: Receive, *shares: str) -> AbstractAsyncContextManager[Job]:
        admission: Admission = self._request.app.state.admission
        return admission.admitted(self._caller.user_id, *shares, receive=receive)

    async def _send(self, job: Job, pieces: AsyncIterator[bytes], send: Send) -> None:
        """Send the answer, no faster than the client takes it. What fails now breaks the connection off."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in pieces:
                if piece:
                    await job.sent(send({"type": "http.response.body", "body": piece, "more_body": True}))
            await job.sent(send({"type": "http.response.body"}))
        except Exception as error:  # noqa: BLE001 - too late for any other way to say so
            # The server closes the connection of an answer that has no end.
            self._request.state.error_code = error.code if isinstance(error, ApiError) else "broken_off"
            log.warning("answer_broken_off", code=self._request.state.error_code, error=str(error))

    @property
    def _database(self) -> Database:
        database: Database = self._request.app.state.database
        return database


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PART_BYTES):
        yield body[start : start + _PART_BYTES]


class Export(Answer):
    """An answer that is sent piece by piece, as ``work`` makes them.

    No piece is sent before it is certain that all read so far is of one state. What fails later breaks the connection
    off, so that nobody takes a part for the whole.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, see the ASGI specification. Raises as Answer, before anything is sent."""
        async with self._admitted(receive, _EXPORT) as job:
            pieces = self._read_on(job)
            try:
                first = await job.run(next, pieces)
                await self._send(job, self._following(job, first, pieces), send)
            finally:
                await job.close(pieces)

    async def _following(self, job: Job, piece: bytes | None, rest: Iterator[bytes]) -> AsyncIterator[bytes]:
        if getattr(self._request.state, "head", False):
            return
        while piece is not None:
            yield piece
            piece = await job.run(next, rest, None)

    def _encoded(self, connection: Connection) -> Iterator[bytes]:
        pieces: Iterator[bytes] = self._work(connection)
        return pieces

    def _read_on(self, job: Job) -> Generator[bytes]:
        with self._database.reading(lambda connection: self._pieces(connection, job), self._snapshot) as read:
            connection, pieces = read
            for piece in pieces:
                if not connection.unchanged():
                    raise SnapshotCorrupt("the Parquet files were changed while they were read", hint="ask again")
                yield piece
