"""A DuckDB session that is opened by its first statement: where another answers, or none is needed, there is none."""

from __future__ import annotations

from collections.abc import Callable

import duckdb

Opened = Callable[[], duckdb.DuckDBPyConnection]


class LazySession:
    """A session of one's own."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._cursor: duckdb.DuckDBPyConnection | None = None

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The session. Raises what opening it does, duckdb.Error for one."""
        if self._cursor is None:
            self._cursor = self._opened()
        return self._cursor

    def interrupt(self) -> None:
        """End the statement that runs in it, from any thread."""
        if self._cursor is not None:
            self._cursor.interrupt()

    def close(self) -> None:
        """End it."""
        if self._cursor is not None:
            self._cursor.close()
