"""The ``next`` token: where a page ended, on which state of the data. It never says who asks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backend.api.problems import ApiError

_MAC_BYTES = 16


class Key:
    """What cursors are signed with: the first of some secrets. What any of them signed is accepted.

    The key itself is derived: a cursor's signature must never be good for a token.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [hashlib.sha256(b"cursor:" + secret.encode()).digest() for secret in secrets]

    def sign(self, payload: bytes) -> bytes:
        """The payload with its signature."""
        return _mac(self._keys[0], payload) + payload

    def opened(self, signed: bytes) -> bytes | None:
        """The payload of what was signed; None when it was not."""
        mac, payload = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        found = [hmac.compare_digest(mac, _mac(key, payload)) for key in self._keys]
        return payload if any(found) else None


@dataclass(frozen=True)
class Cursor:
    """The query's own parameters, the state it reads and the offset of the next page.

    The state is ``snapshot``, or, on the DuckDB file, None and ``as_of``, the file's last refresh.
    """

    dataset: str
    params: dict[str, str | list[str]]
    snapshot: str | None
    as_of: str
    offset: int

    def encode(self, key: Key) -> str:
        """The token: base64url of JSON and its signature."""
        return _text(key.sign(orjson.dumps(self)))

    @classmethod
    def decode(cls, token: str, key: Key) -> Cursor:
        """The cursor in a token. Raises ApiError 400 when it is not one of ours, to the letter."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _tampered() from error
        payload = key.opened(raw)
        if payload is None or _text(raw) != token:  # the last letter has bits that decoding ignores
            raise _tampered()
        data: dict[str, Any] = orjson.loads(payload)
        return cls(**data)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, payload, hashlib.sha256).digest()[:_MAC_BYTES]


def _tampered() -> ApiError:
    return ApiError(
        400,
        "invalid_cursor",
        "parameter 'cursor': expected a `next` of an earlier answer, unchanged; got something else",
        hint="pass `next` on as it came, or start again without cursor",
    )
