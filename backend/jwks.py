"""Public keys at a URL, as an identity provider publishes them (a JWKS): fetched when needed, kept, fetched again.

PyJWT's client fetches; what it keeps, and when it asks again, is decided here: its own cache holds a lock while it
fetches, forgets its keys when they are old and the URL is down, and asks anew for every unknown key until it answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import jwt
from jwt import PyJWK, PyJWKClient, PyJWKSet

from backend.api.problems import ApiError
from backend.errors import ConfigError

_FRESH_SECONDS = 300  # then fetched again, behind what is answered meanwhile
_KEPT_SECONDS = 3600  # while the URL is down: about as long as tokens live
_PAUSE_SECONDS = 10  # between two attempts, whatever anybody sends
_TIMEOUT_SECONDS = 5

log = logging.getLogger(__name__)


class PublishedKeys:
    """The keys at a URL; ``select`` says which of them are used."""

    def __init__(self, url: str, select: Callable[[PyJWKSet], tuple[PyJWK, ...]]) -> None:
        """Raises ConfigError when it is no such URL. Nothing is fetched before a token asks for a key."""
        try:
            self._client = PyJWKClient(url, cache_jwk_set=False, timeout=_TIMEOUT_SECONDS)
        except jwt.PyJWKClientError as error:
            raise ConfigError(f"API_JWKS_URL is {url!r}: {error}", hint="give an https URL, or none") from error
        self.fetched = 0
        self.failed = 0
        self._select = select
        self._lock = threading.Lock()  # guards all below, held for moments
        self._keys: tuple[PyJWK, ...] = ()
        self._fetched_at = self._tried_at = -math.inf
        self._fetching: Future[None] | None = None

    async def find(self, kid: str) -> list[PyJWK]:
        """The keys of this id, fetched first where none is known. Raises ApiError 503 while there are none at all.

        Only who has no key waits for one, and nobody longer than it takes to fetch them once.
        """
        found = self._known(kid)
        fetching = self._fetch_if_due(unknown=not found)
        if not found and fetching is not None:
            await asyncio.wait([asyncio.wrap_future(fetching)], timeout=_TIMEOUT_SECONDS)
            found = self._known(kid)
        if not found and self._age() > _KEPT_SECONDS:
            raise ApiError(
                503,
                "keys_unavailable",
                "the keys that this token may be signed with can't be fetched",
                hint="try again later; if it lasts, see the server's log",
                headers={"Retry-After": str(_PAUSE_SECONDS)},
            )
        return found

    def _known(self, kid: str) -> list[PyJWK]:
        return [key for key in self._keys if key.key_id == kid] if self._age() <= _KEPT_SECONDS else []

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _fetch_if_due(self, *, unknown: bool) -> Future[None] | None:
        """The attempt that is under way, begun now if it is time for one."""
        with self._lock:
            now = time.monotonic()
            wanted = unknown or self._age() > _FRESH_SECONDS
            if self._fetching is None and wanted and now - self._tried_at >= _PAUSE_SECONDS:
                self._tried_at = now
                self._fetching = Future()
                threading.Thread(target=self._fetch, args=[self._fetching], name="jwks", daemon=True).start()
            return self._fetching

    def _fetch(self, done: Future[None]) -> None:
        keys: tuple[PyJWK, ...] = ()
        try:
            keys = self._select(self._client.get_jwk_set())
        except (jwt.PyJWTError, OSError, ValueError) as error:
            log.error("fetching %s failed, %d keys are kept: %s", self._client.uri, len(self._keys), error)  # noqa: TRY400 - no bug of ours
        finally:
            with self._lock:
                self._fetching = None
                if keys:
                    self.fetched += 1
                    self._keys, self._fetched_at = keys, time.monotonic()
                else:
                    self.failed += 1
            done.set_result(None)
