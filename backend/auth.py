"""Who asks: bearer tokens (JWT), verified with the keys of ``backend.keys``.

``python -m backend.auth token --user-id 1`` prints one.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
import typer
from cachetools import LRUCache
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from jwt import PyJWK

from backend import filepaths
from backend.api.problems import ApiError
from backend.config import Settings
from backend.errors import ConfigError
from backend.keys import HMAC_ALGORITHM, Keys, parse_secrets

ALL_ROWS = "analytics:all"
COOKIE = "analytics_token"
_KNOWN_TOKENS = 10_000
_LEEWAY_SECONDS = 10  # clocks of hosts that keep time differ by less
_USER_ID = re.compile(r"[0-9]{1,18}")

_bearer = HTTPBearer(
    bearerFormat="JWT",
    description=f"`sub` is the user id; scope `{ALL_ROWS}` sees all rows",
    auto_error=False,
)
_cookie = APIKeyCookie(name=COOKIE, description="a token, set by `POST /session`", auto_error=False)


@dataclass(frozen=True)
class Principal:
    """The caller: sees the rows of ``user_id``, or all."""

    user_id: int
    all_rows: bool


class _Known:
    """Tokens that were verified, those used last, until they expire: verifying is a fifth of a kept answer's time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: LRUCache[str, tuple[Principal, float]] = LRUCache(_KNOWN_TOKENS)

    def get(self, token: str) -> Principal | None:
        with self._lock:
            caller, until = self._callers.get(token, (None, 0.0))
        return caller if time.time() < until else None

    def add(self, token: str, caller: Principal, *, until: float) -> None:
        with self._lock:
            self._callers[token] = (caller, until)


@dataclass(frozen=True)
class Verifier:
    """Says whose a token is; ``audience`` and ``issuer`` are what it must be for and from, where they are not empty."""

    keys: Keys
    audience: str = ""
    issuer: str = ""
    _known: _Known = field(default_factory=_Known, init=False)

    def known(self, token: str) -> Principal | None:
        """Whose token it is, where it was verified before and is good still."""
        return self._known.get(token)

    async def principal(self, token: str) -> Principal:
        """Whose token it is.

        Raises ApiError: 401 when it is not a valid one, 403 when it names no user of ours, 503 when its key can't be
        fetched.
        """
        if known := self.known(token):
            return known
        try:
            claims, key = await self._verified(token)
        except jwt.ExpiredSignatureError as error:
            raise _unauthorized("the token has expired", error="invalid_token") from error
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is not valid: {error}", error="invalid_token") from error
        subject, scope = claims["sub"], claims.get("scope", "")
        if isinstance(subject, bool) or not _USER_ID.fullmatch(str(subject)):
            raise ApiError(
                403,
                "forbidden",
                "the token's `sub` is not a user id: expected a whole number",
                hint="use a token issued for a user of this service",
                headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'},
            )
        caller = Principal(int(subject), all_rows=isinstance(scope, str) and ALL_ROWS in scope.split())
        if self.keys.keeps(key):
            self._known.add(token, caller, until=int(claims["exp"]) + _LEEWAY_SECONDS)
        return caller

    async def _verified(self, token: str) -> tuple[dict[str, Any], PyJWK]:
        """The claims of a valid token, and the key that signed it."""
        problem: jwt.PyJWTError = jwt.InvalidTokenError("there is no key that it could be signed with")
        for key in await self.keys.candidates(jwt.get_unverified_header(token)):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[key.algorithm_name],  # of the key, never of the token
                    audience=self.audience or None,
                    issuer=self.issuer or None,
                    leeway=_LEEWAY_SECONDS,
                    # PyJWT wants sub to be text; whether it is a user id, in whatever JSON type, is checked above.
                    options={"require": ["exp", "sub"], "verify_sub": False},
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
                problem = error
            else:
                return claims, key
        raise problem


def issue(
    secret: str, *, user_id: int, all_rows: bool = False, ttl: timedelta, audience: str = "", issuer: str = ""
) -> str:
    """A token for that user, good for ``ttl`` from now."""
    now = datetime.now(UTC)
    claims = {"sub": str(user_id), "iat": now, "exp": now + ttl, "aud": audience, "iss": issuer}
    claims |= {"scope": ALL_ROWS} if all_rows else {}
    return jwt.encode({name: value for name, value in claims.items() if value}, secret, algorithm=HMAC_ALGORITHM)


def issue_here(*, user_id: int, all_rows: bool = False, ttl: timedelta) -> str:
    """A token that the API of this environment takes. Raises ConfigError when there is no secret to sign it with."""
    settings = Settings()
    secret = parse_secrets(filepaths.read_secret("jwt_secret"), filepaths.secret_file("jwt_secret"))[0]
    return issue(
        secret,
        user_id=user_id,
        all_rows=all_rows,
        ttl=ttl,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
    )


async def presented_token(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
) -> str:
    """FastAPI dependency: the token of the header; the cookie's only where there is no such header at all."""
    if credentials is not None:
        return credentials.credentials
    if cookie is None or "Authorization" in request.headers:
        raise _unauthorized("this request has no `Authorization: Bearer <token>` header")
    return cookie


async def principal(request: Request, presented: Annotated[str, Depends(presented_token)]) -> Principal:
    """FastAPI dependency: the caller of this request. Raises ApiError 401, 403 or 503."""
    verifier: Verifier = request.app.state.verifier
    caller = await verifier.principal(presented)
    request.state.user_id, request.state.presented_token = caller.user_id, presented
    return caller


Caller = Annotated[Principal, Depends(principal)]


async def caller_of(request: Request) -> Principal:
    """What ``Caller`` stands for, without FastAPI's way of finding it. Raises as ``principal``."""
    return await principal(request, await presented_token(request, await _bearer(request), await _cookie(request)))


def _unauthorized(message: str, *, error: str | None = None) -> ApiError:
    challenge = "Bearer" + (f' error="{error}"' if error else "")
    return ApiError(
        401,
        "unauthorized",
        message,
        hint="send `Authorization: Bearer <token>`; `make token USER_ID=1` prints one",
        headers={"WWW-Authenticate": challenge},
    )


cli = typer.Typer(help="Tokens for the analytics API.", no_args_is_help=True)


@cli.callback()
def _root() -> None:
    # With a callback typer keeps `token` a subcommand, though it is the only one.
    pass


@cli.command()
def token(
    user_id: Annotated[int, typer.Option(min=0, help="whose rows it shows")],
    *,
    all_rows: Annotated[bool, typer.Option("--all", help="every user's rows")] = False,
    ttl: Annotated[int, typer.Option(min=1, help="seconds until it expires")] = 3600,
) -> None:
    """Print a token signed with this environment's secret."""
    try:
        typer.echo(issue_here(user_id=user_id, all_rows=all_rows, ttl=timedelta(seconds=ttl)))
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    cli()
