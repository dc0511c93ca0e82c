"""Rows of single users of large marts as tables in memory: of those who asked again, within a budget.

As with the tables of whole marts nothing depends on them: what has none, or fails on it, is asked of the Parquet file.
Why: ``deploy/decisions/0037-a-users-rows-as-a-table.md``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import duckdb
import pyarrow as pa
import structlog
from cachetools import LRUCache

from backend.datasets import Dataset
from backend.duckdb.engine import FATAL
from backend.duckdb.table import BLOCK_BYTES, Form, Table, detach, keep, made
from backend.kept_rows import TooLarge
from backend.quoting import parquet_file, quoted

_ASKED = 10_000  # who asked before, of whom it is known
_IDLE_SECONDS = 60.0  # nobody's rows give way to another's sooner: too many users would only take turns

log = structlog.get_logger(__name__)

Key = tuple[str, int]
"""SHA-256 of the mart's file, and the user."""


class UserTables:
    """Those of one DuckDB instance, in ``limit`` bytes; safe to use from many threads."""

    def __init__(self, instance: duckdb.DuckDBPyConnection, limit: int) -> None:
        self.changing = threading.Lock()
        """Held while a table is made or dropped on the instance, also of a whole mart: so the size of each is known."""
        self.instance = instance
        self._limit = limit
        self._lock = threading.Lock()  # guards the rest, held for moments
        self._tables: OrderedDict[Key, tuple[Table, float]] = OrderedDict()  # with when it was asked for, last at last
        self._size = 0
        self._asked: LRUCache[Key, float] = LRUCache(_ASKED)  # from when on a table may be made

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self._size

    def get(self, key: Key) -> Table | None:
        """The table of the user's rows, if there is one."""
        with self._lock:
            if known := self._tables.pop(key, None):
                self._tables[key] = known[0], time.monotonic()
        return known[0] if known else None

    def wanted(self, key: Key) -> bool:
        """Count that the user asks. Whether there should be a table: where there is room, from the second time on."""
        now = time.monotonic()
        with self._lock:
            begin = self._asked.get(key)
            if begin is None:
                self._asked[key] = now
                return False
            return begin <= now and (self._size + BLOCK_BYTES <= self._limit or self._idle(now) is not None)

    def make(
        self, key: Key, dataset: Dataset, path: str, certain: Callable[[], bool], *, forms: Mapping[str, Form]
    ) -> Table | None:
        """A table of the user's rows of the dataset, all of which are in the file at ``path``; kept in ``forms``, too.

        None where another is being made, where there is no room, or where it fails: ``certain`` says after reading
        whether what was read is what was published. Raises duckdb.Error where the instance has failed for good.
        """
        if not self.changing.acquire(blocking=False):
            return None
        try:
            if known := self.get(key):  # by another request of the user's
                return known
            table = self._made(key, dataset, path, forms)
            if table and certain() and self._put(key, table):
                return table
            detach(self.instance, _name(key))
        finally:
            self.changing.release()
        with self._lock:
            self._asked[key] = time.monotonic() + _IDLE_SECONDS
        return None

    def drop_others(self, files: AbstractSet[str]) -> None:
        """Forget and drop all but those of these files."""
        with self._lock:
            others = [key for key in self._tables if key[0] not in files]
            for key in others:
                self._forget(key)
        for key in others:
            self.drop(_name(key))

    def drop(self, name: str) -> None:
        """Drop a table, also of a whole mart, as soon as none is being made."""
        with self.changing:
            detach(self.instance, name)

    def _made(self, key: Key, dataset: Dataset, path: str, forms: Mapping[str, Form]) -> Table | None:
        user = f"CAST(t.{quoted(dataset.scope)} AS VARCHAR)"
        select = f"SELECT * FROM {parquet_file(path)} AS t WHERE {user} = ?"  # noqa: S608 - quoted
        try:
            table = made(self.instance, _name(key), select, [str(key[1])], lambda *_: dataset.columns)
            if not table.counts_positions:
                return table
            kept = {name: keep(self.instance, table, form, self._limit) for name, form in forms.items()}
            return replace(table, kept=kept)
        except FATAL:
            raise
        except TooLarge:
            return None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            log.warning("rows_of_user_not_in_memory", mart=dataset.id, error=str(error))
            return None

    def _put(self, key: Key, table: Table) -> bool:
        """Have the table in place of those that nobody asked for lately; False where there is no room."""
        now, dropped = time.monotonic(), []
        with self._lock:
            while self._size + table.size_with_kept > self._limit and (oldest := self._idle(now)):
                self._forget(oldest)
                dropped.append(oldest)
            fits = self._size + table.size_with_kept <= self._limit
            if fits:
                self._tables[key] = table, now
                self._size += table.size_with_kept
        for oldest in dropped:
            detach(self.instance, _name(oldest))
        return fits

    def _idle(self, now: float) -> Key | None:
        key, (_, used) = next(iter(self._tables.items()), (None, (None, now)))
        return key if used <= now - _IDLE_SECONDS else None

    def _forget(self, key: Key) -> None:
        self._size -= self._tables.pop(key)[0].size_with_kept


def _name(key: Key) -> str:
    sha256, user_id = key
    return f"{sha256}/{user_id}"
