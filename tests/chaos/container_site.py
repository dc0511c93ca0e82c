"""The containers' layer: phase 2 as it is deployed, with the marts on a small file system of their own (as root)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from backend.snapshots import SnapshotStore
from tests.chaos.served import LIMIT, Api, Backend, State
from tests.e2e.stack import Stack

TMPFS_BYTES = 64_000_000
SCALE = "0.02"  # of the source: all of it is read ten times a second


def can_mount() -> bool:
    """Whether this process may mount a file system, here or in a namespace of its own."""
    return os.geteuid() == 0


class ContainerSite:
    """The source has two states, which differ in one name: each build is of the other one than what is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        settings = {"API_MAX_LIMIT": str(LIMIT), "API_SCRUB_SECONDS": "0.2", "SOURCE_SCALE": SCALE}
        self.stack = Stack(directory, 2, settings=settings)
        self.root = self.stack.parquet_host_dir
        self.root.mkdir()
        self.mounted = can_mount()
        if self.mounted:
            command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=0755", "chaos", self.root]
            subprocess.run(command, check=True, timeout=10)
        try:
            self.stack.up()
            self.stack.stop_schedule()
            self.store = SnapshotStore(self.root)
            self.warm = Api(self.stack.api(all_rows=True))
            self.states: list[State] = []
            self.name = "Ada"
            self._known: dict[str, str] = {}  # the source's state: digest of the marts built from it
            for _ in range(2):
                self.other_state()
                self.stack.build("dim_users")
                self.states.append(self.warm.state())
                self._known[self.name] = self.states[-1].rows
        except BaseException:
            self.close()
            raise
        assert len(set(self._known.values())) == 2, "what is served does not tell the two states apart"

    def cold(self) -> Backend:
        """Beside the stack's, on the same files."""
        return Backend(self.root, self.directory)

    def close(self) -> None:
        self.stack.down()
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.root], check=True, timeout=10)
        shutil.rmtree(self.directory)

    def good_build(self) -> str:
        self.other_state()
        self.stack.build("dim_users")
        return self.rows

    @property
    def rows(self) -> str:
        """The digest of marts built from the source as it is."""
        return self._known[self.name]

    def other_state(self) -> None:
        self.name = {"Ada": "Bea", "Bea": "Ada"}[self.name]
        self.stack.psql(f"UPDATE users SET full_name = '{self.name}' WHERE user_id = 1")
