"""The source as the build reaches it: with a role that may read, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import psycopg
from psycopg import sql

from backend import filepaths
from backend.quoting import quoted
from deploy.pipeline.dbt import embedded
from deploy.source.settings import Source, SourceUnavailable


def check_source(tables: Sequence[str]) -> str:
    """Read each table, and prove that none can be written; a line that says so. Raises SourceUnavailable."""
    if embedded():
        return _check_file(filepaths.source_database(), tables)
    source = Source.reader_from_env()
    place = f"{source.user} at {source.host}:{source.port}/{source.database}"
    try:
        with source.connect() as connection:
            for table in tables:
                connection.execute(sql.SQL("SELECT 1 FROM public.{} LIMIT 1").format(sql.Identifier(table)))
            writable = _writable(connection, tables)
    except psycopg.Error as error:
        raise SourceUnavailable(
            f"reading the source as {place} failed: {error}".rstrip(),
            hint="the role needs CONNECT, USAGE on schema public and SELECT on the tables: deploy/source/schema.sql",
        ) from error
    if writable:
        raise SourceUnavailable(
            f"{place} may write: {', '.join(writable)}",
            hint="the build must not be able to: give it a role with SELECT alone, as deploy/source/initdb has",
        )
    return f"{place} can read all {len(tables)} tables, and can write to none"


def _check_file(file: Path, tables: Sequence[str]) -> str:
    try:
        with duckdb.connect(str(file), read_only=True) as connection:
            for table in tables:
                connection.execute(f"FROM main.{quoted(table)} LIMIT 1")
    except duckdb.Error as error:
        raise SourceUnavailable(
            f"reading the source in the file {file} failed: {error}",
            hint="SOURCE_DUCKDB_PATH names it; `python -m deploy.source seed-embedded` makes one",
        ) from error
    return f"{len(tables)} tables can be read from {file}, which is only ever opened for reading"


def _writable(connection: psycopg.Connection, tables: Sequence[str]) -> list[str]:
    """What the role could write: privileges of its own, of PUBLIC, of roles it is in, as owner, as superuser."""
    found = []
    for table in tables:
        (may,) = connection.execute(
            "SELECT has_table_privilege(format('public.%%I', %(table)s::text), 'INSERT, UPDATE, DELETE, TRUNCATE')"
            " OR has_any_column_privilege(format('public.%%I', %(table)s::text), 'INSERT, UPDATE')",
            {"table": table},
        ).fetchall()[0]
        if may:
            found.append(f"table {table}")
    (may,) = connection.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchall()[0]
    return [*found, "schema public"] if may else found
