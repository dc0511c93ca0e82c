"""dbt build, then the export, in one process.

In one, because what dbt's connection has was given to it by the profile, its plugins and the project's hooks:
extensions, attached databases, secrets, macros. A view may need any of them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner

from backend.audit import Written
from backend.errors import BuildFailed
from deploy.pipeline.adopted.export import Export
from deploy.pipeline.adopted.plan import Plan
from deploy.pipeline.adopted.tables import close_copies, copy_marts


def main() -> int:
    """Do what the plan in the file says that is our only argument; how the export went, the plan's result says.

    Exit code as dbt's: 1 where a model or a test failed, 2 where dbt did.
    """
    plan = Plan.read(Path(sys.argv[1]))
    ended = dbtRunner().invoke(list(plan.dbt))
    if not ended.success:
        return 2 if ended.exception else 1
    environment = DuckDBConnectionManager.env()
    handle = environment.handle()  # type: ignore[no-untyped-call]
    try:
        written = _written(handle.cursor(), plan)
        result: dict[str, Any] = {"written": {mart: asdict(entry) for mart, entry in written.items()}}
        handle.cursor().execute("CHECKPOINT")
    except BuildFailed as error:
        result = {"failure": [error.message, error.hint]}
    finally:
        handle.close()
        environment.close()  # type: ignore[no-untyped-call]
    plan.result.write_text(json.dumps(result), encoding="utf-8")
    return 0


def _written(connection: duckdb.DuckDBPyConnection, plan: Plan) -> dict[str, Written]:
    """What the export wrote, by mart: all marts, and their copies, as they are at one moment. Raises BuildFailed."""
    connection.execute("BEGIN TRANSACTION")
    try:
        if plan.tables:
            copy_marts(connection, plan.tables, plan.relations)
        written = Export(connection, plan.directory, plan.own).run(plan.relations)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")  # all that it is of are copies: else, files alone are wanted
    if plan.tables:
        close_copies(connection)
    return written
