"""The variables that an adopted project's profile and models want: from one file, beside the environment."""

from __future__ import annotations

import os

from dotenv import dotenv_values

from backend import filepaths
from backend.errors import ConfigError

SECRET = "dbt_env"  # noqa: S105 - the name of its file


def provide_variables() -> None:
    """Put the variables in the secret's file ``dbt_env``, if there is one, where dbt takes them from.

    What the environment has already wins. Raises ConfigError where a line is no ``NAME=value``.
    """
    for name in ("DBT_PROFILES_DIR", "DBT_PROFILE", "DBT_TARGET"):
        # As Compose passes what nobody has set; to a profile's Jinja, an empty variable is no default.
        if not os.environ.get(name):
            os.environ.pop(name, None)
    file = filepaths.secret_file(SECRET)
    for name, value in dotenv_values(file, interpolate=False).items():
        if value is None:
            raise ConfigError(
                f"{file} has {name!r}, expected NAME=value", hint="one variable a line; # begins a remark"
            )
        os.environ.setdefault(name, value)
