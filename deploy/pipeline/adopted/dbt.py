"""Runs dbt on an adopted project, as its owners do: in its directory, with its profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backend.audit import Written
from deploy.pipeline.adopted.export import Relation
from deploy.pipeline.adopted.plan import Plan
from deploy.pipeline.adopted.profile import Profile, external_root
from deploy.pipeline.dbt import Dbt


@dataclass(frozen=True)
class AdoptedDbt(Dbt):
    """dbt on the project in ``root``, which itself writes below ``workspace`` and ``target`` only.

    Once every model and test of a build has passed, ``relations`` are written into the directory ``marts``, and copied
    into the DuckDB file ``tables`` if that is asked for.
    """

    root: Path = field(kw_only=True)
    profile: Profile = field(kw_only=True)
    workspace: Path = field(kw_only=True)
    marts: Path | None = field(default=None, kw_only=True)
    relations: Sequence[Relation] = field(default=(), kw_only=True)
    tables: Path | None = field(default=None, kw_only=True)

    def selected(self, selector: str) -> list[str]:
        """Unique ids of the models, seeds and snapshots that the selector gives. Raises BuildFailed."""
        kinds = [word for kind in ("model", "seed", "snapshot") for word in ("--resource-type", kind)]
        listed = self._said("ls", "--select", selector, *kinds, "--output", "json", "--output-keys", "unique_id")
        return [json.loads(line)["unique_id"] for line in listed.splitlines() if line.startswith("{")]

    def show(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query on dbt's connection, which no hook has changed yet. Raises BuildFailed."""
        said = self._said("show", "--inline", sql, "--limit", "-1", "--output", "json")
        answer, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
        rows: list[dict[str, Any]] = answer["show"]
        return rows

    def written(self) -> dict[str, Written]:
        """What the export of the last build wrote, by mart. Raises BuildFailed when it failed."""
        return self._plan().written()

    def _said(self, *args: str) -> str:
        """What dbt prints, and nothing but the answer. Raises BuildFailed."""
        file = self.target / "said"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as output:
            replace(self, stdout=output.fileno())._check(*args, "--quiet")  # noqa: SLF001 - itself
        return file.read_text(encoding="utf-8")

    def _plan(self, *args: str) -> Plan:
        directory = self.marts or self.target
        own, result = external_root(self.workspace), self.target / "written.json"
        return Plan(args, self.relations, directory, own, result, self.tables)

    def _run(self, *args: str) -> int:
        self.target.mkdir(parents=True, exist_ok=True)
        self.profile.write(self.target, self.workspace)
        return super()._run(*args)

    def _task(self, *args: str) -> tuple[str, list[str]]:
        if args[0] != "build":
            return super()._task(*args)
        file = self.target / "plan.json"
        self._plan(*args).write(file)
        return "deploy.pipeline.adopted.session:main", [str(file)]

    @property
    def _environment(self) -> dict[str, str]:
        # The project stays as it is: Python, too, leaves nothing beside its modules.
        return {
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            **super()._environment,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def _project(self) -> Path:
        return self.root

    @property
    def _profiles(self) -> Path:
        return self.target

    @property
    def _directory(self) -> Path:
        return self.root
