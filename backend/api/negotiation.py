"""Which of what we can send a client likes best: ``Accept`` and ``Accept-Encoding``, RFC 9110, 12.5."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
_LAST = 0.0001  # less than any quality that can be written


def media_type(accept: str | None, offers: Sequence[str]) -> str | None:
    """The offer that is accepted with the highest quality, the first of several; None when none is."""
    if accept is None:
        return offers[0]
    ranges = _qualities(accept)

    def quality(offer: str) -> float:
        for pattern in (offer, f"{offer.partition('/')[0]}/*", "*/*"):  # the most specific one counts
            if pattern in ranges:
                return ranges[pattern]
        return 0

    best = max(offers, key=quality)
    return best if quality(best) else None


def encoding(accept: str | None, offers: Sequence[str]) -> str | None:
    """The content coding that is accepted with the highest quality, the first of several; None: no coding."""
    codings = _qualities(accept or "")
    plain = codings.get("identity", _LAST)
    best = max(offers, key=lambda offer: codings.get(offer, codings.get("*", 0)))
    return best if codings.get(best, codings.get("*", 0)) > plain else None


def _qualities(header: str) -> dict[str, float]:
    """Each member and its quality; what is no quality is none."""
    found = {}
    for member in header.lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        weights = [parameter for parameter in parameters if parameter.startswith("q=")]
        match = _QUALITY.fullmatch(weights[0]) if weights else None
        found[name] = float(match[1]) if match else 0.0 if weights else 1.0
    return found
