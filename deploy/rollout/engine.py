"""What runs, as the Docker engine says: the only module that knows its SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.models.containers import Container as DockerContainer

from backend.errors import BundleError
from deploy.rollout.phases import Mount, phase_of

_PROJECT, _SERVICE, _ONE_OFF = (f"com.docker.compose.{label}" for label in ("project", "service", "oneoff"))


_ANSWER_SECONDS = 300


class EngineFailed(BundleError):
    """The Docker engine did not do what it was asked."""


@dataclass(frozen=True)
class Container:
    """A container of the stack.

    ``phase`` is what its variables and mounts make it, ``health`` is empty without a check, ``ports`` are those of the
    container, with the host's address of each.
    """

    id: str
    name: str
    service: str
    phase: int | None
    state: str
    health: str
    exit_code: int
    mounts: tuple[Mount, ...]
    ports: Mapping[int, str]

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.state == "running"

    @property
    def ready(self) -> bool:
        """Whether it runs and its health check, if it has one, passes."""
        return self.running and self.health in ("", "healthy")


class Engine:
    """The engine and one project's containers in it. Raises EngineFailed where the engine can't be asked."""

    def __init__(self, project: str) -> None:
        self.project = project
        try:
            self._client = docker.from_env(timeout=_ANSWER_SECONDS)
        except DockerException as error:
            raise EngineFailed(
                f"asking the Docker engine failed: {error}", hint="start it, and let this user use it"
            ) from error

    def version(self) -> str:
        """The engine's version."""
        return str(self._client.version()["Version"])

    def containers(self, service: str | None = None) -> list[Container]:
        """Containers of the project's services, stopped ones included, oldest first."""
        labels = [f"{_PROJECT}={self.project}", f"{_ONE_OFF}=False", *([f"{_SERVICE}={service}"] if service else [])]
        found = self._client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return [_read(container) for container in sorted(found, key=lambda each: str(each.attrs["Created"]))]

    def one_off(self, name: str) -> Container | None:
        """The container of that name, if there is one."""
        try:
            return _read(self._client.containers.get(name))
        except NotFound:
            return None

    def remove(self, container: Container, *, grace: int | None = None) -> None:
        """Stop a container, by itself or after ``grace`` seconds, and delete it; nothing if it is gone."""
        try:
            found = self._client.containers.get(container.id)
            if grace is None:
                found.remove(force=True)
            else:
                found.stop(timeout=grace)
                found.remove()
        except NotFound:
            return
        except DockerException as error:
            raise EngineFailed(f"removing {container.name} failed: {error}", hint="see `make ps`") from error

    def last_words(self, container: Container, lines: int = 15) -> str:
        """The last lines of a container's log, of its failed health checks, and how it ended."""
        try:
            found = self._client.containers.get(container.id)
            said = found.logs(tail=lines).decode(errors="replace").strip()
        except DockerException as error:
            return f"{container.name}: {error}"
        state = found.attrs["State"]
        checks = [
            entry["Output"].strip() for entry in state.get("Health", {}).get("Log") or () if entry["ExitCode"] != 0
        ]
        lines_of = [
            f"{container.name} is {state['Status']}, exit code {state['ExitCode']} {state.get('Error', '')}".strip()
        ]
        return "\n".join([*lines_of, *([f"health check: {checks[-1][-500:]}"] if checks else []), said])

    def image_id(self, name: str) -> str | None:
        """Id of the image that has this name; None when there is none."""
        try:
            return str(self._client.images.get(name).id)
        except ImageNotFound:
            return None

    def has_volume(self, name: str) -> bool:
        """Whether the volume exists."""
        try:
            self._client.volumes.get(name)
        except NotFound:
            return False
        return True

    def remove_volume(self, name: str) -> None:
        """Delete a volume and all that lies in it. Raises EngineFailed while a container uses it."""
        try:
            self._client.volumes.get(name).remove()
        except DockerException as error:
            raise EngineFailed(f"deleting the volume {name} failed: {error}", hint="see what still uses it") from error


def _read(container: DockerContainer) -> Container:
    attributes: dict[str, Any] = container.attrs
    state, service = attributes["State"], container.labels.get(_SERVICE, "")
    variables = dict(pair.split("=", 1) for pair in attributes["Config"]["Env"] or () if "=" in pair)
    mounts = tuple(
        Mount(m["Type"], m["Destination"], m["RW"], m.get("Name") or m.get("Source") or "")
        for m in attributes["Mounts"]
        if m["Type"] in ("volume", "bind")
    )
    published = attributes["NetworkSettings"]["Ports"] or {}
    return Container(
        id=str(container.id),
        name=str(container.name),
        service=service,
        phase=phase_of(service, variables, mounts),
        state=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        exit_code=state["ExitCode"],
        mounts=mounts,
        ports={
            int(port.split("/")[0]): f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}"
            for port, bindings in published.items()
            if bindings
        },
    )
