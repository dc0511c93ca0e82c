"""``python -m deploy.pipeline.healthcheck`` asks whether the Dagster daemon is up: serves definitions, and reports."""

from __future__ import annotations

import os
import socket
import sys

import psycopg

from backend import filepaths

CODE_SERVER = "code-server", 4000
"""Host, as the daemon is called in the network it shares with the web server, and port; as in ``workspace.yaml``."""
QUERY = """
SELECT count(*) FROM daemon_heartbeats
WHERE daemon_type IN ('SENSOR', 'SCHEDULER', 'QUEUED_RUN_COORDINATOR')
  AND "timestamp" > (now() AT TIME ZONE 'UTC') - INTERVAL '60 seconds'
"""


def missing() -> str:
    """What the daemon lacks of being up, empty when it is. Raises psycopg.Error where its database can't be asked."""
    try:
        socket.create_connection(CODE_SERVER, timeout=3).close()
    except OSError as error:
        return f"nothing serves the definitions at {CODE_SERVER[0]}:{CODE_SERVER[1]} ({error})"
    with psycopg.connect(
        host=os.environ["DAGSTER_PG_HOST"],
        user=os.environ["DAGSTER_PG_USER"],
        dbname=os.environ["DAGSTER_PG_DB"],
        password=filepaths.read_secret("dagster_db_password"),
        connect_timeout=3,
    ) as connection:
        row = connection.execute(QUERY).fetchone()
    alive = row[0] if row else 0
    return "" if alive == 3 else f"{alive} of 3 daemons reported within 60 s"  # noqa: PLR2004 - those that builds need


if __name__ == "__main__":
    sys.exit(missing() or None)
