"""The API as an ASGI app, which ``backend.server`` serves."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend import auth, cors, keys, logs, pages, tracing
from backend.api import problems, session
from backend.api.admission import Admission
from backend.api.analytics import cursor, endpoints
from backend.api.analytics.again import Again
from backend.api.analytics.formats import FORMS
from backend.api.analytics.kept import KeptAnswers
from backend.api.analytics.models import LastRefresh, SnapshotId
from backend.api.requests import BodyLimit, HeadAsGet
from backend.config import Settings
from backend.duckdb import client
from backend.metrics import Metrics

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_QUIET = ("/health/live", "/health/ready", "/metrics")

log = structlog.get_logger(__name__)


class Live(BaseModel):
    """The process answers."""

    status: str


class Ready(Live):
    """A query ran on what is served.

    ``status`` is ``degraded`` while that is not what the pointer names, or its files are damaged: ``problem`` says
    what was found.
    """

    problem: str | None
    snapshot: SnapshotId
    last_refresh: LastRefresh


def create_app(
    *, settings: Settings | None = None, database: client.Database | None = None, secret: str | None = None
) -> FastAPI:
    """The app; what is not given comes from the environment. Raises ConfigError when a key is missing or unfit."""
    logs.configure()
    app = FastAPI(
        title="Analytics",
        description="Personal finance marts: every user reads their own rows.",
        lifespan=_closing_the_database,
        docs_url=None,  # FastAPI's own load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.settings = settings = settings or Settings()
    known = keys.load(settings, secret)
    app.state.verifier = auth.Verifier(known, audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    app.state.cursor_key = cursor_key = cursor.Key(known.secrets or keys.cursor_secrets())
    app.state.answered_with = [settings.model_dump_json(), cursor_key.sign(b"").hex()]
    app.state.answers = answers = KeptAnswers(settings.kept_answers)
    app.state.database = database or client.database()
    app.state.database.keep_rows(FORMS)
    app.state.metrics = Metrics(app.state.database, known, answers)
    app.state.admission = admission = Admission(
        slots=settings.concurrent_queries, places=settings.queued_queries, seconds=settings.statement_timeout_seconds
    )
    app.state.metrics.running.set_function(lambda: admission.running)
    app.state.metrics.queued.set_function(lambda: admission.queued)
    app.state.draining = False
    app.state.worker = None  # which of several this is
    problems.install(app)
    app.include_router(endpoints.router)
    app.include_router(session.router)
    app.include_router(pages.router)
    _add_health(app)
    app.add_middleware(Again, max_body=settings.max_body)
    app.add_middleware(BodyLimit, limit=settings.max_body)
    app.add_middleware(Observed, metrics=app.state.metrics)
    app.add_middleware(HeadAsGet)
    cors.install(app, settings.cors_origins)
    return app


@asynccontextmanager
async def _closing_the_database(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.admission.close()
    app.state.database.close()


def _add_health(app: FastAPI) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> Live:
        """The process is up."""
        return Live(status="live")

    unavailable: dict[int | str, dict[str, Any]] = {503: {"model": problems.ErrorEnvelope}}

    @app.get("/health/ready", tags=["health"], responses=unavailable)
    async def ready() -> Ready:
        """A query ran on the current snapshot, or on the DuckDB file while there is none."""
        if app.state.draining:  # said at once, also where every thread has a query to answer
            raise problems.draining()
        connection = await run_in_threadpool(app.state.database.check)
        problem = app.state.database.status().problem
        return Ready(
            status="degraded" if problem else "ready",
            problem=problem,
            snapshot=connection.snapshot,
            last_refresh=connection.last_refresh,
        )

    @app.get("/metrics", tags=["health"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Prometheus metrics."""
        exposition = app.state.metrics.exposition()
        if app.state.worker:
            exposition = app.state.worker.metrics_of_all(exposition)
        return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


class Observed:
    """Gives each request an id and a span, and each answer its headers, a line in the log and its place in the metrics.

    Plain ASGI rather than a Starlette middleware class: an error that nobody handles is answered here, so that it,
    too, is an envelope with an id.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = logs.of_requests(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        came = request.headers.get("x-request-id", "")
        request.state.request_id = came if _REQUEST_ID.fullmatch(came) else uuid.uuid4().hex
        request.state.datasets = set()
        span = tracing.start(request.headers)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request.state.request_id
                headers["traceparent"] = span.traceparent
                if snapshot := getattr(request.state, "snapshot", None):
                    headers["X-Snapshot-Id"] = snapshot
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(
            request_id=request.state.request_id, trace_id=span.trace_id, span_id=span.span_id
        ):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                log.exception("unexpected_error", exc_info=error)
                if status:  # part of the answer is out: only breaking the connection tells the caller
                    raise
                await problems.internal_error(request)(scope, receive, send_with_headers)
            finally:
                self._note(request, status, time.perf_counter() - started)

    def _note(self, request: Request, status: int, seconds: float) -> None:
        route = getattr(request.scope.get("route"), "path", "unmatched")
        error_code = getattr(request.state, "error_code", None)
        self._metrics.observe(
            method=request.method,
            route=route,
            datasets=request.state.datasets,
            status=status,
            seconds=seconds,
            error_code=error_code,
        )
        if route in _QUIET and status < 400:  # noqa: PLR2004 - only their failures are news
            return
        self._log.info(
            "request",
            method=request.method,
            path=request.url.path,
            route=route,
            status=status,
            milliseconds=round(seconds * 1000, 1),
            user_id=getattr(request.state, "user_id", None),
            snapshot=getattr(request.state, "snapshot", None),
            error_code=error_code,
        )
