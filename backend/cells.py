"""What single columns have in rows that are kept as JSON, so that a few rows are filtered and sorted without DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from backend.datasets import Column, children

_WIDTHS: dict[pa.DataType, Literal["b", "h", "i", "q"]] = {
    pa.int8(): "b",
    pa.int16(): "h",
    pa.int32(): "i",
    pa.int64(): "q",
}
_NOWHERE = b"\0"  # in JSON


class Cells:
    """Values by column and position. Nothing changes them.

    ``numbers`` are columns as whole numbers, none of which is NULL; ``rising`` are those of them that rows are in the
    order of.
    """

    def __init__(self, columns: Sequence[Column], rows: pa.LargeBinaryArray, numbers: Mapping[str, pa.Array]) -> None:
        """``rows`` are JSON objects of these columns, each with a comma after it."""
        self.numbers = {name: _view(column) for name, column in numbers.items()}
        self.rising = {name for name, column in numbers.items() if _rises(column)}
        self.size = sum(column.nbytes for column in self.numbers.values())
        _, offsets, text = rows.buffers()
        self._offsets = memoryview(offsets).cast("q")
        self._text = memoryview(text)
        self._around: dict[str, tuple[bytes, bytes]] = {}
        if all(map(_is_found, columns)):
            keys = [b"," + orjson.dumps(column.name) + b":" for column in columns]
            keys[:1] = [b"{" + key[1:] for key in keys[:1]]
            names = [column.name for column in columns]
            self._around = dict(zip(names, pairwise([*keys, _NOWHERE]), strict=True))

    def bytes_of(self, first: int, end: int) -> int:
        """Bytes of the rows from one position up to another."""
        return self._offsets[end] - self._offsets[first]

    def values(self, columns: Sequence[str], positions: Iterable[int]) -> list[list[bytes]] | None:
        """Values as JSON, by column, of the rows at these positions; None where it is not certain which they are."""
        if not all(column in self._around for column in columns):
            return None
        text, offsets = self._text, self._offsets
        rows = [bytes(text[offsets[at] : offsets[at + 1] - len(b"},")]) for at in positions]
        return [
            [row.partition(before)[2].partition(after)[0] for row in rows]
            for before, after in map(self._around.__getitem__, columns)
        ]


def _is_found(column: Column) -> bool:
    """Whether its key is nowhere else in a row: neither in an object inside, nor in a text.

    In a text, a quote has a backslash before it; behind one that ends a text comes no letter.
    """
    inside = children(column.sqltype) or column.type == "JSON"
    return not inside and column.name.isprintable() and (column.name[0].isalnum() or column.name[0] == "_")


def _view(column: pa.Array) -> memoryview[int]:
    """The numbers in as few bytes as hold them all."""
    for kind, code in _WIDTHS.items():
        try:
            narrow = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return memoryview(narrow.buffers()[1] or b"").cast(code)
    raise TypeError(column.type)


def _rises(column: pa.Array) -> bool:
    return pc.all(pc.less_equal(column[:-1], column[1:])).as_py() is not False
