"""Shapes of the answers and of the one body, for /openapi.json; answers are encoded by ``encode``, not by these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SnapshotId = Annotated[str | None, Field(description="the state of the data; null while there is only a DuckDB file")]
LastRefresh = Annotated[datetime, Field(description="when that state was made, UTC")]


class ResultColumn(BaseModel):
    """A column of a result: its DuckDB type, as `DECIMAL(12,2)`."""

    name: str
    type: str


class DatasetColumn(ResultColumn):
    """A column of a dataset."""

    description: str


class DatasetInfo(BaseModel):
    """A dataset; `row_count` counts the rows the caller may see."""

    id: str
    name: str
    description: str
    columns: list[DatasetColumn]
    row_count: int


class DatasetList(BaseModel):
    """All datasets."""

    datasets: list[DatasetInfo]
    last_refresh: LastRefresh
    snapshot: SnapshotId


class QueryResult(BaseModel):
    """One page of rows; `next` is the cursor of the next page, null on the last."""

    dataset: str
    columns: list[ResultColumn]
    rows: list[dict[str, Any]]
    row_count: int = Field(description="rows on this page")
    next: str | None
    last_refresh: LastRefresh
    snapshot: SnapshotId


class QueryResults(BaseModel):
    """Results in the order of the queries, all from one snapshot."""

    results: list[QueryResult]
    snapshot: SnapshotId
    last_refresh: LastRefresh


class QueryBody(BaseModel):
    """One query. Any other property is a filter, or a list of filters: `"amount": ["gte.5", "lt.9"]`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | Annotated[list[str], Field(min_length=1)]] = Field(init=False)

    dataset: str
    select: str | None = None
    order: str | None = None
    limit: int | None = None
    offset: int | None = None
    snapshot: str | None = None
    cursor: str | None = None

    def items(self) -> list[tuple[str, str]]:
        """The query's parameters as they would stand in a URL."""
        values = self.model_dump(exclude={"dataset"}, exclude_none=True)
        return [
            (name, str(value))
            for name, item in values.items()
            for value in (item if isinstance(item, list) else [item])
        ]


class QueriesBody(BaseModel):
    """Queries to be answered from one snapshot."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "queries": [
                        {
                            "dataset": "fct_transactions",
                            "select": "count(),amount.sum()",
                            "posted_on": "gte.2024-01-01",
                        },
                        {"dataset": "dim_accounts", "limit": 3},
                    ]
                }
            ]
        },
    )

    queries: list[QueryBody] = Field(min_length=1)
