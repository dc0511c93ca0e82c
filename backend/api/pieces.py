"""A file to write to whose content is taken away piece by piece, so that it never is in memory as a whole."""

from __future__ import annotations

import io


class Pieces(io.RawIOBase):
    """What was written since the last ``take``. ``tell`` counts from the beginning, as writers of formats need it."""

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
