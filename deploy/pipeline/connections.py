"""Connections to Dagster's database."""

from dagster import DagsterInstance


def keep_connections(instance: DagsterInstance) -> None:
    """Have it keep one for each of its storages, as Dagster does for its web server, and only there.

    Else it opens one, with a handshake, for each thing that it asks or reports.
    """
    instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=3600, max_overflow=20)
