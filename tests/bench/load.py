"""wrk, which keeps connections busy: each sends its next request once it has the answer to the one before."""

from __future__ import annotations

import json
import math
import os
import string
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.asking import TIMEOUT_SECONDS, Request
from tests.bench.figures import percentile, uncorrected

SCRIPT = Path(__file__).with_name("load.lua")
_COUNTABLE = 20
"""Answers per connection from which on the one that was cut off at the end is no matter."""


class LoadFailed(AssertionError):
    """A load that says nothing of the server: requests failed, or none was answered."""


class TooShort(LoadFailed):
    """A load that ended before anything was answered."""


@dataclass(frozen=True)
class Load:
    """What a load of so many ``connections`` came to; ``latencies`` are microseconds and how often."""

    connections: int
    seconds: float
    sent: int
    latencies: Counter[int]

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return self.latencies.total()

    @property
    def rate(self) -> float:
        """Requests per second; of few slow ones by Little's law: a count would depend on when the last one ended."""
        if self.answers >= _COUNTABLE * self.connections:
            return self.answers / self.seconds
        mean = sum(latency * count for latency, count in self.latencies.items()) / self.answers / 1e6
        return self.connections / mean

    def milliseconds(self, share: float) -> float:
        """That percentile of the latencies."""
        return percentile(self.latencies, share) / 1000


def put(
    port: int, requests: Sequence[Request], *, connections: int, seconds: float, serial: int, scratch: Path
) -> Load:
    """Ask these in turn for whole ``seconds``, numbered from ``serial`` on; ``scratch`` is a directory to write to.

    Raises LoadFailed when any answer was not a 200 or a connection broke, TooShort when no answer came.
    """
    written, result = scratch / "requests.lua", scratch / "load.json"
    written.write_text(f"return {{{', '.join(_lua(request.template()) for request in requests)}}}\n")
    result.unlink(missing_ok=True)
    finished = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections), "--duration", str(math.ceil(seconds))),
            *("--timeout", str(TIMEOUT_SECONDS), "--script", str(SCRIPT), f"http://127.0.0.1:{port}/", "--"),
            *(str(result), str(written), str(serial)),
        ],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ctrl-C is for whoever has servers to stop
        env={"PATH": os.environ["PATH"]},
    )
    if finished.returncode != 0 or not result.exists():
        raise LoadFailed(f"wrk failed: {finished.stdout[-500:]}{finished.stderr[-500:]}")
    return judged(json.loads(result.read_text()), connections)


def judged(found: Mapping[str, Any], connections: int) -> Load:
    """What ``load.lua`` wrote, if all went well. Raises LoadFailed saying what did not."""
    failures = {name: found[name] for name in ("unexpected", "connect", "read", "write", "timeout") if found[name]}
    # wrk connects anew without a word when the server hangs up in the middle of an answer. A single one can hide here
    # behind a connection that was between two requests when time was up; a server that does this does it again.
    lost = found["sent"] - found["answers"] - connections
    if lost > 0:
        failures["never answered"] = lost
    if failures:
        listed = ", ".join(f"{count} {name}" for name, count in failures.items())
        raise LoadFailed(f"of {found['sent']} requests on {connections} connections failed: {listed}")
    if not found["answers"]:
        raise TooShort(f"none of {found['sent']} requests was answered in {found['microseconds'] / 1e6:.1f} s")
    rounds = found["answers"] // connections
    interval = found["microseconds"] // rounds if rounds else math.inf
    latencies = uncorrected(((latency, count) for latency, count in found["latencies"]), interval)
    if latencies.total() != found["answers"]:
        raise LoadFailed(f"wrk reports {latencies.total()} latencies of {found['answers']} answers")
    return Load(connections, found["microseconds"] / 1e6, found["sent"], latencies)


def _lua(text: str) -> str:
    plain = set(string.ascii_letters + string.digits + " /.,:;=?&_-*(){}[]'")
    return '"' + "".join(c if c in plain else "".join(f"\\{byte:03d}" for byte in c.encode()) for c in text) + '"'
