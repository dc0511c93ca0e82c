"""All rows of a mart in the form that they are answered in, made once: those of an answer are found by position."""

from __future__ import annotations

from array import array
from struct import pack, unpack_from
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

BATCH_ROWS = 32_768
"""Rows that are in memory at once, some ten MB; also those of a row group of Parquet."""

_OFFSET_BYTES = 8
_ROWS = pa.Array.from_buffers(pa.int32(), BATCH_ROWS, [None, pa.py_buffer(array("i", range(BATCH_ROWS)))])


class TooLarge(Exception):
    """The rows take more than there is room for: ``size`` bytes and more."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes and more")
        self.size = size


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

    def __init__(self, rows: pa.LargeBinaryArray) -> None:
        self._rows = rows

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._rows)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        size: int = self._rows.nbytes
        return size

    def page(self, positions: pa.Int64Array, *, rising: bool) -> bytes:
        """The rows at these positions, counted from 0, in this order, as a JSON array; ``rising``: that of the rows."""
        if not len(positions):
            return b"[]"
        first = _side_by_side(positions) if rising else None
        rows = self._rows.take(positions) if first is None else self._rows.slice(first, len(positions))
        _, offsets, text = rows.buffers()
        begin, end = (
            unpack_from("=q", offsets, at * _OFFSET_BYTES)[0] for at in (rows.offset, rows.offset + len(rows))
        )
        return b"".join((b"[", memoryview(text)[begin : end - 1], b"]"))


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
        parts = ((column, column.slice(first, len(positions))) for column in self._rows.columns)
        # Of bits the bytes have those of other rows, too. All else is copied as it is, which is faster than `take`.
        columns = [column.take(positions) if _has_bits(part) else pa.concat_arrays([part]) for column, part in parts]
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


def read(reader: pa.RecordBatchReader, room: int) -> Batch:
    """The reader's rows, in the order of their positions, blanked. Raises TooLarge."""
    batches, size = [], 0
    for batch in map(blanked, reader):
        batches.append(batch)
        size += batch.nbytes
        if size > room:
            raise TooLarge(size)
    arrays = [column.combine_chunks() for column in pa.Table.from_batches(batches, reader.schema).columns]
    return Batch(pa.RecordBatch.from_arrays(arrays, schema=reader.schema))


def written(reader: pa.RecordBatchReader, room: int) -> Documents:
    """Documents of the reader's one column, which are texts in the order of their positions. Raises TooLarge."""
    text = pa.BufferOutputStream()
    ends = [pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(pack("=q", 0))])]
    rows = 0
    for batch in reader:
        _, offsets, piece = pc.binary_join_element_wise(batch.column(0), "", ",").buffers()
        of_the_piece = pa.Array.from_buffers(pa.int32(), len(batch) + 1, [None, offsets])
        ends.append(pc.add(pc.cast(of_the_piece[1:], pa.int64()), text.tell()))
        text.write(piece[: of_the_piece[-1].as_py()])
        rows += len(batch)
        if (size := text.tell() + _OFFSET_BYTES * rows) > room:
            raise TooLarge(size)
    _, offsets = pa.concat_arrays(ends).buffers()
    return Documents(pa.LargeBinaryArray.from_buffers(pa.large_binary(), rows, [None, offsets, text.getvalue()]))
