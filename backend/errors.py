"""Errors that say what was tried, what was found, and what to do next."""


class BundleError(Exception):
    """An error with a hint: ``message`` says what was tried and found, ``hint`` what to do next."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


class NoSnapshot(BundleError):
    """Nothing has been published yet."""


class SnapshotGone(BundleError):
    """The snapshot asked for does not exist (any more)."""


class SnapshotCorrupt(BundleError):
    """A published snapshot is not what its manifest says."""


class LockHeld(BundleError):
    """Somebody else holds the lock; the message names the holder."""


class AuditFailed(BundleError):
    """What a build wrote is not fit to be published."""


class PublishConflict(BundleError):
    """What is served changed while this build ran."""


class BuildFailed(BundleError):
    """dbt did not finish, or a test of it failed."""


class ConfigError(BundleError):
    """A setting is missing or makes no sense."""
