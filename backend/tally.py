"""What became of builds: counts in ``$PARQUET_DIR/builds.json``, which the pipeline keeps and the API shows.

The store is all that the two share. A count never makes anything fail: what it counts matters more.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path

FILE_NAME = "builds.json"
STARTED = "started"
OUTCOMES = PUBLISHED, TEST_FAILED, AUDIT_REFUSED, FAILED = ("published", "test_failed", "audit_refused", "failed")
"""What a build that was started comes to. One that was killed comes to nothing."""

_MOST = 2**53  # what Prometheus can count to

log = logging.getLogger(__name__)


def add(root: Path, event: str) -> None:
    """Count one more STARTED, or one of OUTCOMES. Only who holds the build lock of the store may."""
    counts = read(root)
    counts[event] = counts.get(event, 0) + 1
    temporary = root / f".next.{FILE_NAME}"
    try:
        temporary.write_text(json.dumps(counts), encoding="utf-8")
        temporary.replace(root / FILE_NAME)
    except OSError as error:
        log.warning("counting a build in %s failed: %s", root, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(root: Path) -> dict[str, int]:
    """The counts by event; none where nothing was counted yet, or what was can't be read."""
    path = root / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        counts = {event: found.get(event, 0) for event in (STARTED, *OUTCOMES)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        log.warning("reading the counts of builds in %s failed: %s: %s", path, type(error).__name__, error)
        return {}
    if not all(type(count) is int and 0 <= count < _MOST for count in counts.values()):
        log.warning("the counts of builds in %s are no whole numbers: %s", path, counts)
        return {}
    return counts
