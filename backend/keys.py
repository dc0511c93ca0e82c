"""Keys that tokens are verified with: secrets of ours (HS256), and public keys that others publish as a JWKS.

A key is only ever good for the algorithm that it was loaded with, whatever a token says of itself. Why, and how to
rotate keys: ``deploy/decisions/0015-who-may-ask.md``.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWKSet

from backend import filepaths
from backend.config import Settings
from backend.errors import ConfigError
from backend.jwks import PublishedKeys

HMAC_ALGORITHM = "HS256"
_PUBLIC_ALGORITHMS = ("RS256", "ES256")
_MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: a key of the hash output's size or larger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """Secrets, the first of which signs; public keys of a file; and those of a URL, if there is one."""

    secrets: tuple[str, ...] = ()
    public: tuple[PyJWK, ...] = ()
    published: PublishedKeys | None = None

    async def candidates(self, header: dict[str, Any]) -> Sequence[PyJWK]:
        """The keys that a token with this header may be signed with; ``kid`` chooses among the public ones.

        Nothing else in the header (``jwk``, ``jku``, ``x5u``, ``x5c``) brings in a key. Raises ApiError 503 when the
        URL has the only keys there could be, and can't be reached.
        """
        if header.get("alg") == HMAC_ALGORITHM:
            return [_from_secret(secret) for secret in self.secrets]
        kid = header.get("kid")
        if kid is None:
            return []
        found = [key for key in self.public if key.key_id == kid]
        return found or (await self.published.find(kid) if self.published else [])

    def keeps(self, key: PyJWK) -> bool:
        """Whether nobody can withdraw the key while the process runs, as a URL can."""
        return self.published is None or key.algorithm_name == HMAC_ALGORITHM or key in self.public


def load(settings: Settings, secret: str | None = None) -> Keys:
    """The keys of the secret files ``jwt_secret`` and ``jwks`` and of the setting ``API_JWKS_URL``.

    ``secret`` stands for the content of the first. Raises ConfigError when there is none at all, or one is unfit.
    """
    public = _public_keys(filepaths.secret_file("jwks"))
    published = PublishedKeys(settings.jwks_url, usable) if settings.jwks_url else None
    if secret is None:
        read = filepaths.read_optional_secret if public or published else filepaths.read_secret
        secret = read("jwt_secret")
    path = filepaths.secret_file("jwt_secret")
    return Keys(() if secret is None else parse_secrets(secret, path), public, published)


def parse_secrets(text: str, path: Path) -> tuple[str, ...]:
    """The secrets in the text of the file ``path``: one a line, the newest first. Raises ConfigError: one is unfit."""
    secrets = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not secrets:
        raise ConfigError(f"the secret file {path} is empty", hint="delete it and run `make secrets`")
    for number, secret in enumerate(secrets, 1):
        size = len(secret.encode())
        if size < _MIN_SECRET_BYTES:
            raise ConfigError(
                f"the secret in {path}, line {number}, has {size} bytes, expected {_MIN_SECRET_BYTES} at least",
                hint="delete it and run `make secrets`",
            )
        try:
            jwt.get_algorithm_by_name(HMAC_ALGORITHM).prepare_key(secret)
        except jwt.InvalidKeyError as error:
            raise ConfigError(
                f"the secret in {path}, line {number}, is not a random secret: {error}",
                hint="public keys belong into the file jwks beside it",
            ) from error
    return secrets


def cursor_secrets() -> tuple[str, ...]:
    """Secrets for page cursors where no token is signed with one, from the file ``cursor_secret``.

    All replicas must have the same. Raises ConfigError when there is none.
    """
    path = filepaths.secret_file("cursor_secret")
    text = filepaths.read_optional_secret(path.name)
    if text is None:
        raise ConfigError(
            f"there is neither {filepaths.secret_file('jwt_secret')} nor {path}: page cursors need a secret",
            hint=f"put {_MIN_SECRET_BYTES} random bytes, as text, into {path}, the same for all replicas",
        )
    return parse_secrets(text, path)


def usable(key_set: PyJWKSet) -> tuple[PyJWK, ...]:
    """The public keys for signatures among these; of any other kind, none is ever used."""
    found = []
    for key in key_set:
        public = isinstance(key.key, (RSAPublicKey, EllipticCurvePublicKey))
        weak = key.Algorithm.check_key_length(key.key) if public else None
        if (
            not public
            or weak
            or key.algorithm_name not in _PUBLIC_ALGORITHMS
            or key.public_key_use not in {"sig", None}
        ):
            log.warning("the key %r of a JWKS is not used: it is no public key for %s", key.key_id, _PUBLIC_ALGORITHMS)
        elif not key.key_id:
            log.warning("a key of a JWKS is not used: it has no `kid`")
        else:
            found.append(key)
    return tuple(found)


def _public_keys(path: Path) -> tuple[PyJWK, ...]:
    """Keys of a JWKS file. None: there is no such file, or it holds an empty set."""
    text = filepaths.read_optional_secret(path.name)
    if text is None:
        return ()
    try:
        entries = json.loads(text)["keys"]
        if entries == []:
            return ()
        found = usable(PyJWKSet(entries))
    except (ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
        raise ConfigError(
            f"reading the JWKS {path} failed: {type(error).__name__}: {error}",
            hint='expected {"keys": [...]} (RFC 7517), an empty list for none',
        ) from error
    if len(found) < len(entries):
        raise ConfigError(
            f"the JWKS {path} has {len(entries)} keys, {len(found)} of them usable; the log says which are not",
            hint=f"expected public keys for signatures, {' or '.join(_PUBLIC_ALGORITHMS)}, each with a `kid`",
        )
    return found


@functools.cache
def _from_secret(secret: str) -> PyJWK:
    encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    return PyJWK({"kty": "oct", "k": encoded}, algorithm=HMAC_ALGORITHM)
