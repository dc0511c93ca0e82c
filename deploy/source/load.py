"""Puts the generated tables into PostgreSQL, or into a DuckDB file that stands in for it."""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg import sql

from deploy.source.settings import OWNER, Source, SourceUnavailable
from deploy.source.tables import SCHEMAS, Tables

SCHEMA_FILE = Path(__file__).with_name("schema.sql")

_SEEDING = 4_711_000_001
"""Key of the advisory lock that makes a second seeder wait for the first."""
_IDENTITIES = {"transactions": "transaction_id", "transfers": "transfer_id"}
_BATCH_ROWS = 50_000


@dataclass(frozen=True)
class Seeded:
    """What is in the source now; ``fresh`` when this call put it there."""

    rows: dict[str, int]
    fresh: bool


def seed_postgres(source: Source, generate: Callable[[], Tables]) -> Seeded:
    """Creates the schema and loads what ``generate`` returns, unless there are users already.

    All in one transaction: whatever interrupts it leaves nothing. Raises SourceUnavailable when the server can't be
    reached, psycopg.Error when it refuses the data.
    """
    try:
        connection = source.connect()
    except psycopg.OperationalError as error:
        raise SourceUnavailable(
            f"connecting to {source.host}:{source.port}/{source.database} as {OWNER} failed: {error}",
            hint="is PostgreSQL up, and were its roles created with the password in source_owner_password?",
        ) from error
    with connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SEEDING])
        if not _exists(connection):
            connection.execute(SCHEMA_FILE.read_bytes())
        fresh = not _count(connection, "users")
        if fresh:
            for name, table in generate().items():
                _copy(connection, name, table)
            _finish(connection)
        return Seeded({name: _count(connection, name) for name in SCHEMAS}, fresh=fresh)


def seed_embedded(path: Path, tables: Tables) -> Seeded:
    """Writes the tables to a DuckDB file, which replaces ``path`` only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with duckdb.connect(str(building)) as connection:
            connection.begin()
            for name, table in tables.items():
                _create(connection, name, table)
            connection.commit()
        building.replace(path)
    finally:
        for left in (building, building.with_name(f"{building.name}.wal")):
            with suppress(FileNotFoundError):
                left.unlink()
    return Seeded({name: table.num_rows for name, table in tables.items()}, fresh=True)


def _exists(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT to_regclass('public.users') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def _count(connection: psycopg.Connection, name: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
    return int(row[0]) if row else 0


def _copy(connection: psycopg.Connection, name: str, table: pa.Table) -> None:
    """CSV tells NULL (nothing) from an empty string (quoted), which is how pyarrow writes them."""
    columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(name), columns)
    options = pyarrow.csv.WriteOptions(include_header=False)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in table.to_batches(_BATCH_ROWS):
            buffer = io.BytesIO()
            pyarrow.csv.write_csv(batch, buffer, options)
            copy.write(buffer.getvalue())


def _finish(connection: psycopg.Connection) -> None:
    for name, column in _IDENTITIES.items():
        connection.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), max({})) FROM {}").format(
                sql.Literal(name), sql.Literal(column), sql.Identifier(column), sql.Identifier(name)
            )
        )
    connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(map(sql.Identifier, SCHEMAS))))


def _create(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Column types follow Arrow's: DuckDB shows those of PostgreSQL's tables as the same ones."""
    connection.register("generated", table)
    connection.execute(f'CREATE TABLE "{name}" AS FROM generated')
    connection.unregister("generated")
    for field in table.schema:
        if not field.nullable:
            connection.execute(f'ALTER TABLE "{name}" ALTER COLUMN "{field.name}" SET NOT NULL')
