"""``python -m deploy.bundle DIRECTORY``: writes the archive there, from the images that are in the engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from backend.errors import BundleError
from deploy.bundle.archive import write
from deploy.bundle.contents import gathered


def main(directory: Annotated[Path, typer.Argument(help="where the archive is written")]) -> None:
    """Write one archive of images, packages and this checkout, and a file with its checksum."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with gathered(directory) as contents:
            archive = write(directory, contents)
    except BundleError as error:
        sys.exit(f"bundle: {error.message}\n       To do: {error.hint}")
    typer.echo(f"{archive} ({archive.stat().st_size / 1e6:.0f} MB), to be compared there with {archive.name}.sha256")


if __name__ == "__main__":
    typer.run(main)
