"""One open snapshot: a warm in-memory DuckDB instance on verified files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import datetime

import duckdb

from backend.config import Settings
from backend.datasets import Dataset, describe, numbered
from backend.duckdb.engine import connect, lock_down
from backend.duckdb.verified import InMemory, VerifiedFile, VerifiedFiles
from backend.errors import SnapshotCorrupt
from backend.manifest import Mart
from backend.quoting import parquet_file, quoted
from backend.snapshots import Snapshot


class Generation:
    """One open snapshot. ``users`` and ``retired`` belong to the lock of Generations."""

    def __init__(self, snapshot: Snapshot, files: VerifiedFiles, settings: Settings) -> None:
        """Take over the snapshot. Raises SnapshotCorrupt or duckdb.Error, and has let go of it then."""
        self.id = snapshot.id
        self.immutable = snapshot.immutable
        self.created_at: datetime = snapshot.manifest.created_at
        self.users = 0
        self.retired = False
        self.last_used = time.monotonic()
        self._snapshot = snapshot
        self._files: dict[str, VerifiedFile] = {}
        with ExitStack() as closing:
            closing.callback(snapshot.close)
            marts = snapshot.manifest.marts
            if snapshot.immutable:
                for mart in marts.values():
                    self._files[mart.name] = files.take(snapshot.file(mart.name), mart.sha256, mart.bytes)
                    closing.callback(files.release, self._files[mart.name])
            self._connection = connect(settings)
            closing.callback(self._connection.close)
            if snapshot.immutable:
                lock_down(self._connection, paths=[file.path for file in self._files.values()])
            else:
                lock_down(self._connection, directories=[str(snapshot.path)])
            self.datasets = {name: self._dataset(marts[name]) for name in sorted(marts)}
            self._closing = closing.pop_all()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session of one's own on the instance."""
        return self._connection.cursor()

    @property
    def resident(self) -> bool:
        """Whether all of it is in memory, where nothing changes it."""
        return self.immutable and all(isinstance(file, InMemory) for file in self._files.values())

    def unchanged(self) -> bool:
        """Whether everything read so far was as it was verified; asked after reading."""
        return all(file.unchanged() for file in self._files.values())

    def close(self) -> None:
        """End the instance, let go of the files and of the snapshot."""
        self._closing.close()

    def _dataset(self, mart: Mart) -> Dataset:
        """A view on the mart, and its footer read once, which also warms DuckDB's cache of the file."""
        path = self._files[mart.name].path if self.immutable else str(self._snapshot.file(mart.name))
        relation = parquet_file(path)
        self._connection.execute(f"CREATE VIEW {quoted(mart.name)} AS SELECT * FROM {relation}")  # noqa: S608 - our path
        columns = describe(self._connection, relation, {c.name: c.description.strip() for c in mart.columns})
        rows = self._connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]  # noqa: S608 - our path
        found = ([(column.name, str(column.sqltype)) for column in columns], rows)
        declared = ([(column.name, column.type) for column in mart.columns], mart.rows)
        if found != declared:
            raise SnapshotCorrupt(
                f"{self._snapshot.file(mart.name)} has (columns, rows) {found}, its manifest says {declared}",
                hint="re-point with `make rollback-data SNAPSHOT=<id>`, or build a new snapshot",
            )
        relation, position = numbered(relation, columns, "file_row_number")
        return Dataset(
            id=mart.name,
            name=mart.label,
            description=mart.description.strip(),
            columns=columns,
            relation=relation,
            position=position,
            rows=rows,
            scope=mart.scope,
        )
