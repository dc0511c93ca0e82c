"""The ``next`` token: where a page ended, on which state of the data. It never says who asks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from backend.api.problems import ApiError

_MAC_BYTES = 16


@dataclass(frozen=True)
class Cursor:
    """The query's own parameters, the state it reads and the offset of the next page.

    The state is ``snapshot``, or, on the DuckDB file, None and ``as_of``, the file's last refresh.
    """

    dataset: str
    params: dict[str, str]
    snapshot: str | None
    as_of: str
    offset: int

    def encode(self, key: bytes) -> str:
        """The token: base64url of JSON and its signature."""
        payload = json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(_mac(key, payload) + payload).rstrip(b"=").decode()

    @classmethod
    def decode(cls, token: str, key: bytes) -> Cursor:
        """The cursor in a token. Raises ApiError 400 when it is not one of ours, to the letter."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _tampered() from error
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, _mac(key, payload)):
            raise _tampered()
        data: dict[str, Any] = json.loads(payload)
        cursor = cls(**data)
        if cursor.encode(key) != token:  # the last letter has bits that decoding ignores
            raise _tampered()
        return cursor


def signing_key(secret: str) -> bytes:
    """A key of its own, derived from the token secret: a cursor's signature must never be good for a token."""
    return hashlib.sha256(b"cursor:" + secret.encode()).digest()


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.new(key, payload, hashlib.sha256).digest()[:_MAC_BYTES]


def _tampered() -> ApiError:
    return ApiError(
        400,
        "invalid_cursor",
        "parameter 'cursor': expected a `next` of an earlier answer, unchanged; got something else",
        hint="pass `next` on as it came, or start again without cursor",
    )
