"""What the operator reads while the rollout runs."""

from __future__ import annotations

import sys

from rich.console import Console

# Without a terminal: wide enough for a table, and always the same.
console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def say(text: str) -> None:
    """Print a line, at once and as it is."""
    console.print(text, markup=False, soft_wrap=True)
