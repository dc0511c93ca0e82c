"""One open snapshot: a warm in-memory DuckDB instance on verified files."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime

import duckdb

from backend.config import Settings
from backend.datasets import Column, Dataset, numbered
from backend.duckdb.engine import columns_of, connect, lock_down
from backend.duckdb.row_groups import RowGroups
from backend.duckdb.table import Table
from backend.duckdb.verified import InMemory, VerifiedFile, VerifiedFiles
from backend.manifest import Mart
from backend.quoting import parquet_file, quoted
from backend.snapshots import Snapshot

_LARGE = 200_000  # rows, from which on a user's are read by themselves


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
        self._verified = files
        self._files: dict[str, VerifiedFile] = {}
        self._on_tables: tuple[Mapping[str, Table], dict[str, Dataset]] = ({}, {})
        with ExitStack() as closing:
            closing.callback(snapshot.close)
            self.marts = marts = snapshot.manifest.marts
            closing.callback(files.release, self._files.values())
            if snapshot.immutable:
                for mart in marts.values():
                    self._files[mart.name] = files.take(snapshot, mart)
            self._connection = connect(settings)
            closing.callback(self._connection.close)
            self._on_disk = [file for file in self._files.values() if not isinstance(file, InMemory)]
            if snapshot.immutable:
                lock_down(
                    self._connection, paths=[file.path for file in self._on_disk], directories=[InMemory.DIRECTORY]
                )
            else:
                lock_down(self._connection, directories=[str(snapshot.path)])
            self._row_groups: dict[str, RowGroups] = {}
            self.datasets = {name: self._dataset(marts[name]) for name in sorted(marts)}
            self._naming = threading.Lock()
            self._named = False
            self._closing = closing.pop_all()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session of one's own on the instance."""
        return self._connection.cursor()

    def name_marts(self) -> None:
        """See to it that every mart is a view of its name: for SQL of others, ours has the relations."""
        with self._naming:
            if not self._named:
                for mart in self.marts.values():
                    relation = parquet_file(self._path(mart.name))
                    self._connection.execute(f"CREATE OR REPLACE VIEW {quoted(mart.name)} AS SELECT * FROM {relation}")  # noqa: S608 - our path
                self._named = True

    def datasets_on(self, tables: Mapping[str, Table]) -> dict[str, Dataset]:
        """The datasets, of which those are tables whose files these were made of."""
        known, datasets = self._on_tables
        if known is not tables:
            found = ((name, tables.get(mart.sha256)) for name, mart in self.marts.items())
            datasets = self.datasets | {
                name: table.of(self.datasets[name]) for name, table in found if table is not None
            }
            self._on_tables = tables, datasets
        return datasets

    def has_parts(self, dataset: Dataset) -> bool:
        """Whether a part of its file can have all rows of a user, and there is no better way to them."""
        return dataset.id in self._row_groups and not dataset.kept

    def of_user(self, dataset: Dataset, user_id: int) -> InMemory | None:
        """That part; None where it is too large. Raises OSError."""
        return self._row_groups[dataset.id].of_user(self._path(dataset.id), user_id)

    def forget_tables(self) -> None:
        """Hold nothing of the tables any more, which may be dropped."""
        self._on_tables = {}, {}

    @property
    def resident(self) -> bool:
        """Whether all of it is in memory, where nothing changes it."""
        return self.immutable and not self._on_disk

    def unchanged(self) -> bool:
        """Whether everything read so far was as it was verified; asked after reading."""
        return all(file.unchanged() for file in self._on_disk)

    def doubt(self) -> None:
        """Have what is read from the disk verified again by whoever opens it next."""
        self._verified.doubt(self._on_disk)

    def close(self) -> None:
        """End the instance, let go of the files and of the snapshot."""
        self._closing.close()

    def _dataset(self, mart: Mart) -> Dataset:
        """What the file says of itself is asked once, whichever snapshots have it: a switch costs what has changed."""
        file = self._files.get(mart.name)
        known = file.described if file else None
        if known is None or known[0] != mart:
            known = mart, *self._described(mart, file)
        elif not isinstance(file, InMemory):  # the snapshot before had it elsewhere
            known = mart, self._at_its_path(mart, known[1].columns), known[2]
        if file:
            file.described = known
        _, dataset, row_groups = known
        if row_groups is not None:
            self._row_groups[mart.name] = row_groups
        return dataset

    def _described(self, mart: Mart, file: VerifiedFile | None) -> tuple[Dataset, RowGroups | None]:
        path = self._snapshot.file(mart.name)
        columns = columns_of(self._connection, parquet_file(self._path(mart.name)), mart, path)
        row_groups = None
        if file is not None and mart.user_column and mart.rows > _LARGE:
            row_groups = RowGroups.read(file.path, mart.user_column)
        return self._at_its_path(mart, columns), row_groups

    def _at_its_path(self, mart: Mart, columns: tuple[Column, ...]) -> Dataset:
        relation, position = numbered(parquet_file(self._path(mart.name)), columns, "file_row_number")
        return Dataset(
            id=mart.name,
            name=mart.label,
            description=mart.description.strip(),
            columns=columns,
            relation=relation,
            position=position,
            rows=mart.rows,
            scope=mart.scope,
        )

    def _path(self, mart: str) -> str:
        return self._files[mart].path if self.immutable else str(self._snapshot.file(mart))
