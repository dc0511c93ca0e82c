"""All rows of a mart in the form that they are answered in, made once: those of an answer are found by position."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack, unpack_from
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

_OFFSET_BYTES = 8


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

    def page(self, positions: pa.Int64Array) -> bytes:
        """The rows at these positions, counted from 0, in this order, as a JSON array."""
        if not len(positions):
            return b"[]"
        _, offsets, text = self._rows.take(positions).buffers()
        (end,) = unpack_from("=q", offsets, len(positions) * _OFFSET_BYTES)
        return b"".join((b"[", memoryview(text)[: end - 1], b"]"))


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

    def at(self, positions: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows at these positions, which are the one column of as many batches."""
        return (self._rows.take(batch.column(0)) for batch in positions)


def read(reader: pa.RecordBatchReader, room: int) -> Batch:
    """The reader's rows, in the order of their positions. Raises TooLarge."""
    batches, size = [], 0
    for batch in reader:
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
