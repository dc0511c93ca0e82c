"""The one place that runs commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from backend import filepaths
from backend.errors import BundleError
from deploy.rollout.compose import Command

_TAIL = 25


class CommandFailed(BundleError):
    """A command ended with another code than 0; ``output`` is what it printed on standard output."""

    def __init__(self, message: str, *, hint: str, code: int, output: str) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.output = output


class Shell:
    """Runs commands in the repository. ``keep_open`` are descriptors that each of them inherits: a lock's, say."""

    def __init__(self, keep_open: Sequence[int] = ()) -> None:
        self.keep_open = list(keep_open)

    def output(self, command: Command, *, show: bool = False) -> str:
        """Run it; what it printed on standard output. ``show``: its standard error is seen while it runs.

        Raises CommandFailed with the last lines of what it said.
        """
        finished = subprocess.run(
            command.arguments,
            env={**os.environ, **command.environment, **command.secrets},
            cwd=filepaths.REPO_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if show else subprocess.PIPE,
            text=True,
            check=False,
            pass_fds=self.keep_open,
        )
        if finished.returncode != 0:
            said = "\n".join(f"{finished.stderr or ''}\n{finished.stdout}".strip().splitlines()[-_TAIL:])
            raise CommandFailed(
                f"`{command}` ended with code {finished.returncode}:\n{said}",
                hint="mend what it names, then run this again",
                code=finished.returncode,
                output=finished.stdout,
            )
        return finished.stdout
