"""What single columns have in rows that are kept as JSON, so that a few rows are filtered and sorted without DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from backend.datasets import Column, children

_END = b"},"  # of each row


class Cells:
    """Values by column and position. Nothing changes them.

    ``numbers`` are columns as whole numbers, none of which is NULL; ``rising`` are those of them that rows are in the
    order of.
    """

    def __init__(
        self, rows: pa.LargeBinaryArray, numbers: Mapping[str, pa.Array], begins: Mapping[str, pa.Array]
    ) -> None:
        """``begins`` are where the values of a column begin in their rows, in the order that rows have them."""
        self.numbers = {name: memoryview(column.buffers()[1]).cast("q") for name, column in numbers.items()}
        self.rising = {name for name, column in numbers.items() if _rises(column)}
        self.size: int = sum(column.nbytes for column in (*numbers.values(), *begins.values()))
        _, offsets, text = rows.buffers()
        self._rows = memoryview(offsets).cast("q")
        self._text = memoryview(text)
        self._begins = {name: memoryview(column.buffers()[1]).cast("i") for name, column in begins.items()}
        self._next = dict(pairwise(begins))

    def size_of(self, first: int, end: int) -> int:
        """Bytes of the rows from one position up to another."""
        return self._rows[end] - self._rows[first]

    def values(self, column: str, positions: Iterable[int]) -> list[bytes] | None:
        """The column's values as JSON, of the rows at these positions; None where it is not known where they are."""
        begins = self._begins.get(column)
        if begins is None:
            return None
        text, rows = self._text, self._rows
        if column in self._next:
            ends, key = self._begins[self._next[column]], len(_key(self._next[column]))
            return [bytes(text[rows[at] + begins[at] : rows[at] + ends[at] - key]) for at in positions]
        return [bytes(text[rows[at] + begins[at] : rows[at + 1] - len(_END)]) for at in positions]


class Gathering:
    """Cells of rows as they come, in batches: of JSON objects of these columns first, then of whole numbers by name."""

    def __init__(self, columns: Sequence[Column], numbers: Sequence[str]) -> None:
        self.size = 0
        self._numbers: dict[str, list[pa.Array]] = {name: [] for name in numbers}
        self._begins: dict[str, list[pa.Array]] = {}
        if all(_is_found(column) for column in columns):
            self._begins = {column.name: [] for column in columns}

    def add(self, batch: pa.RecordBatch) -> None:
        """The rows that come next."""
        for name in list(self._numbers):
            column = batch.column(name)
            self._numbers[name].append(column)
            if column.null_count:
                del self._numbers[name]
        for first, name in enumerate(self._begins):
            key = _key(name) if first else b"{" + _key(name)[1:]
            found = pc.find_substring(batch.column(0), key)
            self._begins[name].append(pc.add(found, pa.scalar(len(key), pa.int32())))
        self.size += len(batch) * (8 * len(self._numbers) + 4 * len(self._begins))

    def cells(self, rows: pa.LargeBinaryArray) -> Cells:
        """Of all rows, which are these."""

        def joined(parts: Mapping[str, list[pa.Array]], kind: pa.DataType) -> dict[str, pa.Array]:
            return {name: pa.concat_arrays([pa.array([], kind), *arrays]) for name, arrays in parts.items()}

        return Cells(rows, joined(self._numbers, pa.int64()), joined(self._begins, pa.int32()))


def _is_found(column: Column) -> bool:
    """Whether its key is nowhere else in a row: neither in an object inside, nor in a text.

    In a text, a quote has a backslash before it; behind one that ends a text comes no letter.
    """
    inside = children(column.sqltype) or column.type == "JSON"
    return not inside and column.name.isprintable() and (column.name[0].isalnum() or column.name[0] == "_")


def _key(name: str) -> bytes:
    return b"," + orjson.dumps(name) + b":"


def _rises(column: pa.Array) -> bool:
    return bool(pc.all(pc.less_equal(column[:-1], column[1:])).as_py() is not False)
