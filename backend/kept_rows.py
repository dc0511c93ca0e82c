"""All rows of a mart in the form that they are answered in, made once: those of an answer are found by position."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import calcsize, pack, unpack_from
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from backend.cells import Cells
from backend.datasets import Column

BATCH_ROWS = 32_768
"""Rows that are in memory at once, some ten MB; also those of a row group of Parquet."""

_OFFSET_BYTES = 8
_ROWS = pa.Array.from_buffers(pa.int32(), BATCH_ROWS, [None, pa.py_buffer(array("i", range(BATCH_ROWS)))])


class TooLarge(Exception):
    """The rows take more than there is room for: ``size`` bytes the first ``rows`` of them."""

    def __init__(self, size: int, rows: int) -> None:
        super().__init__(f"{size} bytes for {rows} rows")
        self.size = size
        self.rows = rows


class KeptRows(Protocol):
    """All rows in some form. Nothing changes them."""

    @property
    def count(self) -> int:
        """How many rows."""

    @property
    def size(self) -> int:
        """Bytes in memory."""


class Documents:
    """Every row as a JSON object and a comma, one after the other in one buffer. Nothing changes it."""

    def __init__(self, rows: pa.LargeBinaryArray, cells: Cells) -> None:
        self.cells = cells
        self._rows = rows

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._rows)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        size: int = self._rows.nbytes
        return size + self.cells.size

    def page(self, positions: pa.Int64Array, *, rising: bool) -> memoryview:
        """The rows at these positions, counted from 0, in this order, commas between; ``rising``: that of the rows.

        Rows side by side are not copied, and keep all others in memory as long as somebody has them.
        """
        if not len(positions):
            return memoryview(b"")
        first = _side_by_side(positions) if rising else None
        rows = self._rows.take(positions) if first is None else self._rows.slice(first, len(positions))
        return text_of(rows)[:-1]


def text_of(rows: pa.StringArray | pa.LargeBinaryArray) -> memoryview:
    """All texts, one after the other, not copied."""
    _, offsets, text = rows.buffers()
    code = "=q" if pa.types.is_large_binary(rows.type) else "=i"
    ends = (rows.offset, rows.offset + len(rows))
    begin, end = (unpack_from(code, offsets, at * calcsize(code))[0] for at in ends)
    return memoryview(text)[begin:end]


class Batch:
    """All rows as one Arrow batch."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self._rows.num_rows)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return int(self._rows.nbytes)

    @property
    def schema(self) -> pa.Schema:
        """Names and types."""
        return self._rows.schema

    def at(self, positions: pa.Int64Array, *, rising: bool) -> pa.RecordBatch:
        """The rows at these positions, counted from 0, in this order; ``rising``: that of the rows."""
        first = _side_by_side(positions) if rising else None
        if first is None:
            return self._rows.take(positions)
        # A slice as it is would be written with up to 63 bytes of the rows beside it. Copied so it is what `take`
        # gives, of rows that are blanked, in a fraction of the time.
        columns = [pa.concat_arrays([column.slice(first, len(positions))]) for column in self._rows.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _side_by_side(positions: pa.Int64Array) -> int | None:
    """The first of these positions, which rise, where they are of rows side by side, as a user's are; else None."""
    if not len(positions):
        return None
    first: int = positions[0].as_py()
    return first if positions[len(positions) - 1].as_py() - first == len(positions) - 1 else None


def alone(batch: pa.RecordBatch, first: int, count: int) -> pa.RecordBatch:
    """A part of the batch by itself: written as Arrow, a slice has up to 63 bytes of the rows beside it."""
    part = batch.slice(first, count)
    return part if part.num_rows == batch.num_rows else part.take(_ROWS.slice(0, part.num_rows))


def blanked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with nothing where it is null: DuckDB leaves there what was in its memory before, whosever it was."""
    rows = _ROWS.slice(0, batch.num_rows)
    columns = [column.take(rows) if _has_bits(column) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _has_bits(column: pa.Array) -> bool:
    """Whether the column takes less than a byte of a row, of what is null or of what is true."""
    return bool(column.null_count) or pa.types.is_boolean(column.type) or pa.types.is_nested(column.type)


def read(_: Sequence[Column], reader: pa.RecordBatchReader, room: int) -> Batch:
    """The reader's rows, in the order of their positions, blanked. Raises TooLarge."""
    batches, size, rows = [], 0, 0
    for batch in map(blanked, reader):
        batches.append(batch)
        size += batch.nbytes
        rows += len(batch)
        if size > room:
            raise TooLarge(size, rows)
    arrays = [column.combine_chunks() for column in pa.Table.from_batches(batches, reader.schema).columns]
    return Batch(pa.RecordBatch.from_arrays(arrays, schema=reader.schema))


def written(columns: Sequence[Column], reader: pa.RecordBatchReader, room: int) -> Documents:
    """Documents of the reader's rows, in the order of their positions. Raises TooLarge.

    Its first column are JSON objects of these columns as texts, each with its comma; the others are whole numbers.
    """
    text = pa.BufferOutputStream()
    ends = [pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(pack("=q", 0))])]
    numbers: dict[str, list[pa.Array]] = {name: [pa.array([], pa.int64())] for name in reader.schema.names[1:]}
    rows = 0
    for batch in reader:
        column = batch.column(0)
        lengths = pc.cumulative_sum(pc.cast(pc.binary_length(column), pa.int64()))
        ends.append(pc.add(lengths, text.tell()))
        text.write(text_of(column))
        rows += len(batch)
        numbers = {
            name: [*before, batch.column(name)] for name, before in numbers.items() if not batch.column(name).null_count
        }
        if (size := text.tell() + _OFFSET_BYTES * rows) > room:
            raise TooLarge(size, rows)
    _, offsets = pa.concat_arrays(ends).buffers()
    documents = pa.LargeBinaryArray.from_buffers(pa.large_binary(), rows, [None, offsets, text.getvalue()])
    joined = {name: pa.concat_arrays(arrays) for name, arrays in numbers.items()}
    found = Documents(documents, Cells(columns, documents, joined))
    if rows and found.size > room:
        raise TooLarge(found.size, rows)
    return found
