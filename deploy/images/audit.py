"""``python -m deploy.images.audit``: are there advisories on what requirements.lock pins? Yes, no, or unknown.

The image locks are subsets of that lock. Advisories that are accepted, and why, are in ``advisories.toml``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import BundleError
from backend.filepaths import REPO_ROOT

LOCK = REPO_ROOT / "requirements.lock"
# One package: whether the data is there is found out before 200 are asked for.
PROBE = REPO_ROOT / "deploy" / "images" / "tools.lock"
ACCEPTED = REPO_ROOT / "deploy" / "images" / "advisories.toml"
_SECONDS_PER_ANSWER = "15"
# Of a connection; anything else that it says is a fault of the call or of the lock.
_NO_ANSWER = ("requests.exceptions.", "urllib3.exceptions.", "Could not connect", "ServiceError")


class Unknown(Exception):
    """The advisory data can't be had; the message says what came instead."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said, a line each, and whether any of it has to be mended."""

    lines: tuple[str, ...]
    failed: bool


def judged(dependencies: list[dict[str, Any]], accepted: Mapping[str, str]) -> Verdict:
    """Judge pip-audit's list of ``{name, version, vulns}`` or ``{name, skip_reason}``.

    A package without an answer is said to be unknown; it is neither good nor a failure.
    """
    lines, failed, met = [], False, set()
    unknown = sorted(dependency["name"] for dependency in dependencies if "skip_reason" in dependency)
    for dependency in dependencies:
        for advisory in dependency.get("vulns", ()):
            what = f"{dependency['name']} {dependency['version']}: {advisory['id']}"
            known_as = {advisory["id"], *advisory.get("aliases", ())} & accepted.keys()
            met |= known_as
            if known_as:
                lines.append(f"{what}, accepted: {accepted[min(known_as)]}")
            else:
                fixed = ", ".join(advisory["fix_versions"]) or "no version"
                lines.append(f"{what}, fixed in {fixed}. Move the pin, or accept it with a reason in {ACCEPTED.name}")
                failed = True
    if unknown:
        lines.append(f"UNKNOWN for {len(unknown)} of {len(dependencies)} packages: {', '.join(unknown)}")
    else:
        for identity in sorted(accepted.keys() - met):
            lines.append(f"{identity} is accepted in {ACCEPTED.name}, and no pin has it any more: take it out there")
            failed = True
    answered = len(dependencies) - len(unknown)
    lines.append(f"{answered} packages of {LOCK.name} were compared with the advisories that are known")
    return Verdict(tuple(lines), failed)


def asked(lock: Path) -> list[dict[str, Any]]:
    """What pip-audit finds for each package of a lock file.

    Raises Unknown where it gets no answer for any, and BundleError where it can't ask.
    """
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off", "--aliases", "on",
        "--timeout", _SECONDS_PER_ANSWER,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if any(sign in done.stderr for sign in _NO_ANSWER):
            raise Unknown(last)
        raise BundleError(
            f"pip-audit of {lock.name} ended with code {done.returncode}: {last}", hint=f"run it: {' '.join(command)}"
        )
    dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    reasons = [dependency["skip_reason"] for dependency in dependencies if "skip_reason" in dependency]
    if len(reasons) == len(dependencies):
        raise Unknown(reasons[0] if reasons else f"{lock.name} has no package")
    return dependencies


def main() -> int:
    """Print the verdict; 1 where something has to be mended, 0 also where nothing is known."""
    accepted = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))["accepted"]
    try:
        asked(PROBE)
        verdict = judged(asked(LOCK), accepted)
    except Unknown as reason:
        verdict = Verdict((f"UNKNOWN: advisory data can't be reached, nothing was compared ({reason})",), failed=False)
    except BundleError as error:
        verdict = Verdict((f"{error.message}. To do: {error.hint}",), failed=True)
    for line in verdict.lines:
        print(f"audit: {line}", file=sys.stderr)  # noqa: T201 - what it is for
    return int(verdict.failed)


if __name__ == "__main__":
    sys.exit(main())
