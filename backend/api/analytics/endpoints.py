"""The analytics endpoints. Each says what to ask; ``Answer`` asks it, within the limits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Response
from fastapi import Request as HttpRequest
from fastapi.routing import APIRoute

from backend.api.analytics import documents, sql
from backend.api.analytics.answer import Answer, Export
from backend.api.analytics.cursor import Cursor
from backend.api.analytics.formats import EXPORTS, Format, count, negotiated
from backend.api.analytics.models import DatasetInfo, DatasetList, QueriesBody, QueryResult, QueryResults
from backend.api.analytics.query import Query, Request, parse, read_request
from backend.api.pieces import Piece
from backend.api.problems import ApiError, ErrorEnvelope, bad_parameter
from backend.auth import Caller, Principal, caller_of, principal
from backend.config import Settings
from backend.datasets import Dataset
from backend.duckdb.client import Connection
from backend.errors import SnapshotGone


def _described_headers(descriptions: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in descriptions.items()}


_HEADERS = _described_headers(
    {
        "X-Snapshot-Id": "the snapshot that answered",
        "Last-Modified": "when it was made",
        "ETag": "of this answer; none while there is only a DuckDB file",
        "Cache-Control": "`no-cache`, or for long where `snapshot` or `cursor` pin what is answered",
    }
)
_RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    200: {"headers": _HEADERS},
    304: {"description": "What the client has, by `If-None-Match`, is still the answer"},
    401: {"model": ErrorEnvelope, "description": "No valid token", "headers": _CHALLENGE},
    403: {"model": ErrorEnvelope, "description": "The token names no user", "headers": _CHALLENGE},
    429: {"model": ErrorEnvelope, "description": "More queries at once than there is room for", "headers": _RETRY},
    503: {"model": ErrorEnvelope, "description": "No data to read at the moment", "headers": _RETRY},
    504: {"model": ErrorEnvelope, "description": "The query took too long and was stopped"},
    "default": {"model": ErrorEnvelope, "description": "Any other error"},
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorEnvelope, "description": "No such dataset"}}
_QUERY_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorEnvelope, "description": "A parameter makes no sense"},
    410: {"model": ErrorEnvelope, "description": "The snapshot asked for is gone"},
}
_COUNT_HEADERS = {
    "Content-Range": {
        "description": "with `Prefer: count=exact`: first and last row of the page, from 0, and how many there are; "
        "`*` for the former where the page is empty",
        "schema": {"type": "string"},
    },
    "Preference-Applied": {"description": "`count=exact` where that was done", "schema": {"type": "string"}},
}
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            **_HEADERS,
            **_COUNT_HEADERS,
            **_described_headers(
                {
                    "X-Row-Count": "rows of an answer that is not JSON",
                    "X-Next-Cursor": "of such an answer: the cursor of the next page, missing on the last",
                    "Link": 'the same as a URL, `rel="next"`',
                    "Content-Disposition": "of such an answer: a name for the file",
                }
            ),
        },
        "content": {known.media_type: {"schema": {"type": "string", "format": "binary"}} for known in EXPORTS},
    },
    406: {"model": ErrorEnvelope, "description": "`Accept` has no format that there is"},
}
_INVALID_BODY: dict[int | str, dict[str, Any]] = {
    413: {"model": ErrorEnvelope, "description": "The body is too large"},
    422: {"model": ErrorEnvelope, "description": "Not such a body"},
}


def _parameter(name: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, **schema}}


_FORMATS = [known.name for known in EXPORTS]

# Declared by hand: they are read from the URL as they came, so that every mistake in them is answered alike.
_PARAMETERS = [
    _parameter(
        "select",
        "string",
        "what each row has, comma-separated, default `*`: `column`, `column.function()`, `count()` or `*`, with "
        "`alias:` in front where another name is wanted. Functions: `count()` of any column, `sum()` and `avg()` of "
        "numbers, `min()` and `max()` of what can be compared, `trunc(unit)` of dates and timestamps. With an "
        "aggregate, rows are grouped by all that is none",
        example="month:posted_on.trunc(month),category_name,total:amount.sum()",
    ),
    _parameter(
        "order",
        "string",
        "sort keys, comma-separated: `name[.asc|.desc][.nullsfirst|.nullslast]`, a name that `select` gives or, "
        "without aggregates, any column; ties, and everything else, in the dataset's own order, or by what is grouped "
        "by",
        example="total.desc",
    ),
    _parameter(
        "limit",
        "integer",
        "rows of a page: API_DEFAULT_LIMIT and API_MAX_LIMIT as JSON, API_MAX_EXPORT_ROWS otherwise",
        minimum=0,
    ),
    _parameter("offset", "integer", "rows to skip", minimum=0, default=0),
    _parameter("format", "string", "what the answer is written in; default as `Accept` says", enum=["json", *_FORMATS]),
    _parameter("snapshot", "string", "answer from this snapshot; 410 when it is gone"),
    _parameter("cursor", "string", "`next` of the page before; other parameters may be left out, else must be equal"),
    {
        "name": "filters",
        "in": "query",
        "description": "any column as a parameter, as often as needed; all have to hold: "
        "`<column>=[not.]<operator>.<value>` with an operator of `eq`, `neq`, `gt`, `gte`, `lt`, `lte`, "
        '`in` (`in.(a,"b,c")`), `like` and `ilike` (of text, `*` for any characters), `is` (`is.null`, '
        "`is.not_null`; of booleans `is.true`, `is.false`, `is.unknown`). A column called like another parameter is "
        'written in double quotes: `"limit"=eq.1`',
        "style": "form",
        "explode": True,
        "schema": {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "example": {"posted_on": "gte.2024-01-01", "category_name": "in.(Rent,Groceries)"},
        },
    },
    {
        "name": "Prefer",
        "in": "header",
        "description": "`count=exact` has the rows on all pages counted: `Content-Range: 0-99/1234`",
        "schema": {"type": "string"},
    },
]

DatasetId = Annotated[str, Path(description="the dataset's `id`", examples=["fct_transactions"])]


class _Direct(APIRoute):
    """Calls an endpoint that takes a request, its caller and what is in its path, and gives a response, as that.

    FastAPI would find the same by what the endpoint declares, which takes longer. It still describes the endpoint, and
    does find whatever else one declares.
    """

    def get_route_handler(self) -> Callable[[HttpRequest], Coroutine[Any, Any, Response]]:
        declared = self.dependant
        others = [self.body_field, *declared.query_params, *declared.header_params, *declared.cookie_params]
        if any(others) or [known.call for known in declared.dependencies] != [principal]:
            return super().get_route_handler()

        async def handler(request: HttpRequest) -> Response:
            response: Response = await self.endpoint(request, caller=await caller_of(request), **request.path_params)
            return response

        return handler


router = APIRouter(prefix="/api/analytics", tags=["analytics"], responses=_ERRORS, route_class=_Direct)


@router.get("/datasets", response_model=DatasetList)
async def list_datasets(request: HttpRequest, caller: Caller) -> Response:
    """All datasets, with the number of rows the caller may see of each."""

    def work(connection: Connection) -> dict[str, Any]:
        datasets = list(connection.datasets.values())
        return {"datasets": _described(connection, datasets, caller), **_state(connection)}

    return Answer(request, caller, work)


@router.get("/datasets/{dataset_id}", response_model=DatasetInfo, responses=_NOT_FOUND)
async def get_dataset(request: HttpRequest, dataset_id: DatasetId, caller: Caller) -> Response:
    """One dataset."""

    def work(connection: Connection) -> dict[str, Any]:
        return _described(connection, [_dataset(connection, dataset_id)], caller)[0]

    return Answer(request, caller, work)


@router.get(
    "/datasets/{dataset_id}/query",
    response_model=QueryResult,
    responses={**_NOT_FOUND, **_QUERY_ERRORS, **_EXPORTED},
    openapi_extra={"parameters": _PARAMETERS},
)
async def query_dataset(request: HttpRequest, dataset_id: DatasetId, caller: Caller) -> Response:
    """Rows of one dataset: the caller's own, where it says whose they are."""
    format_ = negotiated(request)
    parameters = [item for item in request.query_params.multi_items() if item[0] != "format"]
    asked = read_request(dataset_id, parameters, request.app.state.cursor_key)
    if format_ is not None:
        return _export(request, asked, caller, format_)
    question = _Question(asked, caller, request.app.state.settings)

    def work(connection: Connection) -> dict[str, Any]:
        query = question.on(connection)
        result = _result(request, connection, asked, query, caller)
        if _wants_count(request):
            total = count(connection, query, caller)
            answer.headers.update(_counted(query, total, on_page=result["row_count"]))
        return result

    answer = Answer(request, caller, work, asked.snapshot, datasets=[dataset_id])
    return answer


@router.post("/query", response_model=QueryResults, responses={**_NOT_FOUND, **_QUERY_ERRORS, **_INVALID_BODY})
async def query_many(request: HttpRequest, body: QueriesBody, caller: Caller) -> Response:
    """Several queries, all answered from one snapshot."""
    maximum = request.app.state.settings.max_queries
    if len(body.queries) > maximum:
        raise bad_parameter("queries", expected=f"at most {maximum} queries", came=str(len(body.queries)))
    asked = []
    for index, query in enumerate(body.queries):
        with _naming_query(index):
            asked.append(read_request(query.dataset, query.items(), request.app.state.cursor_key))
    questions = [_Question(item, caller, request.app.state.settings) for item in asked]
    snapshots = sorted({item.snapshot for item in asked if item.snapshot is not None})
    if len(snapshots) > 1:
        raise bad_parameter("snapshot", expected="one snapshot for all queries", came=", ".join(snapshots))

    def work(connection: Connection) -> dict[str, Any]:
        results = []
        for index, question in enumerate(questions):
            with _naming_query(index):
                results.append(_result(request, connection, question.asked, question.on(connection), caller))
        return {"results": results, **_state(connection)}

    datasets = [item.dataset for item in asked]
    snapshot = snapshots[0] if snapshots else None
    return Answer(request, caller, work, snapshot, question=body.model_dump_json(), datasets=datasets)


@contextmanager
def _naming_query(index: int) -> Iterator[None]:
    """Say in an error which query of the body it is about."""
    try:
        yield
    except ApiError as error:
        error.message = f"queries[{index}]: {error.message}"
        raise


def _dataset(connection: Connection, dataset_id: str) -> Dataset:
    dataset = connection.datasets.get(dataset_id)
    if dataset is None:
        raise ApiError(
            404,
            "unknown_dataset",
            f"there is no dataset {dataset_id[:100]!r}",
            hint=f"there are: {', '.join(connection.datasets)}",
        )
    return dataset


def _described(connection: Connection, datasets: Sequence[Dataset], caller: Principal) -> list[dict[str, Any]]:
    known = {d.id: d.rows for d in datasets if d.rows is not None and (caller.all_rows or d.user_column is None)}
    for dataset in datasets:
        if dataset.id not in known:
            part = _part(connection, dataset, caller)
            ((known[dataset.id],),) = connection.execute(*sql.count(part, caller), on=part).fetchall()
    return [
        {
            "id": dataset.id,
            "name": dataset.name,
            "description": dataset.description,
            "columns": [{"name": c.name, "type": c.type, "description": c.description} for c in dataset.columns],
            "row_count": known[dataset.id],
        }
        for dataset in datasets
    ]


def _part(connection: Connection, dataset: Dataset, caller: Principal) -> Dataset:
    return connection.rows_of(dataset, None if caller.all_rows else caller.user_id)


class _Question:
    """A query as it was asked, and read once for a dataset: what is not at hand is asked again, with a statement."""

    def __init__(self, asked: Request, caller: Principal, limits: Settings) -> None:
        self.asked = asked
        self._caller = caller
        self._limits = limits
        self._read: Query | None = None

    def on(self, connection: Connection) -> Query:
        """The query of what the connection has. Raises SnapshotGone, or ApiError 400 or 404."""
        asked, as_of = self.asked, _iso(connection.last_refresh)
        # On the DuckDB file there is no snapshot to pin: a cursor is good until the file is built again.
        if asked.cursor and (asked.cursor.snapshot, asked.cursor.as_of) != (connection.snapshot, as_of):
            raise SnapshotGone("the data this cursor pages through was replaced", hint="start again without cursor")
        dataset = _part(connection, _dataset(connection, asked.dataset), self._caller)
        if self._read is None or self._read.dataset is not dataset:
            self._read = parse(asked, dataset, self._limits)
        return self._read


def _wants_count(request: HttpRequest) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return "count=exact" in [preference.strip() for preference in preferences]


def _counted(query: Query, total: int, *, on_page: int) -> dict[str, str]:
    rows = f"{query.offset}-{query.offset + on_page - 1}" if on_page else "*"
    return {"Content-Range": f"{rows}/{total}", "Preference-Applied": "count=exact"}


def _result(
    request: HttpRequest, connection: Connection, asked: Request, query: Query, caller: Principal
) -> dict[str, Any]:
    rows, found = documents.rows(connection, query, caller)
    return {
        "dataset": query.dataset.id,
        "columns": [{"name": column.name, "type": column.type} for column in query.columns],
        "rows": rows,
        "row_count": min(found, query.limit),
        "next": _next(request, connection, asked, query) if found > query.limit > 0 else None,
        **_state(connection),
    }


def _export(request: HttpRequest, asked: Request, caller: Principal, format_: Format) -> Export:
    most = request.app.state.settings.max_export_rows
    limits = request.app.state.settings.model_copy(update={"default_limit": most, "max_limit": most})
    question = _Question(asked, caller, limits)

    def work(connection: Connection) -> Iterator[Piece]:
        query = question.on(connection)
        part = format_.part(connection, query, caller, counted=_wants_count(request))
        answer.headers["X-Row-Count"] = str(part.rows)
        name = f"{query.dataset.id}_{connection.snapshot or f'{connection.last_refresh:%Y%m%dT%H%M%S}'}.{format_.name}"
        answer.headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(name)}"
        if part.total is not None:
            answer.headers.update(_counted(query, part.total, on_page=part.rows))
        if part.more and query.limit:
            cursor = _next(request, connection, asked, query)
            answer.headers["X-Next-Cursor"] = cursor
            path = quote(request.url.path)  # which is decoded here
            answer.headers["Link"] = f'<{path}?cursor={cursor}&format={format_.name}>; rel="next"'
        return part.pieces

    answer = Export(
        request,
        caller,
        work,
        asked.snapshot,
        datasets=[asked.dataset],
        media_type=format_.media_type,
        compressible=format_.compressible,
    )
    return answer


def _next(request: HttpRequest, connection: Connection, asked: Request, query: Query) -> str:
    cursor = Cursor(
        dataset=query.dataset.id,
        params=dict(asked.params),
        snapshot=connection.snapshot,
        as_of=_iso(connection.last_refresh),
        offset=query.offset + query.limit,
    )
    connection.hold()
    request.state.pages = True
    return cursor.encode(request.app.state.cursor_key)


def _state(connection: Connection) -> dict[str, str | None]:
    return {"last_refresh": _iso(connection.last_refresh), "snapshot": connection.snapshot}


def _iso(moment: datetime) -> str:
    return moment.isoformat()
