"""HTTP as uvicorn speaks it, with an answer's head and body in one piece.

uvicorn writes the head by itself. A gateway that has it can't ask another backend any more, so one that is killed in
between fails a request: ``deploy/decisions/0009-gateway.md``.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_AT_ONCE_BYTES = 1 << 16


class Protocol(HttpToolsProtocol):
    """Writes what was written in one turn of the event loop at its end, at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # it is given no other
        """Begin to serve a connection."""
        super().connection_made(cast("asyncio.Transport", _Gathered(transport, self.loop)))


class _Gathered:
    """A transport whose writes wait for the end of the turn, up to some size; all else is the transport's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pending: list[bytes | memoryview] = []
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)
        self._size += len(data)
        if self._size > _AT_ONCE_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._pending:
            pending, size = self._pending, self._size
            self._pending, self._size = [], 0
            if size > _AT_ONCE_BYTES:
                self._transport.writelines(pending)  # without a copy
            else:
                self._transport.write(b"".join(pending))
