"""Runs dbt on an adopted project, as its owners do: in its directory, with its profile."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backend import filepaths
from backend.audit import Written
from deploy.pipeline.adopted.export import Relation
from deploy.pipeline.adopted.plan import Plan
from deploy.pipeline.adopted.profile import Profile, external_root
from deploy.pipeline.dbt import Dbt


@dataclass(frozen=True)
class AdoptedDbt(Dbt):
    """dbt on the project in ``root``, which itself writes below ``workspace`` and ``target`` only.

    Once every model and test of a build has passed, ``relations`` are written into the directory ``marts``.
    """

    root: Path = field(kw_only=True)
    profile: Profile = field(kw_only=True)
    workspace: Path = field(kw_only=True)
    marts: Path | None = field(default=None, kw_only=True)
    relations: Sequence[Relation] = field(default=(), kw_only=True)

    def selected(self, selector: str) -> list[str]:
        """Unique ids of the models, seeds and snapshots that the selector gives. Raises BuildFailed."""
        listed = self.target / "listed"
        listed.parent.mkdir(parents=True, exist_ok=True)
        with listed.open("wb") as output:
            kinds = [word for kind in ("model", "seed", "snapshot") for word in ("--resource-type", kind)]
            format_ = ("--quiet", "--output", "json", "--output-keys", "unique_id")
            itself = replace(self, stdout=output.fileno())
            itself._check("ls", "--select", selector, *kinds, *format_)  # noqa: SLF001
        lines = listed.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["unique_id"] for line in lines if line.startswith("{")]

    def written(self) -> dict[str, Written]:
        """What the export of the last build wrote, by mart. Raises BuildFailed when it failed."""
        return self._plan().written()

    def _plan(self, *args: str) -> Plan:
        directory = self.marts or self.target
        return Plan(args, self.relations, directory, external_root(self.workspace), self.target / "written.json")

    def _run(self, *args: str) -> int:
        self.target.mkdir(parents=True, exist_ok=True)
        self.profile.write(self.target, self.workspace)
        return super()._run(*args)

    def _command(self, *args: str) -> list[str]:
        # -P: what lies in the project's directory is not to be imported, as it is not by dbt's own command.
        python = [sys.executable, "-P", "-m"]
        if args[0] != "build":
            return [*python, "dbt.cli.main", *args]
        file = self.target / "plan.json"
        self._plan(*args).write(file)
        return [*python, "deploy.pipeline.adopted.session", str(file)]

    @property
    def _environment(self) -> dict[str, str]:
        ours = os.pathsep.join(filter(None, [str(filepaths.REPO_ROOT), os.environ.get("PYTHONPATH")]))
        # The project stays as it is: Python, too, leaves nothing beside its modules.
        return {
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            **super()._environment,
            "PYTHONPATH": ours,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def _project(self) -> Path:
        return self.root

    @property
    def _profiles(self) -> Path:
        return self.target

    @property
    def _directory(self) -> Path | None:
        return self.root
