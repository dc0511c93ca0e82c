"""Waiting for a condition, with an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from backend.errors import BundleError

T = TypeVar("T")
_EVERY_SECONDS = 0.25


class TimedOut(BundleError):
    """What was waited for did not come."""


def wait_for(condition: Callable[[], T | None], what: str, *, seconds: float, found: Callable[[], str]) -> T:
    """The first true value of ``condition()``. Raises TimedOut, with what ``found`` says, after so many seconds."""
    retrying = Retrying(
        retry=retry_if_result(lambda value: not value), stop=stop_after_delay(seconds), wait=wait_fixed(_EVERY_SECONDS)
    )
    try:
        return cast("T", retrying(condition))
    except RetryError:
        raise TimedOut(
            f"waited {seconds:g} s until {what}, found: {found()}", hint="mend it, or raise ROLLOUT_WAIT_SECONDS"
        ) from None
