"""What a run is about: the marts, built from the example's source as anybody would, and who asks for them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import duckdb

from backend import auth
from backend.filepaths import REPO_ROOT
from backend.manifest import Manifest
from backend.scripts.bootstrap_duckdb import refresh_duckdb_file
from backend.snapshots import SnapshotStore
from tests.bench.questions import TRANSACTIONS

_USERS = 16
_PAGE = 100  # rows that a user must have, so that the questions are about as many for everyone


class SetUpFailed(AssertionError):
    """The marts could not be built, or something that a run needs is missing."""


@dataclass(frozen=True)
class Site:
    """Everything of a run lies below ``root``."""

    root: Path

    @property
    def store(self) -> SnapshotStore:
        """The snapshots that are served."""
        return SnapshotStore(self.root / "parquet")

    @property
    def mart(self) -> Path:
        """The directory of Parquet files that everybody may read, by the name that never changes."""
        return self.root / "parquet" / "mart"

    @property
    def file(self) -> Path:
        """The same marts as tables of one DuckDB file."""
        return self.root / "analytics.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        """Of the pipeline and the API."""
        return {
            "PARQUET_DIR": str(self.root / "parquet"),
            "SOURCE_DUCKDB_PATH": str(self.root / "source.duckdb"),
            "DUCKDB_PATH": str(self.root / "build.duckdb"),
            "DBT_TARGET": "embedded",
            "DBT_TARGET_PATH": str(self.root / "target"),
            "SECRETS_DIR": str(self.root / "secrets"),
        }

    def make_secret(self) -> None:
        """What the API verifies tokens with."""
        (self.root / "secrets").mkdir(mode=0o700)
        (self.root / "secrets" / "jwt_secret").write_text(secrets.token_urlsafe(32))

    def build(self, scale: float) -> None:
        """Source, snapshot and DuckDB file; 1 is about 100,000 transactions of 200 users. Raises SetUpFailed."""
        self.make_secret()
        for command in (["deploy.source", "seed-embedded", "--scale", str(scale)], ["deploy.pipeline", "build"]):
            finished = subprocess.run(
                [sys.executable, "-m", *command],
                capture_output=True,
                text=True,
                check=False,
                cwd=REPO_ROOT,
                env={**os.environ, **self.environment},
            )
            if finished.returncode != 0:
                raise SetUpFailed(f"python -m {' '.join(command)} failed:\n{finished.stdout[-2000:]}{finished.stderr}")
        refresh_duckdb_file(self.store, self.file)

    @cached_property
    def manifest(self) -> Manifest:
        """Of the snapshot that every peer was given."""
        with self.store.open() as snapshot:
            return snapshot.manifest

    @cached_property
    def users(self) -> list[int]:
        """Some users with a page of transactions and more, from all over the mart."""
        path = str(self.mart / f"{TRANSACTIONS}.parquet")
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT user_id FROM read_parquet(?) GROUP BY user_id HAVING count(*) >= ? ORDER BY hash(user_id)",
                [path, _PAGE],
            ).fetchmany(_USERS)
        if not found:
            raise SetUpFailed(f"no user has {_PAGE} transactions in {path}: build at a larger scale")
        return [user for (user,) in found]

    def token(self, user: int, *, all_rows: bool = False) -> str:
        """A bearer token for the API."""
        secret = (self.root / "secrets" / "jwt_secret").read_text()
        return auth.issue(secret, user_id=user, all_rows=all_rows, ttl=timedelta(days=1))
