"""What is done to requests before anybody looks at them: plain ASGI, since a body may come in any number of pieces."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api import problems


async def read_ahead(receive: Receive, limit: int) -> tuple[bytes, Receive]:
    """The body, or what came of it when it turned out to be longer than ``limit`` bytes; and what receives it again."""
    body = b""
    message: Message = {"type": "http.request", "more_body": True}
    while message.get("more_body") and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
    first = [{**message, "body": body}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return body, again


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
            body, receive = await read_ahead(receive, self._limit)
            fits = len(body) <= self._limit
        else:
            fits = True
        if fits:
            await self._app(scope, receive, send)
        else:
            await problems.body_too_large(self._limit).response(request)(scope, receive, send)


class HeadAsGet:
    """HEAD is answered like GET; the server leaves the body out. ``request.state.head`` says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, see the ASGI specification."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), "head": True}}
        await self._app(scope, receive, send)
