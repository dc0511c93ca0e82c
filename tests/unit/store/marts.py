"""Small marts for the store's tests: every mart of one build carries the same generation number."""

from functools import cache
from pathlib import Path

import duckdb

from backend.manifest import Column, Manifest, MartSpec
from backend.snapshots import Snapshot, SnapshotStore

NAMES = ("dim_one", "fct_two", "agg_three")
COLUMNS = (Column("user_id", "INTEGER"), Column("generation", "BIGINT"), Column("note", "VARCHAR"))
SPECS = tuple(MartSpec(name, name, f"One row per {name}.", COLUMNS) for name in NAMES)
ROWS = 50


@cache
def _instance() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()  # which takes longer than all that is asked of it


def write_mart(directory: Path, name: str, generation: int) -> None:
    with _instance().cursor() as connection:
        connection.execute(
            f"COPY (SELECT range::INTEGER AS user_id, {generation}::BIGINT AS generation, 'x' AS note "
            f"FROM range({ROWS})) TO '{directory / name}.parquet' (FORMAT parquet)"
        )


def publish(
    store: SnapshotStore, generation: int, *, only: tuple[str, ...] = NAMES, state: str | None = None
) -> Manifest:
    """``state`` is left for the next build."""
    with store.build(f"run-{generation}", holder="test", wait=30) as build:
        for name in only:
            write_mart(build.path, name, generation)
        build.link([name for name in NAMES if name not in only])
        if state is None:
            return build.publish(SPECS)
        file = build.workspace / "deep" / "state"
        file.parent.mkdir()
        file.write_text(state)
        return build.publish(SPECS, state=[file])


def served_file(store: SnapshotStore, name: str) -> Path:
    with store.open() as snapshot:
        return snapshot.path / name


def generations(snapshot: Snapshot) -> dict[str, int]:
    """The generation of each mart, read in full; fails when a file holds more than one."""
    found = {}
    with _instance().cursor() as connection:
        for name in snapshot.manifest.marts:
            rows = connection.execute(
                "SELECT min(generation), max(generation), count(*) FROM read_parquet(?)", [str(snapshot.file(name))]
            ).fetchall()[0]
            assert rows[0] == rows[1]
            assert rows[2] == ROWS == snapshot.manifest.marts[name].rows
            found[name] = rows[0]
    return found
