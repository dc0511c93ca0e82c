"""Cross-origin requests: none is allowed but from the origins that are configured, and those bring no cookie."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from backend.api.problems import ApiError

_METHODS = ("GET", "HEAD", "POST")
_REQUEST_HEADERS = (
    "Accept-Encoding",
    "Authorization",
    "If-None-Match",
    "Prefer",
    "traceparent",
    "X-Request-Id",
)
_ANSWER_HEADERS = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Link",
    "Preference-Applied",
    "Retry-After",
    "traceparent",
    "WWW-Authenticate",
    "X-Next-Cursor",
    "X-Request-Id",
    "X-Row-Count",
    "X-Snapshot-Id",
)


def install(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Let pages of these origins ask and read; around everything else, so that they can read errors, too."""
    if origins:
        app.add_middleware(
            _Cors,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )


class _Cors(CORSMiddleware):
    """Starlette's, with a refusal like every other error of the API."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        refused = ApiError(
            response.status_code,
            "cors_refused",
            bytes(response.body).decode(),
            hint="only origins that API_CORS_ORIGINS lists may ask, with the methods and headers in this answer",
            headers={name: value for name, value in response.headers.items() if not name.startswith("content-")},
        )
        return refused.response(Request({"type": "http"}))
