"""The formats of answers, and how rows are written in those that stream. Why: ``deploy/decisions/0014-formats.md``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from duckdb.sqltypes import DuckDBPyType
from fastapi import Request

from backend.api import negotiation
from backend.api.analytics import documents, sql
from backend.api.analytics.query import Query
from backend.api.analytics.sql import Shape
from backend.api.analytics.text import csv_field
from backend.api.pieces import Buffer, Piece, Pieces
from backend.api.problems import bad_parameter, not_acceptable
from backend.auth import Principal
from backend.datasets import children
from backend.duckdb.client import Connection
from backend.duckdb.table import Form
from backend.kept_rows import BATCH_ROWS, Batch, alone, blanked, read, written
from backend.quoting import quoted

Batches = Iterator[pa.RecordBatch]

# What Arrow and Parquet, or their readers, have no exact type for.
_COLUMNAR = {
    "varchar": "VARCHAR",  # JSON is one, too
    "enum": "VARCHAR",
    "bit": "VARCHAR",
    "uuid": "VARCHAR",
    "interval": "VARCHAR",
    "time with time zone": "VARCHAR",
    "time_ns": "VARCHAR",
    "bignum": "VARCHAR",
    "union": "VARCHAR",
    "variant": "VARCHAR",
    "geometry": "VARCHAR",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
    "hugeint": "DECIMAL(38,0)",
    "uhugeint": "DECIMAL(38,0)",
}


@dataclass(frozen=True)
class Format:
    """How rows are streamed: in which ``shape`` DuckDB gives them, and what ``encode`` makes of batches of so many.

    ``form``: that in which whole rows may be kept, so that only their positions are asked for.
    """

    name: str
    media_type: str
    shape: Shape
    encode: Callable[[pa.Schema, Batches, int], Iterator[Piece]]
    compressible: bool = True
    form: str | None = None

    def part(self, connection: Connection, query: Query, caller: Principal, *, counted: bool) -> Part:
        """The rows of an export, of which those of all pages may be ``counted``. Raises duckdb.Error."""
        form = self.form if query.whole_rows else None
        kept = query.dataset.kept.get(form) if form else None
        if form and isinstance(kept, Batch):
            found = documents.positions(connection, query, caller, form)
            chosen = found.slice(0, query.limit)
            # In batches as they are without what is kept.
            before = 0 if query.order else query.offset % BATCH_ROWS
            starts = range(-before, len(chosen), BATCH_ROWS) if len(chosen) else ()
            some = (chosen.slice(max(start, 0), BATCH_ROWS + min(start, 0)) for start in starts)
            made = (kept.at(positions, rising=not query.order) for positions in some)
            total = count(connection, query, caller) if counted else None
            return Part(len(chosen), len(found) > query.limit, total, self.encode(kept.schema, made, len(chosen)))
        total = count(connection, query, caller)
        rows = max(0, min(query.limit, total - query.offset))
        statement, before = sql.scan(query, caller, self.shape)
        reader = connection.execute(*statement, on=query.dataset, form=form).to_arrow_reader(BATCH_ROWS)
        batches = _cut(reader, before, rows)
        pieces = self.encode(reader.schema, map(blanked, batches) if self.form else batches, rows)
        return Part(rows, total > query.offset + rows, total if counted else None, pieces)


@dataclass(frozen=True)
class Part:
    """The rows of an export: how many, whether more follow, how many there are if that was asked, and their pieces."""

    rows: int
    more: bool
    total: int | None
    pieces: Iterator[Piece]


def count(connection: Connection, query: Query, caller: Principal) -> int:
    """How many rows there are on all pages. Raises duckdb.Error."""
    ((total,),) = connection.execute(*sql.total(query, caller), on=query.dataset).fetchall()
    return int(total)


def _cut(batches: Batches, before: int, count: int) -> Batches:
    while count and (batch := next(batches, None)) is not None:
        part = alone(batch, min(before, batch.num_rows), count)
        before = max(0, before - batch.num_rows)
        count -= part.num_rows
        if part.num_rows:
            yield part


def columnar(expression: str, sqltype: DuckDBPyType) -> str:
    """SQL for the value in the type that it has in Arrow and Parquet. Numbers of more than 38 digits are an error."""
    wanted = _columnar_type(sqltype)
    return expression if wanted == str(sqltype) else f"CAST({expression} AS {wanted})"


def _columnar_type(sqltype: DuckDBPyType) -> str:
    inner = [(name, _columnar_type(child)) for name, child in children(sqltype)]
    match sqltype.id:
        case "list" | "array":
            return f"{inner[0][1]}[]"
        case "struct":
            return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in inner)})"
        case "map":
            return f"MAP({inner[0][1]}, {inner[1][1]})"
        case kind:
            return _COLUMNAR.get(kind, str(sqltype))


def _written(
    batches: Batches, rows: int, *, head: Buffer, write: Callable[[pa.RecordBatch], Buffer], end: Callable[[], Buffer]
) -> Iterator[Piece]:
    """A piece for each of the batches, which have so many rows, the last one with the end; one if there is none."""
    left = rows
    for batch in batches if rows else ():
        left -= batch.num_rows
        text = write(batch)
        yield Piece((head, text) if left else (head, text, end()), last=not left)
        head = b""
    if left or not rows:
        yield Piece((head, end()), last=True)


def _csv(schema: pa.Schema, batches: Batches, rows: int) -> Iterator[Piece]:
    names = io.StringIO()
    csv.writer(names).writerow(schema.names)

    def write(batch: pa.RecordBatch) -> Buffer:
        fields = pc.binary_join_element_wise(*batch.columns, ",", null_handling="replace", null_replacement="")
        _, _, text = pc.binary_join_element_wise(fields, "", "\r\n").buffers()
        return memoryview(text)

    return _written(batches, rows, head=names.getvalue().encode(), write=write, end=lambda: b"")


def _arrow(schema: pa.Schema, batches: Batches, rows: int) -> Iterator[Piece]:
    def write(batch: pa.RecordBatch) -> Buffer:
        return memoryview(batch.serialize())

    return _written(batches, rows, head=memoryview(schema.serialize()), write=write, end=lambda: _END_OF_STREAM)


def _parquet(schema: pa.Schema, batches: Batches, rows: int) -> Iterator[Piece]:
    pieces = Pieces()
    with pq.ParquetWriter(pieces, schema, compression="zstd") as writer:

        def write(batch: pa.RecordBatch) -> Buffer:
            writer.write_table(pa.Table.from_batches([batch]))  # a row group of its own, which leaves the memory
            return pieces.take()

        def end() -> Buffer:
            writer.close()
            return pieces.take()

        yield from _written(batches, rows, head=b"", write=write, end=end)


JSON = "application/json"
_COLUMNS = "columns"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
EXPORTS = (
    Format("csv", "text/csv", csv_field, _csv),
    Format("arrow", "application/vnd.apache.arrow.stream", columnar, _arrow, form=_COLUMNS),
    Format("parquet", "application/vnd.apache.parquet", columnar, _parquet, compressible=False, form=_COLUMNS),
)
FORMS = {
    documents.FORM: Form(sql.all_documents, written, of_users=True),
    _COLUMNS: Form(lambda columns, relation: sql.all_rows(columns, relation, columnar), read),
}
"""In which whole rows are kept in memory."""


def negotiated(request: Request) -> Format | None:
    """The format asked for by ``format=``, else by ``Accept``; None: JSON. Raises ApiError 400 or 406."""
    by_name = {"json": None, **{known.name: known for known in EXPORTS}}
    by_type = {JSON: None, **{known.media_type: known for known in EXPORTS}}
    named = request.query_params.getlist("format")
    if named:
        if len(named) > 1 or named[0] not in by_name:
            raise bad_parameter("format", expected=f"one of {', '.join(by_name)}", came=", ".join(named))
        return by_name[named[0]]
    accept = ",".join(request.headers.getlist("accept")) or None
    chosen = negotiation.media_type(accept, tuple(by_type))
    if chosen is None:
        raise not_acceptable(accept=str(accept), offers=tuple(by_type))
    return by_type[chosen]
