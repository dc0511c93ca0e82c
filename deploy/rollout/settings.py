"""Settings of the rollout, from environment variables ``ROLLOUT_…``."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RolloutSettings(BaseSettings):
    """How long steps wait, and how old a parity report may be."""

    model_config = SettingsConfigDict(env_prefix="ROLLOUT_", env_ignore_empty=True, frozen=True)

    wait_seconds: float = Field(default=300, gt=0, description="for a container to become healthy, or a build to end")
    parity_max_age_minutes: float = Field(default=60, gt=0, description="of the report that `promote` relies on")
