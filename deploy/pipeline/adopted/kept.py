"""An adopted project as it was parsed when its container started: Dagster loads its assets without parsing again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from deploy.pipeline.adopted.profile import read_profile
from deploy.pipeline.adopted.project import AdoptedProject

_MANIFEST, _MARTS = "manifest.json", "marts.json"


def keep(project: AdoptedProject, directory: Path) -> None:
    """Write into ``directory`` what ``kept`` needs of the project."""
    shutil.copyfile(project.parsed / _MANIFEST, directory / _MANIFEST)
    chosen = {"selector": project.selector, "marts": project.marts}
    (directory / _MARTS).write_text(json.dumps(chosen), encoding="utf-8")


def kept(root: Path, directory: Path) -> AdoptedProject:
    """The project in ``root`` as it was when it was kept in ``directory``."""
    manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
    chosen = json.loads((directory / _MARTS).read_text(encoding="utf-8"))
    return AdoptedProject(root, directory, read_profile(root), manifest, chosen["selector"], tuple(chosen["marts"]))
