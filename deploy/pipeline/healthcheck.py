"""``python -m deploy.pipeline.healthcheck`` asks whether the Dagster daemon reported within the last minute."""

from __future__ import annotations

import os
import sys

import psycopg

from backend import filepaths

QUERY = """
SELECT count(*) FROM daemon_heartbeats
WHERE daemon_type IN ('SENSOR', 'SCHEDULER', 'QUEUED_RUN_COORDINATOR')
  AND "timestamp" > (now() AT TIME ZONE 'UTC') - INTERVAL '60 seconds'
"""


def main() -> None:
    """Exit with 0 when all three daemons that builds need are alive."""
    with psycopg.connect(
        host=os.environ["DAGSTER_PG_HOST"],
        user=os.environ["DAGSTER_PG_USER"],
        dbname=os.environ["DAGSTER_PG_DB"],
        password=filepaths.read_secret("dagster_db_password"),
        connect_timeout=3,
    ) as connection:
        row = connection.execute(QUERY).fetchone()
    alive = row[0] if row else 0
    sys.exit(0 if alive == 3 else f"{alive} of 3 daemons reported within 60 s")  # noqa: PLR2004 - the three above


if __name__ == "__main__":
    main()
