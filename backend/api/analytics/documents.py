"""A page of rows as JSON: DuckDB writes them (``text``), Arrow puts them together, and none becomes a Python object.

Where DuckDB has written all rows before (``backend.kept_rows``), it is only asked which of them these are.
"""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pyarrow as pa
import pyarrow.compute as pc

from backend.api.analytics import sql
from backend.api.analytics.query import Query
from backend.auth import Principal
from backend.duckdb.client import Connection
from backend.kept_rows import Documents

FORM = "json"
_COLUMNS_AT_ONCE = 100


def _int32(*values: int) -> pa.Int32Array:
    """Made of bytes: to make an array or a scalar of Python's values, pyarrow imports pandas where there is one."""
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(pack(f"={len(values)}i", *values))])


_COMMA = pa.StringArray.from_buffers(1, _int32(0, 1).buffers()[1], pa.py_buffer(b","))[0]


def rows(connection: Connection, query: Query, caller: Principal) -> tuple[bytes, int]:
    """A JSON array of the page's rows, and how many were found: one more where there is a next page.

    Of many columns a part at a time, each in the same total order: to sort, DuckDB takes memory for 2,048 values of
    each column that it gives, however few rows there are.
    """
    form = FORM if query.whole_rows else None
    if form and isinstance(kept := query.dataset.kept.get(form), Documents):
        found = positions(connection, query, caller, form)
        return kept.page(found.slice(0, query.limit), rising=not query.order), len(found)
    part = len(query.columns) if query.grouped else _COLUMNS_AT_ONCE
    some = (replace(query, columns=query.columns[start : start + part]) for start in range(0, len(query.columns), part))
    parts = [_found(connection, query, sql.documents(columns, caller), form) for columns in some]
    documents = parts[0] if len(parts) == 1 else _side_by_side(parts)
    return b"[%b]" % _joined(documents.slice(0, query.limit)), len(documents)


def positions(connection: Connection, query: Query, caller: Principal, form: str) -> pa.Int64Array:
    """Of the page's rows, which are kept in that form, and of one more where there is a next page."""
    return _found(connection, query, sql.positions(query, caller), form).combine_chunks()


def _found(connection: Connection, query: Query, statement: sql.Statement, form: str | None) -> pa.ChunkedArray:
    return connection.execute(*statement, on=query.dataset, form=form).to_arrow_table().column(0)


def _side_by_side(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    members = [pc.utf8_slice_codeunits(documents, 1, -1) for documents in parts]
    return pc.binary_join_element_wise("{", pc.binary_join_element_wise(*members, ","), "}", "")


def _joined(documents: pa.ChunkedArray) -> bytes:
    chunks = [pa.ListArray.from_arrays(_int32(0, len(chunk)), chunk) for chunk in documents.chunks if len(chunk)]
    return b",".join(pc.binary_join(chunk, _COMMA)[0].as_buffer() for chunk in chunks)
