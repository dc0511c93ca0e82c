"""Settings of the build, from environment variables of the same names."""

from pydantic_settings import BaseSettings


class PipelineSettings(BaseSettings):
    """How long a build waits for another one, and how many snapshots are kept for how many minutes."""

    build_lock_wait_seconds: float = 600
    snapshots_keep: int = 5
    snapshots_keep_minutes: float = 60
