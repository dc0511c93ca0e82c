"""What is done to requests before anybody looks at them: plain ASGI, since a body may come in any number of pieces."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api import problems


class BodyLimit:
    """Refuses bodies of more than ``limit`` bytes, also those that don't say how long they are."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        length = request.headers.get("content-length")
        if length is not None:  # the server sees to it that no more comes
            fits = length.isdecimal() and int(length) <= self._limit
        elif "transfer-encoding" in request.headers:
            fits, receive = await self._read(receive)
        else:
            fits = True
        if fits:
            await self._app(scope, receive, send)
        else:
            await problems.body_too_large(self._limit).response(request)(scope, receive, send)

    async def _read(self, receive: Receive) -> tuple[bool, Receive]:
        """Whether the body fits; and what receives it again."""
        body = b""
        message: Message = {"type": "http.request", "more_body": True}
        while message.get("more_body") and len(body) <= self._limit:
            message = await receive()
            body += message.get("body", b"")
        first = [{**message, "body": body}]

        async def again() -> Message:
            return first.pop() if first else await receive()

        return len(body) <= self._limit, again


class HeadAsGet:
    """HEAD is answered like GET; the server leaves the body out. ``request.state.head`` says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, see the ASGI specification."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), "head": True}}
        await self._app(scope, receive, send)
