"""The same request again: one whose answer is kept is known by its bytes, before anything of it is read.

To find its route, read its parameters and say what its answer depends on takes longer than to send what is kept.
Why nothing else than that answer can come of it: ``deploy/decisions/0020-kept-answers.md``.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from starlette.datastructures import State
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.api.analytics.answer import SMALL, AnsweredFrom, send_in_time
from backend.api.analytics.kept import Kept
from backend.api.requests import read_ahead

_REQUESTS = 10_000
# Of each request its own, and no answer depends on them.
_PASSED_OVER = {b"x-request-id", b"traceparent", b"tracestate", b"user-agent", b"x-forwarded-for"}
_WITH_A_BODY = {b"content-length", b"transfer-encoding"}


@dataclass(frozen=True)
class _Seen:
    """A request that was answered: with what, for whose token, and what reports say of it."""

    source: AnsweredFrom
    token: str
    reported: dict[str, Any]
    route: Any


class Again:
    """Answers a request that was seen before, as long as it would be answered alike."""

    def __init__(self, app: ASGIApp, *, max_body: int) -> None:
        self._app = app
        self._max_body = max_body
        self._lock = threading.Lock()
        self._seen: LRUCache[bytes, _Seen] = LRUCache(_REQUESTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        if any(name in _WITH_A_BODY for name, _ in scope["headers"]):
            body, receive = await read_ahead(receive, self._max_body)
        name = _name(scope, body)
        with self._lock:
            seen = self._seen.get(name)
        if seen and (kept := _kept(scope["app"].state, seen)):
            scope["state"].update(seen.reported)
            scope["route"] = seen.route
            await send_in_time(Request(scope), kept, send)
            return
        await self._app(scope, receive, send)
        if source := scope["state"].get("answered_from"):
            reported = {key: scope["state"][key] for key in ("user_id", "snapshot", "datasets")}
            with self._lock:
                self._seen[name] = _Seen(source, scope["state"]["presented_token"], reported, scope["route"])


def _name(scope: Scope, body: bytes) -> bytes:
    """A digest of all that the request is."""
    headers = [part for header in scope["headers"] if header[0] not in _PASSED_OVER for part in header]
    # None of the parts before the body has a zero byte in it.
    parts = [scope["method"].encode(), scope["raw_path"], scope["query_string"], *headers, b"", body]
    return hashlib.sha256(b"\0".join(parts)).digest()


def _kept(app: State, seen: _Seen) -> Kept | None:
    """Its answer, where the token is still good for it and another request for it would be given the same."""
    if app.verifier.known(seen.token) is None:
        return None
    state = app.database.state(seen.source.pinned)
    if state is None or state.snapshot != seen.source.snapshot:
        return None
    kept = app.answers.get(seen.source.key)
    if not isinstance(kept, Kept) or kept.size > SMALL:
        return None
    if kept.pages:
        state.hold()
    return kept
