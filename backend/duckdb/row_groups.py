"""The row groups of a Parquet file, a few of which can be read as a file of their own.

DuckDB looks through the whole footer for every query: some microseconds for each column of each row group. With a
footer made for the row groups that a user's rows are in, there is nothing to look through; all else is as it was
written. Measured in ``deploy/decisions/0029-a-users-row-groups.md``. Source of the format: ``parquet.thrift`` of
apache/parquet-format, and the specification of Thrift's compact protocol.
"""

from __future__ import annotations

import functools
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from backend.duckdb.verified import InMemory

_MAGIC = b"PAR1"
_LENGTH_BYTES = 4
# By their numbers, as pyarrow calls them.
_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "(LZ4 of old)", "ZSTD", "LZ4")
_ENCODINGS = (
    *("PLAIN", "(1 is none)", "PLAIN_DICTIONARY", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED"),
    *("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"),
)
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12  # types in the compact protocol
_LONG_LIST = 15
_MOST_BYTES = 4_000_000


class _Chunk(NamedTuple):
    """The pages of one column in a row group. ``kind`` is what it says of itself but for the numbers."""

    kind: bytes
    values: int
    uncompressed: int
    compressed: int
    data_page: int
    dictionary_page: int | None

    @property
    def start(self) -> int:
        return self.data_page if self.dictionary_page is None else self.dictionary_page

    @property
    def entry(self) -> bytes:
        """Of a footer. Without statistics: of so few row groups none is to be ruled out."""
        numbers = [_field(1, _I64, _integer(n)) for n in (self.values, self.uncompressed, self.compressed)]
        numbers.append(_field(2, _I64, _integer(self.data_page)))
        if self.dictionary_page is not None:
            numbers.append(_field(2, _I64, _integer(self.dictionary_page)))
        return _field(2, _I64, _integer(0)) + _field(1, _STRUCT, self.kind + b"".join(numbers) + b"\0") + b"\0"


@dataclass(frozen=True)
class _RowGroup:
    """``size`` in bytes before compression, and the least and the greatest user whose rows it has."""

    chunks: Sequence[_Chunk]
    size: int
    rows: int
    least: Any
    greatest: Any

    @property
    def entry(self) -> bytes:
        """Of a footer."""
        sizes = _field(1, _I64, _integer(self.size)) + _field(1, _I64, _integer(self.rows))
        return _field(1, _LIST, _list(_STRUCT, [chunk.entry for chunk in self.chunks])) + sizes + b"\0"


@dataclass(frozen=True)
class RowGroups:
    """The row groups of a file that is sorted by whose its rows are, wherever it lies."""

    _schema: bytes
    _groups: list[_RowGroup]
    _key: Callable[[int], Any]

    @classmethod
    def read(cls, path: str, column: str) -> RowGroups | None:
        """Those of the file at ``path``.

        None where the file does not say that it is sorted by the column, which has to hold integers or text, or says
        of itself what we don't know.
        """
        try:
            metadata = pq.read_metadata(path)
            if metadata.metadata:
                return None
            # Not by its schema: the two refer to each other, and some MB would wait for Python's garbage collector.
            groups = [_row_group(metadata.row_group(i), column) for i in range(metadata.num_row_groups)]
            schema = _schema(path, metadata.serialized_size)
        except (pa.ArrowException, OSError, ValueError):
            return None
        kinds = {type(key) for group in groups for key in (group.least, group.greatest)}
        is_sorted = all(before.greatest <= after.least for before, after in pairwise(groups))
        return cls(schema, groups, kinds.pop()) if kinds in ({int}, {str}) and is_sorted else None

    def of_user(self, path: str, user_id: int) -> InMemory | None:
        """Those of the file, which is at ``path`` now, in which rows of that user can be, as a file of their own.

        None where that would be a large one. Raises OSError.
        """
        key = self._key(user_id)
        first = bisect_left(self._groups, key, key=lambda group: group.greatest)
        groups = self._groups[first : bisect_right(self._groups, key, key=lambda group: group.least)]
        chunks = [chunk for group in (groups[:1] + groups[-1:]) for chunk in group.chunks]
        start = min((chunk.start for chunk in chunks), default=len(_MAGIC))
        end = max((chunk.start + chunk.compressed for chunk in chunks), default=start)
        if end - start > _MOST_BYTES:
            return None
        with Path(path).open("rb", buffering=0) as source:
            pages = os.pread(source.fileno(), end - start, start)
        rows = _field(1, _I64, _integer(sum(group.rows for group in groups)))
        footer = self._schema + rows + _field(1, _LIST, _list(_STRUCT, [group.entry for group in groups])) + b"\0"
        memory = os.memfd_create("row groups", os.MFD_CLOEXEC)
        file = InMemory(memory, len(pages) + len(footer))
        try:
            os.pwrite(memory, _MAGIC, 0)
            os.pwrite(memory, pages, start)  # where they say themselves that they are; what is before takes no memory
            os.pwrite(memory, footer + len(footer).to_bytes(_LENGTH_BYTES, "little") + _MAGIC, start + len(pages))
        except OSError:
            file.close()
            raise
        return file


def _row_group(group: pq.RowGroupMetaData, user_column: str) -> _RowGroup:
    """Raises ValueError where it says nothing of its users, or has an encoding that has no number here."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    named = [chunk.statistics for chunk in chunks if chunk.path_in_schema == user_column]
    if len(named) != 1 or named[0] is None or not named[0].has_min_max:
        raise ValueError("no statistics")
    return _RowGroup(
        chunks=[_chunk(chunk) for chunk in chunks],
        size=group.total_byte_size,
        rows=group.num_rows,
        least=named[0].min,
        greatest=named[0].max,
    )


def _chunk(chunk: pq.ColumnChunkMetaData) -> _Chunk:
    return _Chunk(
        kind=_kind(chunk.physical_type, chunk.encodings, chunk.path_in_schema, chunk.compression),
        values=chunk.num_values,
        uncompressed=chunk.total_uncompressed_size,
        compressed=chunk.total_compressed_size,
        data_page=chunk.data_page_offset,
        dictionary_page=chunk.dictionary_page_offset if chunk.has_dictionary_page else None,
    )


@functools.lru_cache(maxsize=1000)  # it is mostly the same in all row groups
def _kind(physical_type: str, encodings: Sequence[str], path: str, compression: str) -> bytes:
    fields = [
        _field(1, _I32, _integer(_TYPES.index(physical_type))),
        _field(1, _LIST, _list(_I32, [_integer(_ENCODINGS.index(name)) for name in encodings])),
        _field(1, _LIST, _list(_BINARY, [_binary(part.encode()) for part in path.split(".")])),
        _field(1, _I32, _integer(_CODECS.index(compression))),
    ]
    return b"".join(fields)


# --- Thrift's compact protocol ----------------------------------------------------------------------------------------
def _field(after: int, kind: int, value: bytes) -> bytes:
    """A field of a struct, whose number is so much after that of the field before it."""
    return bytes([after << 4 | kind]) + value


def _list(kind: int, values: Sequence[bytes]) -> bytes:
    if len(values) < _LONG_LIST:
        return bytes([len(values) << 4 | kind]) + b"".join(values)
    return bytes([_LONG_LIST << 4 | kind]) + _varint(len(values)) + b"".join(values)


def _binary(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _integer(value: int) -> bytes:
    return _varint(value << 1 ^ value >> 63)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >> 7:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _schema(path: str, size: int) -> bytes:
    """The footer up to the end of its schema, which is its first two fields. Raises ValueError where they are not."""
    with Path(path).open("rb") as file:
        file.seek(-size - _LENGTH_BYTES - len(_MAGIC), os.SEEK_END)
        footer = file.read(size)
    at = _after(footer, 1, _I32)
    if (footer[0], footer[at]) != (1 << 4 | _I32, 1 << 4 | _LIST):
        raise ValueError("no schema where it is expected")
    return footer[: _after(footer, at + 1, _LIST)]


def _after(data: bytes, at: int, kind: int) -> int:
    """Where the value that begins at ``at`` ends, of a type that a schema has."""
    match kind:
        case 1 | 2:  # true and false, which are types
            return at
        case 3:  # a byte
            return at + 1
        case _ if kind == _BINARY:
            size, at = _number(data, at)
            return at + size
        case _ if kind == _LIST:
            size, kind = divmod(data[at], 16)
            size, at = _number(data, at + 1) if size == _LONG_LIST else (size, at + 1)
            for _ in range(size):
                at = _after(data, at, kind)
            return at
        case _ if kind == _STRUCT:
            while kind := data[at] & 15:
                # A field whose number is far from that of the one before it has the number itself.
                at = _after(data, at + 1 if data[at] >> 4 else _number(data, at + 1)[1], kind)
            return at + 1
        case _:
            return _number(data, at)[1]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned number that begins at ``at``, and where it ends."""
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1
