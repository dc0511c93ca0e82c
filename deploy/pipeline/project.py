"""What the build needs to know of the dbt project, read from dbt's own ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from backend.errors import BuildFailed
from backend.manifest import Column, MartSpec, label_for
from deploy.pipeline.dbt import Dbt, artefacts


@dataclass(frozen=True)
class DbtProject:
    """dbt's parsed manifest. Source of the format: dbt's documentation of ``manifest.json``, schema v12."""

    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> DbtProject:
        """The project parsed into the file ``path``. Raises BuildFailed when there is none."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BuildFailed(
                f"reading dbt's manifest {path} failed: {error.strerror}", hint="run `dbt parse` first"
            ) from error

    @classmethod
    def parse(cls, stdout: int = 1) -> DbtProject:
        """The project as it is now; dbt's output goes to ``stdout``. Raises BuildFailed with dbt's own words."""
        with artefacts() as target:
            dbt = Dbt(target, {}, stdout=stdout)
            dbt.parse()
            return cls.read(dbt.manifest)

    @cached_property
    def mart_nodes(self) -> dict[str, str]:
        """Name of every mart (a model with ``meta.dataset: true``) and its dbt unique id."""
        return {
            node["alias"]: unique_id
            for unique_id, node in sorted(self.manifest["nodes"].items())
            if node["resource_type"] == "model" and node["config"].get("meta", {}).get("dataset") is True
        }

    @property
    def mart_names(self) -> list[str]:
        """The name of every mart."""
        return list(self.mart_nodes)

    @property
    def source_tables(self) -> list[str]:
        """The tables of the source that the project reads."""
        return sorted(source["name"] for source in self.manifest["sources"].values())

    @cached_property
    def specs(self) -> tuple[MartSpec, ...]:
        """Every mart as declared, parents before children."""
        specs = {name: self._spec(name, unique_id) for name, unique_id in self.mart_nodes.items()}
        ordered: dict[str, MartSpec] = {}

        def add(name: str) -> None:
            for parent in sorted(self.parent_marts(name)):
                add(parent)
            ordered.setdefault(name, specs[name])

        for name in specs:
            add(name)
        return tuple(ordered.values())

    def parent_marts(self, name: str) -> set[str]:
        """The marts that this one reads, directly or through models that are not marts."""
        names = {unique_id: mart for mart, unique_id in self.mart_nodes.items()}
        return {names[i] for i in self._ancestors(self.mart_nodes[name], through_marts=False) if i in names}

    def _spec(self, name: str, unique_id: str) -> MartSpec:
        node = self.manifest["nodes"][unique_id]
        columns = tuple(
            Column(column["name"], str(duckdb.type(column["data_type"])), column["description"].strip())
            for column in node["columns"].values()
        )
        sources = {
            self.manifest["sources"][i]["name"]
            for i in self._ancestors(unique_id, through_marts=True)
            if i in self.manifest["sources"]
        }
        return MartSpec(
            name=name,
            label=label_for(name),
            description=node["description"].strip(),
            columns=columns,
            code=self._code(unique_id),
            sources=tuple(sorted(sources)),
        )

    def _ancestors(self, unique_id: str, *, through_marts: bool) -> Iterator[str]:
        for parent in self.manifest["parent_map"][unique_id]:
            yield parent
            if through_marts or parent not in self.mart_nodes.values():
                yield from self._ancestors(parent, through_marts=through_marts)

    def _code(self, unique_id: str) -> str:
        """Digest of what makes the mart: its SQL, its staging models', the project's macros, how it is written."""
        project = self.manifest["metadata"]["project_name"]
        nodes = {unique_id, *self._ancestors(unique_id, through_marts=False)} & self.manifest["nodes"].keys()
        parts = [self.manifest["nodes"][node]["checksum"]["checksum"] for node in sorted(nodes)]
        parts.append(json.dumps(self.manifest["nodes"][unique_id]["config"].get("options"), sort_keys=True))
        macros = self.manifest["macros"]
        parts += [macros[macro]["macro_sql"] for macro in sorted(macros) if macros[macro]["package_name"] == project]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
