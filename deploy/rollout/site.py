"""One stack as the rollout sees it: what runs, how it is configured in each phase, and what it answers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from backend import auth, filepaths
from backend.errors import ConfigError
from backend.keys import parse_secrets
from deploy.rollout.compose import Compose, Config
from deploy.rollout.engine import Container, Engine, EngineFailed
from deploy.rollout.journal import Journal
from deploy.rollout.phases import BACKEND, DAEMON, MOVING, PHASES
from deploy.rollout.settings import RolloutSettings
from deploy.rollout.shell import Shell
from deploy.rollout.waiting import TimedOut, wait_for

GATEWAY = "gateway"
_BUILDING = "SELECT run_id FROM runs WHERE status IN ('STARTING', 'STARTED', 'CANCELING')"
_ASK_SECONDS = 10
# What an API answers of everything: the list of datasets, and the beginning of each. Runs in a backend's container.
# In an order that doesn't depend on how rows lie: of a project of one's own, phase 0 has them as its dbt wrote them.
_ANSWERS = r"""
import hashlib, json, os, urllib.request

def get(path):
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
    request = urllib.request.Request("http://127.0.0.1:8000/api/analytics/datasets" + path, headers=headers)
    body = urllib.request.urlopen(request, timeout=60).read()
    return json.loads(body, parse_float=str, parse_int=str)  # to the digit

listed = get("")
datasets = {}
for dataset in listed["datasets"]:
    names = ['"' + column["name"].replace("\\", "\\\\").replace('"', '\\"') + '"' for column in dataset["columns"]]
    order = urllib.request.quote(",".join(names[:32]), safe="")
    rows = get("/" + urllib.request.quote(dataset["id"], safe="") + "/query?limit=1000&order=" + order)
    datasets[dataset["id"]] = {
        "columns": rows["columns"],
        "row_count": dataset["row_count"],
        "rows": hashlib.sha256("\n".join(sorted(map(json.dumps, rows["rows"]))).encode()).hexdigest(),
    }
print(json.dumps({"snapshot": listed["snapshot"], "datasets": datasets}))
"""


@dataclass(frozen=True)
class Observed:
    """The containers of the services that a phase is made of, stopped ones included."""

    containers: Sequence[Container]

    def of(self, service: str, phase: int | None = None) -> list[Container]:
        """Containers of a service, of that phase if one is given."""
        return [c for c in self.containers if c.service == service and phase in (None, c.phase)]

    @property
    def serving(self) -> set[int]:
        """Phases of the backends that run."""
        return {c.phase for c in self.of(BACKEND) if c.running and c.phase is not None}

    @property
    def phase(self) -> int | None:
        """The phase that all of it is in, running; None while nothing, or less than everything, is in one."""
        phases = {c.phase for c in self.containers}
        whole = {c.service for c in self.containers if c.running} == set(MOVING)
        return next(iter(phases)) if len(phases) == 1 and whole and len(self.of(BACKEND)) == 1 else None

    def __str__(self) -> str:
        return ", ".join(
            f"{c.name} {f'of phase {c.phase}' if c.phase is not None else 'of no phase'} is {c.state}"
            + (f" ({c.health})" if c.health else "")
            for c in self.containers
        ) or "no container"  # fmt: skip


class Site:
    """The stack that ``COMPOSE_FILE`` and ``COMPOSE_PROJECT_NAME`` name."""

    def __init__(self) -> None:
        self.settings = RolloutSettings()
        self.shell = Shell()
        self.compose = Compose(os.environ.get("COMPOSE_FILE"))
        self._configs: dict[int, Config] = {}
        self.project = self.config(0).project
        self.directory = filepaths.rollout_dir() / self.project
        self.journal = Journal(self.directory / "journal.jsonl")

    @cached_property
    def engine(self) -> Engine:
        """The engine that the stack runs in. Raises EngineFailed."""
        return Engine(self.project)

    def config(self, phase: int) -> Config:
        """The stack's configuration in that phase. Raises CommandFailed where Compose refuses it."""
        if phase not in self._configs:
            self._configs[phase] = Config(json.loads(self.shell.output(self.compose.config(phase))))
        return self._configs[phase]

    def observe(self) -> Observed:
        """What runs now."""
        return Observed([c for c in self.engine.containers() if c.service in MOVING])

    def one(self, service: str) -> Container:
        """The running container of a service. Raises EngineFailed when there is none."""
        running = [container for container in self.engine.containers(service) if container.running]
        if not running:
            raise EngineFailed(f"no container of {service} runs in {self.project}", hint="`make up` starts the stack")
        return running[-1]

    # --- where things lie ----------------------------------------------------------------------------------------

    def storage(self, phase: int) -> str:
        """Volume or host directory that holds the marts in that phase."""
        return self.config(phase).storage(DAEMON, PHASES[phase][DAEMON].mount.target)

    @property
    def parquet_host_dir(self) -> Path:
        """The host directory of phase 2."""
        return Path(self.storage(2))

    @property
    def legacy_volume(self) -> str:
        """The volume of phases 0 and 1."""
        return self.storage(0)

    @property
    def legacy_file(self) -> str:
        """Name of the DuckDB file in it."""
        path = self.config(0).variable(BACKEND, "DUCKDB_PATH") or ""
        return path.removeprefix(f"{PHASES[0][BACKEND].mount.target}/")

    @property
    def adopted(self) -> str:
        """The directory of the dbt project that is built instead of the example; empty where there is none."""
        return self.config(0).variable(DAEMON, "DBT_PROJECT_DIR") or ""

    def one_off_name(self, purpose: str) -> str:
        """Name of the container that the rollout starts for a purpose; one at a time."""
        return f"{self.project}-rollout-{purpose}"

    # --- what it says --------------------------------------------------------------------------------------------

    def execute(self, container: Container, *command: str, **secrets: str) -> str:
        """Run a command in a container; its standard output. Raises CommandFailed with what it said otherwise."""
        return self.shell.output(self.compose.execute(container.name, *command, secrets=secrets))

    def builds(self) -> list[str]:
        """Ids of the Dagster runs that are under way. Raises EngineFailed or CommandFailed when it can't be known."""
        said = self.execute(
            self.one("dagster-postgres"), "psql", "--username=dagster", "--dbname=dagster", "-qtAc", _BUILDING
        )
        return said.split()

    def ready(self) -> dict[str, Any]:
        """What the gateway answers to ``/health/ready``. Raises EngineFailed where it doesn't answer with 200.

        For a moment the gateway still asks a replica that has just begun to drain, which says so: then it asks again.
        """
        url = f"http://{self.gateway_address}/health/ready"

        def stays() -> httpx.Response | None:
            answer = httpx.get(url, timeout=_ASK_SECONDS)
            return None if answer.status_code != httpx.codes.OK and '"draining"' in answer.text else answer

        try:
            answer = wait_for(
                stays, f"{url} is answered by a replica that stays", seconds=_ASK_SECONDS, found=lambda: "it drains"
            )
        except httpx.TransportError as error:
            raise EngineFailed(f"asking {url} failed: {error}", hint="see `make ps`") from error
        except TimedOut as error:
            raise EngineFailed(error.message, hint="see `make ps`: no replica stays") from error
        if answer.status_code != httpx.codes.OK:
            raise EngineFailed(f"{url} answered {answer.status_code}: {answer.text[:500]}", hint="see `make logs`")
        found: dict[str, Any] = answer.json()
        return found

    @property
    def gateway_address(self) -> str:
        """Host and port that clients use. Raises EngineFailed when the gateway does not run."""
        ports = self.one(GATEWAY).ports
        if not ports:
            raise EngineFailed("the gateway publishes no port", hint="see compose/base.yaml")
        return next(iter(ports.values()))

    def answers(self, backend: Container) -> dict[str, Any]:
        """What one backend answers of all datasets, see above. Raises CommandFailed, ConfigError."""
        config = self.config(0)
        path = Path(config.secrets["jwt_secret"])
        try:
            secret, *_ = parse_secrets(path.read_text(encoding="utf-8"), path)
        except OSError as error:
            raise ConfigError(
                f"reading {path} failed: {error.strerror}", hint="run this as whom it belongs to"
            ) from error
        token = auth.issue(
            secret,
            user_id=0,
            all_rows=True,
            ttl=timedelta(minutes=5),
            audience=config.variable(BACKEND, "API_JWT_AUDIENCE") or "",
            issuer=config.variable(BACKEND, "API_JWT_ISSUER") or "",
        )
        found: dict[str, Any] = json.loads(self.execute(backend, "python", "-c", _ANSWERS, TOKEN=token))
        return found
