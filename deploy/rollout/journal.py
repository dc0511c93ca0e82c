"""The journal of the rollout: a line of JSON for each thing done, and who did it when. Never rewritten."""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line. ``event``: started, done, failed or undone, of a ``step``; of the command itself the step is empty."""

    at: str
    who: str
    command: str
    origin: int
    target: int
    step: str
    event: str
    result: str = ""
    seconds: float | None = None


def who() -> str:
    """The person or program that runs the tool."""
    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"


class Journal:
    """The journal in the file ``path``, which is made by the first entry."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, command: str, origin: int, target: int, step: str, event: str, **more: str | float) -> None:
        """Add an entry; it is on disk when this returns. Raises OSError."""
        entry = Entry(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", who(), command, origin, target, step, event, **more)  # type: ignore[arg-type]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({name: value for name, value in asdict(entry).items() if value not in ("", None)})
        with self.path.open("ab+") as file:
            # What a dying machine cut off stays a line of its own.
            cut = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * cut + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> list[Entry]:
        """All entries, oldest first. A line that was cut off when the machine died is left out."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(Entry(**{"step": "", **json.loads(line)}))
            except (ValueError, TypeError):
                continue
        return found

    def unfinished(self) -> tuple[int, int] | None:
        """Origin and target of the last move when it neither ended nor was undone."""
        commands = [entry for entry in self.entries() if not entry.step]
        if commands and commands[-1].event in ("started", "failed"):
            return commands[-1].origin, commands[-1].target
        return None
