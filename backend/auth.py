"""Who asks: bearer tokens (JWT, HS256) signed with the secret file ``jwt_secret``.

``python -m backend.auth token --user-id 1`` prints one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
import typer
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from backend import filepaths
from backend.api.problems import ApiError
from backend.errors import ConfigError

ALL_ROWS = "analytics:all"
COOKIE = "analytics_token"
_ALGORITHM = "HS256"
_MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: a key of the hash output's size or larger
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


def load_secret() -> str:
    """The signing secret. Raises ConfigError when the file is missing, empty or too short to be one."""
    secret = filepaths.read_secret("jwt_secret")
    size = len(secret.encode())
    if size < _MIN_SECRET_BYTES:
        path = filepaths.secret_file("jwt_secret")
        raise ConfigError(
            f"the secret in {path} has {size} bytes, expected {_MIN_SECRET_BYTES} at least",
            hint="delete it and run `make secrets`",
        )
    return secret


def issue(secret: str, *, user_id: int, all_rows: bool = False, ttl: timedelta) -> str:
    """A token for that user, good for ``ttl`` from now."""
    now = datetime.now(UTC)
    claims = {"sub": str(user_id), "iat": now, "exp": now + ttl}
    return jwt.encode({**claims, "scope": ALL_ROWS} if all_rows else claims, secret, algorithm=_ALGORITHM)


def verify(secret: str, token: str) -> Principal:
    """Whose token it is. Raises ApiError: 401 when it is not a valid one, 403 when it names no user of ours."""
    try:
        # PyJWT wants sub to be text; whether it is a user id, in whatever JSON type, is checked below.
        claims = jwt.decode(
            token, secret, algorithms=[_ALGORITHM], options={"require": ["exp", "sub"], "verify_sub": False}
        )
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
    return Principal(int(subject), all_rows=isinstance(scope, str) and ALL_ROWS in scope.split())


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
    """FastAPI dependency: the caller of this request. Raises ApiError 401 or 403."""
    caller = verify(request.app.state.secret, presented)
    request.state.user_id = caller.user_id
    return caller


Caller = Annotated[Principal, Depends(principal)]


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
        secret = load_secret()
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(issue(secret, user_id=user_id, all_rows=all_rows, ttl=timedelta(seconds=ttl)))


if __name__ == "__main__":
    cli()
