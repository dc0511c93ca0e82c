"""Content codings of answers, in pieces as they come."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa

from backend.api.pieces import Pieces

_GZIP_LEVEL = 1  # 2 MB of rows: 13 ms for a fifth of the size; level 6 takes 60 ms to save a twelfth of that
_GZIP_WINDOW = 31  # zlib's way to say gzip


def gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces as one gzip member."""
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def zstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces as one zstd frame."""
    compressed = Pieces()
    with pa.CompressedOutputStream(compressed, "zstd") as stream:
        for piece in pieces:
            stream.write(piece)
            yield compressed.take()
    yield compressed.take()


CODINGS: Mapping[str, Callable[[Iterable[bytes]], Iterator[bytes]]] = {"zstd": zstd, "gzip": gzip}
"""By the name that HTTP has for it, the best first."""
