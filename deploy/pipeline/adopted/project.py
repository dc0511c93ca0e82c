"""An adopted dbt project, built as it is: which of its relations are marts, and what is known of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from backend import filepaths
from backend.audit import parquet_columns
from backend.catalog import Entry
from backend.errors import BuildFailed, ConfigError
from backend.manifest import USER_COLUMN, Column, MartSpec, label_for
from backend.names import folded, unfit_datasets
from backend.snapshots import SnapshotStore
from deploy.pipeline.adopted.dbt import AdoptedDbt
from deploy.pipeline.adopted.export import Relation, scope_column
from deploy.pipeline.adopted.profile import Profile, read_profile, rendered

_RELATIONS = ("model", "seed", "snapshot")
# Materializations that leave nothing which could be read as it is.
_NO_RELATION = ("ephemeral", "table_function")


@dataclass(frozen=True)
class AdoptedProject:
    """A parsed project in the directory ``root``, its manifest in ``parsed``.

    ``marts`` are the dbt unique ids that ``selector`` gives, which is what `dbt ls --select` takes.
    """

    root: Path
    parsed: Path
    profile: Profile
    manifest: Mapping[str, Any]
    selector: str
    marts: tuple[str, ...]

    @cached_property
    def relations(self) -> dict[str, Relation]:
        """Every mart by the name it is served under: that of its relation, with the schema where two have one name."""
        nodes = {unique_id: self.manifest["nodes"][unique_id] for unique_id in self.marts}
        shared = Counter(folded(node["alias"]) for node in nodes.values())
        named = {
            node["alias"] if shared[folded(node["alias"])] == 1 else f"{node['schema']}.{node['alias']}": node
            for node in nodes.values()
        }
        problems = [f"{name!r}: {why}" for name, why in unfit_datasets(named).items()]
        if len(named) < len(nodes):
            problems.append(f"{len(nodes)} marts share the names {', '.join(sorted(named))}")
        if problems:
            raise BuildFailed(
                f"marts can't be served under their names: {'; '.join(problems)}",
                hint="rename them, or leave some out by MART_SELECTOR",
            )
        return {name: _relation(name, named[name]) for name in sorted(named)}

    @property
    def mart_names(self) -> list[str]:
        """The name of every mart."""
        return list(self.relations)

    @property
    def announcement(self) -> str:
        """Which relations are marts, and by which selector, for people to read."""
        said = [f"Marts of {self.root} are those of `dbt ls --select '{self.selector}'`; MART_SELECTOR names others:"]
        said += [f"  {name}, from {r.schema}.{r.identifier}" for name, r in self.relations.items()]
        return "\n".join(said)

    @cached_property
    def mart_nodes(self) -> dict[str, str]:
        """The dbt unique id of every mart."""
        ids = {
            (node["database"], node["schema"], node["alias"]): unique_id
            for unique_id, node in self.manifest["nodes"].items()
            if unique_id in self.marts
        }
        return {name: ids[r.database, r.schema, r.identifier] for name, r in self.relations.items()}

    @property
    def catalog(self) -> list[Entry]:
        """Every mart as the API finds it in a file that the project builds in."""
        return [
            Entry(name, r.schema, r.identifier, r.scope, *self._words(self.mart_nodes[name]))
            for name, r in self.relations.items()
            if name not in self.elsewhere
        ]

    @property
    def elsewhere(self) -> list[str]:
        """Marts that lie in another database than the file which the project builds in."""
        return [name for name, r in self.relations.items() if r.database != self.profile.database_name]

    def _words(self, unique_id: str) -> tuple[str, dict[str, str]]:
        """The description of a relation, and those of its columns."""
        node = self.manifest["nodes"][unique_id]
        columns = {column["name"]: column["description"].strip() for column in node["columns"].values()}
        return node["description"].strip(), columns

    def specs(self, directory: Path) -> list[MartSpec]:
        """Every mart: its columns as they are in its file in ``directory``, with the project's words on them."""
        with duckdb.connect() as connection:
            return [self._spec(name, connection, directory / f"{name}.parquet") for name in self.relations]

    def _spec(self, name: str, connection: duckdb.DuckDBPyConnection, file: Path) -> MartSpec:
        description, described = self._words(self.mart_nodes[name])
        words = {folded(column): text for column, text in described.items()}
        columns = tuple(
            Column(c.name, c.type, words.get(folded(c.name), "")) for c in parquet_columns(connection, file)
        )
        return MartSpec(
            name=name,
            label=label_for(name),
            description=description,
            columns=columns,
            scope=scope_column([column.name for column in columns], self.relations[name].scope),
        )

    def with_readers(self, marts: set[str]) -> set[str]:
        """These marts, and all that read one of them, through whatever lies between."""
        names = {unique_id: name for name, unique_id in self.mart_nodes.items()}
        reached = set(_walk(self.manifest["child_map"], {self.mart_nodes[mart] for mart in marts}))
        return marts | {names[unique_id] for unique_id in reached if unique_id in names}

    def missing_parents(self, marts: set[str], existing: set[tuple[str, str]]) -> list[str]:
        """What these marts read, directly or not, that should be in the build's database and is not there yet.

        ``existing`` has schema and name of what is there, in lower case.
        """
        return sorted(
            unique_id
            for unique_id in set(_walk(self.manifest["parent_map"], {self.mart_nodes[mart] for mart in marts}))
            if (node := self.manifest["nodes"].get(unique_id))
            and _is_relation(node)
            and node["database"] == self.profile.database_name
            and (node["schema"].lower(), node["alias"].lower()) not in existing
        )

    def selection(self, unique_ids: list[str]) -> list[str]:
        """What `dbt --select` calls these."""
        return ["fqn:" + ".".join(self.manifest["nodes"][unique_id]["fqn"]) for unique_id in unique_ids]

    def check_locations(self, served: Path) -> None:
        """Raise ConfigError where a model would write into the directory ``served``, past every test."""
        for node in self.manifest["nodes"].values():
            location = node["config"].get("location")
            if not location or node["config"].get("materialized") != "external":
                continue
            this = {**node, "identifier": node["alias"]}
            target = {**self.profile.output, "name": self.profile.target, "profile_name": self.profile.name}
            place = self.root / rendered(location, this=this, model=node, target=target)
            if place.resolve().is_relative_to(served.resolve()):
                raise ConfigError(
                    f"{node['resource_type']} {node['name']} writes to {location}, which lies in {served}: it would be "
                    "served before any test has passed",
                    hint="give it another `location`, or none: a mart is published from wherever it is",
                )


@contextmanager
def parsed_project(root: Path, stdout: int = 1, workspace: Path | None = None) -> Iterator[AdoptedProject]:
    """The project, parsed; what dbt makes of it is gone after the block.

    ``workspace`` is where it will be built, None where builds of the store are. dbt's output goes to ``stdout``.
    Raises ConfigError where it has no profile to build with, BuildFailed when dbt can't parse it.
    """
    with ExitStack() as stack:
        parsed = Path(stack.enter_context(TemporaryDirectory(prefix="dbt-parse-")))
        profile = read_profile(root)
        # Parsing writes nothing there; with another profile than now, the build would have to parse again.
        if workspace is None:
            store = filepaths.parquet_dir()
            workspace = SnapshotStore(store).workspace if store else parsed
        dbt = AdoptedDbt(parsed, {}, stdout=stdout, root=root, profile=profile, workspace=workspace)
        selector = os.environ.get("MART_SELECTOR", "").strip()
        selected = dbt.selected(selector) if selector else []
        if not selector:
            dbt.parse()
        manifest = json.loads((parsed / "manifest.json").read_text(encoding="utf-8"))
        if not selector:
            selector, selected = default_marts(manifest)
        marts = tuple(i for i in selected if _is_relation(manifest["nodes"][i]))
        if not marts:
            raise BuildFailed(f"no relation of {root} is a mart by {selector!r}", hint="set MART_SELECTOR")
        yield AdoptedProject(root, parsed, profile, manifest, selector, marts)


def default_marts(manifest: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Which relations are marts where nobody says so: a dbt selector, and what it selects.

    Those with ``meta.dataset: true``; else the models in a folder ``marts``; else those that no other model reads.
    Packages' models are the project's own business, unless they say that they are datasets.
    """
    nodes = {i: node for i, node in manifest["nodes"].items() if _is_relation(node)}
    if declared := [i for i, node in nodes.items() if node["config"].get("meta", {}).get("dataset") is True]:
        return "config.meta.dataset:true", declared
    own = manifest["metadata"]["project_name"]
    models = {i: n for i, n in nodes.items() if n["resource_type"] == "model" and n["package_name"] == own}
    if marts := {i: n for i, n in models.items() if "marts" in Path(n["original_file_path"]).parts[:-1]}:
        paths = [Path(node["original_file_path"]).parts for node in marts.values()]
        folders = {"/".join(parts[: parts.index("marts") + 1]) for parts in paths}
        return " ".join(f"path:{folder}" for folder in sorted(folders)), list(marts)
    children = manifest["child_map"]
    leaves = [i for i in models if not any(child.split(".")[0] in _RELATIONS for child in children[i])]
    return " ".join(sorted("fqn:" + ".".join(models[i]["fqn"]) for i in leaves)), leaves


def _is_relation(node: Mapping[str, Any]) -> bool:
    return node["resource_type"] in _RELATIONS and node["config"].get("materialized") not in _NO_RELATION


def _relation(name: str, node: Mapping[str, Any]) -> Relation:
    scope = node["config"].get("meta", {}).get("user_column", USER_COLUMN)
    if not isinstance(scope, str) or not scope:
        raise BuildFailed(
            f"meta.user_column of {node['name']} is {scope!r}, expected the name of a column", hint="fix or remove it"
        )
    return Relation(
        mart=name,
        database=node["database"],
        schema=node["schema"],
        identifier=node["alias"],
        external=node["config"].get("materialized") == "external",
        scope=scope,
    )


def _walk(neighbours: Mapping[str, list[str]], start: set[str]) -> Iterator[str]:
    """All that can be reached from ``start``, without it."""
    seen: set[str] = set()
    ahead = list(start)
    while ahead:
        for unique_id in neighbours.get(ahead.pop(), []):
            if unique_id not in seen:
                seen.add(unique_id)
                ahead.append(unique_id)
                yield unique_id
