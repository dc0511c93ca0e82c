"""Signing in with a cookie, for the page: a token comes in a body, once, and scripts can't read it from then on.

The cookie authorises what its token does, and nothing else changes by it. Other sites can't use it (SameSite=Strict),
nor sign anybody in: a body has to be declared as JSON, which a form of another site can't do.
"""

from __future__ import annotations

import time
from typing import Any

import jwt
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backend import auth
from backend.api.problems import ErrorEnvelope

_MAX_TOKEN = 3800  # browsers drop a cookie of more than 4096 bytes, name and attributes included, without a word
_NO_STORE = {"Cache-Control": "no-store"}
_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorEnvelope, "description": "No valid token"},
    403: {"model": ErrorEnvelope, "description": "The token names no user"},
    503: {"model": ErrorEnvelope, "description": "The keys it may be signed with can't be fetched at the moment"},
}
_INVALID_BODY: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorEnvelope, "description": "Not text at all"},
    413: {"model": ErrorEnvelope, "description": "The body is too large"},
    422: {"model": ErrorEnvelope, "description": "Not such a body"},
}

router = APIRouter(prefix="/session", tags=["session"])


class Token(BaseModel):
    """A bearer token to be kept as a cookie."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=_MAX_TOKEN, pattern=r"^[A-Za-z0-9_.=-]+$", description="as `make token` prints it")


class Session(BaseModel):
    """Whose rows are shown: those of `user_id`, or all."""

    user_id: int
    all_rows: bool


@router.get("", responses=_REFUSED)
async def who(response: Response, caller: auth.Caller) -> Session:
    """Who is signed in, by cookie or by header."""
    response.headers.update(_NO_STORE)
    return Session(user_id=caller.user_id, all_rows=caller.all_rows)


@router.post("", responses={**_REFUSED, **_INVALID_BODY})
async def sign_in(request: Request, response: Response, body: Token) -> Session:
    """Keep the token as a cookie that scripts can't read, no longer than it is valid."""
    caller = await request.app.state.verifier.principal(body.token)
    expires = jwt.decode(body.token, options={"verify_signature": False})["exp"]
    response.set_cookie(auth.COOKIE, body.token, max_age=max(0, int(expires - time.time())), **_attributes(request))
    response.headers.update(_NO_STORE)
    return Session(user_id=caller.user_id, all_rows=caller.all_rows)


@router.delete("", status_code=204)
async def sign_out(request: Request, response: Response) -> None:
    """Forget the cookie."""
    response.delete_cookie(auth.COOKIE, **_attributes(request))
    response.headers.update(_NO_STORE)


def _attributes(request: Request) -> dict[str, Any]:
    # Who ends TLS in front of this says so in a header. Whoever forges it only withholds their own cookie.
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    return {"path": "/", "httponly": True, "samesite": "strict", "secure": secure}
