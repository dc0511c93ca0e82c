"""Where the source database is, and how its owner and its reader get in."""

import os
from dataclasses import dataclass, field
from typing import Self

import psycopg

from backend.errors import BundleError, ConfigError
from backend.filepaths import read_secret

OWNER = "finance_owner"
READER = "analytics_reader"


class SourceUnavailable(BundleError):
    """PostgreSQL can't be reached, or doesn't let us in."""


@dataclass(frozen=True)
class Source:
    """The source database as ``user`` reaches it."""

    host: str
    port: int
    database: str
    password: str = field(repr=False)
    user: str = OWNER

    @classmethod
    def from_env(cls) -> Self:
        """As its owner: ``SOURCE_HOST``, ``SOURCE_PORT``, ``SOURCE_DB`` and the secret ``source_owner_password``.

        Raises ConfigError when one of them is missing or makes no sense.
        """
        return cls._from_env(OWNER, "source_owner_password")

    @classmethod
    def reader_from_env(cls) -> Self:
        """As the role that builds read with: ``SOURCE_USER`` and the secret ``source_reader_password``."""
        return cls._from_env(os.environ.get("SOURCE_USER", READER), "source_reader_password")

    @classmethod
    def _from_env(cls, user: str, secret: str) -> Self:
        host, port = os.environ.get("SOURCE_HOST", ""), os.environ.get("SOURCE_PORT", "5432")
        if not host:
            raise ConfigError("SOURCE_HOST is not set: where is PostgreSQL?", hint="set SOURCE_HOST, see .env_example")
        if not port.isdecimal():
            raise ConfigError(f"SOURCE_PORT should be a port number, not {port!r}", hint="unset it for 5432")
        return cls(host, int(port), os.environ.get("SOURCE_DB", "finance"), read_secret(secret), user)

    def connect(self) -> psycopg.Connection:
        """A connection in autocommit mode: transactions are the caller's, and explicit.

        Raises psycopg.OperationalError when that fails.
        """
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=self.database,
            user=self.user,
            password=self.password,
            connect_timeout=5,
            application_name="deploy.source",
            autocommit=True,
        )
