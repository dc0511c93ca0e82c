"""Errors as the API answers them: always ``{"error": {"code", "message", "hint"}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import duckdb
import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from backend.errors import BundleError, LockHeld, NoSnapshot, SnapshotCorrupt, SnapshotGone

log = structlog.get_logger(__name__)

# Seconds: a lock lasts as long as a build of a few marts, a first snapshot as long as a whole build.
_RETRY_SOON = "2"
_RETRY_LATER = "10"

# A damaged file shows as almost any of DuckDB's errors, even as a bare duckdb.Error; these it never shows as.
_OUR_FAULT = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.DataError,
    duckdb.InternalException,
)


class ErrorBody(BaseModel):
    """``code`` is for programs, ``message`` says what came and what was expected, ``hint`` what to do next."""

    code: str
    message: str
    hint: str


class ErrorEnvelope(BaseModel):
    """What every error looks like."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})

    def response(self, request: Request) -> Response:
        """The error as an HTTP response; its code is noted for the log and the metrics."""
        request.state.error_code = self.code
        body = {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
        headers = {"Cache-Control": "no-store", **self.headers}  # caches may keep some errors unless told otherwise
        return Response(orjson.dumps(body), self.status, headers=headers, media_type="application/json")


def bad_parameter(
    name: str, *, expected: str, came: str | None, position: int | None = None, value: int | None = None
) -> ApiError:
    """400 for a query parameter that makes no sense.

    ``came`` is None where the text ended; ``position`` the character, from 1, at which it stopped making sense, within
    the ``value``-th of the parameter's values.
    """
    where = f", value {value}" if value else ""
    where += f", character {position}" if position else ""
    got = "the end" if came is None else repr(_shortened(came))
    return ApiError(
        400,
        "invalid_parameter",
        f"parameter {_shortened(name)!r}{where}: expected {expected}, got {got}",
        hint="GET /api/analytics/datasets/{id} lists columns and types; /docs the parameters",
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "…"  # noqa: PLR2004 - enough to recognise it


def not_acceptable(*, accept: str, offers: Sequence[str]) -> ApiError:
    """406: the client takes nothing that we can send."""
    return ApiError(
        406,
        "not_acceptable",
        f"header 'Accept': expected one of {', '.join(offers)} or */* in it, got {accept[:200]!r}",
        hint="leave the header out for JSON, or name the format by the parameter `format`",
    )


def draining() -> ApiError:
    """503 of a replica that still serves but is about to stop."""
    return ApiError(
        503,
        "draining",
        "this replica is about to stop; it answers what it is asked until then",
        hint="ask again: another replica, or this one once it has started anew, is ready",
        headers={"Retry-After": _RETRY_SOON},
    )


def too_many_queries(found: str) -> ApiError:
    """429: this caller, or all of them, ask for more at once than there are places to wait."""
    return ApiError(
        429,
        "too_many_queries",
        f"no place for another query: {found}",
        hint=f"try again in {_RETRY_SOON} seconds, with fewer requests at once; one POST can hold several queries",
        headers={"Retry-After": _RETRY_SOON},
    )


def statement_timeout(seconds: float) -> ApiError:
    """504: the query was interrupted."""
    return ApiError(
        504,
        "statement_timeout",
        f"expected an answer within {seconds:g} seconds, stopped the query after that",
        hint="ask for less: fewer rows, a filter, an aggregate, or fewer queries in one request",
    )


def client_gone() -> ApiError:
    """499, as nginx has it: for the log and the metrics, since nobody is there to read it."""
    return ApiError(499, "client_gone", "the client closed the connection, its query was stopped", hint="ask again")


def body_too_large(limit: int) -> ApiError:
    """413: the request's body was not read."""
    return ApiError(
        413,
        "body_too_large",
        f"expected a body of {limit} bytes at most, got a larger one",
        hint="split the queries between several requests",
    )


def install(app: FastAPI) -> None:
    """Make every error that leaves the app an envelope."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(BundleError, _bundle_error)
    app.add_exception_handler(duckdb.Error, _unreadable)
    app.add_exception_handler(OSError, _unreadable)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


def internal_error(request: Request) -> Response:
    """500 for what nobody expected; the log has the traceback under the request's id."""
    return ApiError(
        500,
        "internal_error",
        "answering this request failed",
        hint=f"report request id {request.state.request_id}: the server's log has the details under it",
    ).response(request)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - it is registered for nothing else
    return error.response(request)


async def _bundle_error(request: Request, error: Exception) -> Response:
    if isinstance(error, SnapshotGone):
        return ApiError(
            410,
            "snapshot_gone",
            "the snapshot asked for is not there (any more)",
            hint="start again without snapshot or cursor, on the current one",
        ).response(request)
    # Paths are the operator's business: the caller reads what to do, the log what was found.
    log.warning("refused", reason=type(error).__name__, error=str(error))
    known = {
        NoSnapshot: ("no_snapshot", "there is no snapshot and no fallback to read yet", _RETRY_LATER),
        LockHeld: ("database_locked", "a build holds the database file", _RETRY_SOON),
        SnapshotCorrupt: ("data_unreadable", "the data can't be read", _RETRY_LATER),
    }
    for kind, (code, message, seconds) in known.items():
        if isinstance(error, kind):
            return _unavailable(code, message, seconds).response(request)
    return internal_error(request)


async def _unreadable(request: Request, error: Exception) -> Response:
    if isinstance(error, duckdb.OutOfMemoryException):
        log.warning("out_of_memory", error=str(error))
        problem = _unavailable("out_of_memory", "this query needs more memory than there is", _RETRY_SOON)
        problem.hint = "ask for fewer rows or columns, or try again when the server is less busy"
        return problem.response(request)
    if isinstance(error, duckdb.OutOfRangeException | duckdb.ConversionException):
        # Only sums and truncated dates can do that: literals are validated before.
        return ApiError(
            400,
            "out_of_range",
            "a value of the answer is beyond what its type can hold",
            hint="filter out the extreme values, or aggregate fewer rows",
        ).response(request)
    if isinstance(error, _OUR_FAULT):
        log.error("query_failed", exc_info=error)
        return internal_error(request)
    log.error("data_unreadable", exc_info=error)
    return _unavailable("data_unreadable", "the data can't be read", _RETRY_LATER).response(request)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3])
    problem = ApiError(422, "invalid_request", found, hint="/docs shows the shape of the body")
    return problem.response(request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for nothing else
    status = HTTPStatus(error.status_code)
    return ApiError(
        error.status_code,
        status.name.lower(),
        f"{request.method} {request.url.path}: {error.detail}",
        hint="/docs lists what there is",
        headers=error.headers,
    ).response(request)


def _unavailable(code: str, message: str, seconds: str) -> ApiError:
    hint = f"try again in {seconds} seconds; if it lasts, see the server's log and /health/ready"
    return ApiError(503, code, message, hint=hint, headers={"Retry-After": seconds})
