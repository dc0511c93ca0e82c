"""Builds the command lines of ``docker compose``, and of ``docker exec``; nothing here runs one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DEFAULT_FILES = "compose/base.yaml:compose/phase2.yaml"
_PHASE = re.compile(r"\bphase\d(?=\.ya?ml)")


@dataclass(frozen=True)
class Command:
    """A command line, and the variables that it needs beside the caller's own; ``secrets`` are never shown."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        shown = (argument if "\n" not in argument else "…" for argument in self.arguments)
        return " ".join((*(f"{name}={value}" for name, value in self.environment.items()), *shown))


class Compose:
    """One stack under any of its phases. ``files`` is ``COMPOSE_FILE``, of whichever phase."""

    def __init__(self, files: str | None = None) -> None:
        self.files = files or _DEFAULT_FILES

    def files_of(self, phase: int) -> str:
        """``COMPOSE_FILE`` of that phase."""
        return _PHASE.sub(f"phase{phase}", self.files)

    def config(self, phase: int) -> Command:
        """Print the configuration as JSON."""
        return self._command(phase, "config", "--format", "json")

    def version(self) -> Command:
        """Print Compose's own version."""
        return Command(("docker", "compose", "version", "--short"), {})

    def up(self, phase: int, *services: str, wait: float | None = None) -> Command:
        """Start these services as the phase has them, in place of what runs, and nothing that they depend on."""
        waiting = ("--wait", "--wait-timeout", f"{wait:.0f}") if wait is not None else ()
        return self._command(phase, "up", "--detach", "--no-deps", "--no-build", *waiting, *services)

    def add_replica(self, phase: int, service: str, *, replicas: int) -> Command:
        """Start one more container of the service, as the phase has it, beside those that run, which stay."""
        return self._command(
            phase, "up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--scale", f"{service}={replicas}",
            service,
        )  # fmt: skip

    def stop(self, phase: int, service: str) -> Command:
        """Stop the service's containers, of whichever phase they are."""
        return self._command(phase, "stop", service)

    def run(
        self, phase: int, service: str, *command: str, name: str = "", volume: str = "", detach: bool = False
    ) -> Command:
        """A container of its own, as the phase has the service, which gets no traffic.

        It is gone when it ends, unless it is detached: then its last words are worth reading.
        """
        naming = ("--name", name) if name else ()
        volumes = ("--volume", volume) if volume else ()
        ending = ("--detach",) if detach else ("--rm", "--no-TTY")
        return self._command(phase, "run", "--no-deps", *ending, *naming, *volumes, service, *command)

    def execute(self, container: str, *command: str, secrets: Mapping[str, str]) -> Command:
        """Run something in a container that runs, with these variables."""
        # Not by the SDK: that reads past what comes in one packet with the head of the engine's answer, and loses it.
        variables = (f"--env={name}" for name in secrets)
        return Command(("docker", "exec", *variables, container, *command), {}, secrets)

    def _command(self, phase: int, *arguments: str) -> Command:
        return Command(("docker", "compose", "--profile", "*", *arguments), {"COMPOSE_FILE": self.files_of(phase)})


class Config:
    """What Compose made of the files of one phase (the output of ``config``)."""

    def __init__(self, rendered: Mapping[str, Any]) -> None:
        self._rendered = rendered

    @property
    def project(self) -> str:
        """Prefix of the stack's containers and volumes."""
        return str(self._rendered["name"])

    @property
    def images(self) -> set[str]:
        """Names of all images that the services run."""
        return {service["image"] for service in self._rendered["services"].values()}

    @property
    def secrets(self) -> dict[str, str]:
        """File of each secret that a service holds."""
        held = {
            secret["source"] for service in self._rendered["services"].values() for secret in service.get("secrets", ())
        }
        return {name: entry["file"] for name, entry in self._rendered["secrets"].items() if name in held}

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Address and port on the host by service; those that the engine picks are left out."""
        return {
            name: (port["host_ip"], int(port["published"]))
            for name, service in self._rendered["services"].items()
            for port in service.get("ports", ())
            if port.get("published")
        }

    def image(self, service: str) -> str:
        """Name of the service's image."""
        return str(self._rendered["services"][service]["image"])

    def variable(self, service: str, name: str) -> str | None:
        """A variable of the service."""
        value = self._rendered["services"][service].get("environment", {}).get(name)
        return None if value is None else str(value)

    def user(self, service: str) -> str:
        """``uid:gid`` that the service runs as."""
        return str(self._rendered["services"][service]["user"])

    def is_external(self, volume: str) -> bool:
        """Whether the volume (its whole name) is used, and made by somebody else."""
        return any(entry["name"] == volume and entry.get("external") for entry in self._rendered["volumes"].values())

    def storage(self, service: str, target: str) -> str:
        """Volume (its whole name) or host directory that the service mounts at ``target``."""
        (mount,) = (m for m in self._rendered["services"][service]["volumes"] if m["target"] == target)
        source = str(mount["source"])
        return str(self._rendered["volumes"][source]["name"]) if mount["type"] == "volume" else source
