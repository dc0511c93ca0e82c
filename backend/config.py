"""Settings of the API, read from the environment; paths and secrets are filepaths.py's business."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _listed(value: object) -> object:
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


def _origin(value: str) -> str:
    # What browsers send, to the letter: anything else would never match.
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?", value):
        raise ValueError(f"{value!r} is no origin: expected scheme://host[:port] in lower case, without a path or *")
    return value


class Settings(BaseSettings):
    """Limits of the API. Each field is the environment variable ``API_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="API_", frozen=True)

    workers: int = Field(
        default=1, ge=1, description="processes that answer on one port; they share all memory and places to wait"
    )
    default_limit: int = Field(default=100, ge=1, description="rows of a page that names no limit")
    max_limit: int = Field(default=10_000, ge=1, description="rows a page may ask for")
    max_export_rows: int = Field(default=1_000_000, ge=1, description="rows of an answer that is not JSON")
    max_queries: int = Field(default=20, ge=1, description="queries in one POST")
    duckdb_threads: int = Field(default=1, ge=1, description="threads of each DuckDB instance")
    duckdb_memory_limit: ByteSize = Field(
        default=ByteSize(1_000_000_000),
        gt=0,
        description="memory that the queries of all DuckDB instances take together, in equal parts: the current "
        "snapshot's, that of the one before while it still answers, those that are pinned, and the tables'",
    )
    concurrent_queries: int = Field(
        default=8, ge=1, description="requests for data at work at once, half for one caller"
    )
    queued_queries: int = Field(
        default=128, ge=0, description="requests for data that wait for those, half of them one caller's, before 429"
    )
    statement_timeout_seconds: float = Field(
        default=30, gt=0, description="for a request, waiting included, before its query is interrupted: 504"
    )
    max_body: ByteSize = Field(default=ByteSize(1_000_000), ge=1, description="bytes of a request's body, before 413")
    pinned_snapshots: int = Field(default=4, ge=1, description="snapshots kept open beside the current one")
    pinned_idle_seconds: float = Field(
        default=300, gt=0, description="after which a pinned snapshot is closed, so that retention can delete it"
    )
    cursor_seconds: float = Field(
        default=900, gt=0, description="how long a page's `next` keeps its snapshot from being deleted"
    )
    resident_memory: ByteSize = Field(
        default=ByteSize(256_000_000), description="for verified copies of the marts; larger ones are read from disk"
    )
    table_memory: ByteSize = Field(
        default=ByteSize(128_000_000),
        description="for marts as tables in memory, those asked for most, for their rows, and for rows of single users "
        "of large marts; 0: none",
    )
    kept_answers: ByteSize = Field(
        default=ByteSize(64_000_000), description="memory for answers that are made once for each snapshot"
    )
    scrub_seconds: float = Field(
        default=60, gt=0, description="between two comparisons of the current snapshot's files with their checksums"
    )
    lock_wait_seconds: float = Field(
        default=2, ge=0, description="how long to wait for a DuckDB file that a build holds, before answering 503"
    )
    drain_seconds: float = Field(
        default=5, ge=0, description="how long to serve on after SIGTERM, not ready, before accepting no more"
    )
    jwks_url: str = Field(default="", description="where an identity provider publishes its public keys (a JWKS)")
    jwt_audience: str = Field(default="", description="`aud` that every token must have, if set")
    jwt_issuer: str = Field(default="", description="`iss` that every token must have, if set")
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_listed)] = (
        Field(
            default=(), description="origins whose pages may read answers, comma-separated; none but our own if empty"
        )
    )

    def of_one_worker(self) -> "Settings":
        """What one of the workers may take."""
        of_all = ("duckdb_memory_limit", "resident_memory", "table_memory", "kept_answers")
        of_requests = ("concurrent_queries", "queued_queries")
        parts = {name: ByteSize(getattr(self, name) // self.workers) for name in of_all}
        return self.model_copy(update=parts | {name: -(-getattr(self, name) // self.workers) for name in of_requests})

    @property
    def instance_memory(self) -> int:
        """Bytes for the queries of each DuckDB instance. What fits into one snapshot's fits into any."""
        return self.duckdb_memory_limit // (self.pinned_snapshots + 2 + bool(self.table_memory))

    @property
    def tables_memory(self) -> int:
        """Bytes of the instance with the tables: theirs, and those for its queries."""
        return self.table_memory + self.instance_memory
