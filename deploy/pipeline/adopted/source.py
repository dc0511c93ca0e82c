"""What an adopted project reads, as its builds reach it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.pipeline.adopted.dbt import AdoptedDbt
from deploy.pipeline.adopted.profile import read_profile
from deploy.pipeline.adopted.variables import provide_variables
from deploy.source.settings import SourceUnavailable

# As dbt's connection has them before any hook of the project: what the profile attaches, and all that is in there.
_ATTACHED = """
    SELECT lower(database_name) AS database, lower(schema_name) AS schema, lower(name) AS name
    FROM duckdb_databases() LEFT JOIN (
        SELECT database_name, schema_name, table_name AS name FROM duckdb_tables()
        UNION ALL SELECT database_name, schema_name, view_name FROM duckdb_views() WHERE NOT internal
    ) USING (database_name)
    WHERE NOT duckdb_databases.internal AND database_name <> current_database()
"""


def check_source(root: Path) -> str:
    """Connect with the project's profile, and look for the sources it reads in what that attaches; a line that says so.

    Nothing is built. `dbt show` rather than `dbt debug`, which wants git, and does not say what it attached. Raises
    ConfigError, BuildFailed with dbt's words when it can't connect, SourceUnavailable when a source is not there.
    """
    provide_variables()
    profile = read_profile(root)
    with TemporaryDirectory(prefix="dbt-check-") as directory:
        work = Path(directory)
        dbt = AdoptedDbt(work / "target", {}, root=root, profile=profile, workspace=work)
        rows = dbt.show(_ATTACHED)
        manifest = json.loads((dbt.target / "manifest.json").read_text(encoding="utf-8"))
    attached = sorted({row["database"] for row in rows})
    found = {(row["database"], row["schema"], row["name"]) for row in rows}
    sources = {
        tuple(source[part].lower() for part in ("database", "schema", "identifier"))
        for unique_id, source in manifest["sources"].items()
        if source["database"].lower() in attached and manifest["child_map"].get(unique_id) and _is_table(source)
    }
    if missing := sorted(sources - found):
        raise SourceUnavailable(
            f"the profile {profile.name}, target {profile.target}, connects to {', '.join(attached)}, which "
            f"{'lacks' if len(attached) == 1 else 'lack'} {', '.join('.'.join(parts) for parts in missing)}",
            hint="see what the profile attaches: DuckDB makes an empty file where one that it may write to is missing",
        )
    said = f"{', '.join(attached)}, with all {len(sources)} sources in it" if attached else "nothing"
    return f"the profile {profile.name}, target {profile.target}, connects; attached: {said}"


def _is_table(source: Mapping[str, Any]) -> bool:
    """Whether dbt-duckdb reads the source where it is said to be, rather than from a file or through a plugin."""
    said = {**source["source_meta"], **source["meta"], **source["config"].get("meta", {})}
    return not said.keys() & {"external_location", "plugin"}
