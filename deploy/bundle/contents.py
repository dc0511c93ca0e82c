"""What goes into a bundle: the phases' images, the host's Python packages, bills of materials, and this checkout."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from backend.errors import BundleError
from backend.filepaths import REPO_ROOT
from deploy.bundle.sbom import bill_of
from deploy.rollout.compose import Command, Compose, Config
from deploy.rollout.shell import Shell

SERVICES = {
    "BACKEND_IMAGE": "backend",
    "PIPELINE_IMAGE": "dagster-daemon",
    "GATEWAY_IMAGE": "gateway",
    "POSTGRES_IMAGE": "postgres",
}
"""The variable that names an image, and a service that runs it."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Contents:
    """``files``: where each is now, by its path in the bundle. ``name`` is the archive's, and of its one directory."""

    name: str
    files: Mapping[str, Path]


@contextmanager
def gathered(scratch: Path) -> Iterator[Contents]:
    """All files of a new bundle; those that had to be made lie in ``scratch`` meanwhile.

    Raises BundleError where this is no clone, and CommandFailed where an image or a package can't be had.
    """
    if (REPO_ROOT / "bundle").exists():
        raise BundleError(
            f"{REPO_ROOT} was unpacked from a bundle itself", hint="carry on the archive it came from, or use a clone"
        )
    shell = Shell()
    identity = f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"
    checkout = _checkout(shell)
    with TemporaryDirectory(dir=scratch, prefix=".bundle-") as directory:
        made = Path(directory)
        _write_images(made, shell, identity)
        _write_wheels(made / "wheels", shell)
        # What the host has to be like: deploy/setup/bundle.sh and deploy/setup/venv.sh compare it.
        (made / "machine").write_text(f"{platform.machine()}\n", encoding="utf-8")
        (made / "python").write_text(f"{_PYTHON}\n", encoding="utf-8")
        files = {f"bundle/{path.relative_to(made)}": path for path in made.rglob("*") if path.is_file()}
        yield Contents(f"parquet-marts-{identity}-{platform.machine()}-python{_PYTHON}", checkout | files)


def _checkout(shell: Shell) -> dict[str, Path]:
    """What git has or would take: so neither .env, nor secrets, nor data."""
    listing = shell.output(Command(("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), {}))
    files = {name: REPO_ROOT / name for name in listing.split("\0") if name and (REPO_ROOT / name).exists()}
    return files | {"INSTALL.md": REPO_ROOT / "deploy/bundle/INSTALL.md"}


def _write_images(target: Path, shell: Shell, identity: str) -> None:
    """The images under names of this bundle's own, so that no other image of the host is taken for one of them."""
    config = Config(json.loads(shell.output(Compose().config(2))))
    names = {}
    try:
        for variable, service in SERVICES.items():
            name = f"parquet-marts/{variable.removesuffix('_IMAGE').lower()}:{identity}"
            shell.output(Command(("docker", "tag", config.image(service), name), {}))
            names[variable] = name
        shell.output(Command(("docker", "save", "--output", str(target / "images.tar"), *names.values()), {}))
        (target / "sbom").mkdir()
        for variable, name in names.items():
            file = target / "sbom" / f"{variable.removesuffix('_IMAGE').lower()}.cdx.json"
            file.write_text(bill_of(name, shell), encoding="utf-8")
    finally:
        if names:
            shell.output(Command(("docker", "image", "rm", *names.values()), {}))
    lines = "".join(f"{variable}={name}\n" for variable, name in names.items())
    (target / "images.env").write_text(lines, encoding="utf-8")


def _write_wheels(target: Path, shell: Shell) -> None:
    """Every file that ``deploy/setup.sh venv`` installs, as the lock has it."""
    bundle = os.environ.get("CA_BUNDLE", "")
    trust = {"PIP_CERT": bundle} if bundle and "PIP_CERT" not in os.environ and Path(bundle).stat().st_size else {}
    command = (
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes",
        "--no-deps", "--dest", str(target), "--requirement", "requirements.lock",
    )  # fmt: skip
    shell.output(Command(command, trust))
