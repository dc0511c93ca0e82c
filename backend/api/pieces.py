"""Bodies of answers, piece by piece: none is in memory as a whole, and none is copied to be put together."""

from __future__ import annotations

import io
from dataclasses import dataclass

Buffer = bytes | memoryview


@dataclass(frozen=True)
class Piece:
    """Some bytes of a body, in parts that follow one another; the ``last`` piece is all that was left of it."""

    parts: tuple[Buffer, ...]
    last: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.parts))


class Pieces(io.RawIOBase):
    """A file: what was written since the last ``take``. ``tell`` counts from the beginning, as writers need it."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override] # any buffer
        """Keep the data until it is taken."""
        self._kept.append(bytes(data))
        self._written += len(self._kept[-1])
        return len(self._kept[-1])

    def tell(self) -> int:
        """How much was written since the beginning."""
        return self._written

    def take(self) -> bytes:
        """All that was kept, also after closing."""
        taken, self._kept = b"".join(self._kept), []
        return taken
