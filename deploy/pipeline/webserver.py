"""``dagster-webserver`` beside a daemon that may still be starting: ``python -m deploy.pipeline.webserver OPTIONS``.

It imports what it needs, which takes seconds, while the daemon starts, and begins when that is up: before, Dagster's
database may have no tables, and two that made them at once would trip over each other.
"""

from __future__ import annotations

from dagster_webserver import cli
from tenacity import Retrying, retry_if_result, wait_fixed

from deploy.pipeline import healthcheck

if __name__ == "__main__":
    Retrying(retry=retry_if_result(bool), wait=wait_fixed(0.5))(healthcheck.missing)
    cli.main()  # type: ignore[no-untyped-call]
