"""The images of this checkout, which tests of containers run: ``python -m tests.e2e.images`` builds them ahead."""

import os
import subprocess

from backend import lockfile
from backend.filepaths import REPO_ROOT

from .stack import CHECKOUT


def name_them():
    """In the environment: another checkout on the same machine has its own."""
    for line in (REPO_ROOT / ".cache" / "images.env").read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ.setdefault(name, value)
    for name in ("backend", "pipeline", "gateway"):
        os.environ.setdefault(f"{name.upper()}_IMAGE", f"parquet-marts/{name}:test-{CHECKOUT}")
    os.environ.setdefault("COMPOSE_BAKE", "false")


def build():
    """Build them, unless they are: what has not changed takes a second."""
    with lockfile.held(REPO_ROOT / ".cache" / "images.lock", "the tests' images", wait=900):
        built = subprocess.run(
            ["docker", "compose", "-f", "compose/base.yaml", "build", "--quiet"],
            cwd=REPO_ROOT, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]


if __name__ == "__main__":
    name_them()
    build()
