"""A whole stack of one phase in containers, as tests use it: start it, ask it, break it, take it away."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import docker
import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed
from testcontainers.compose import DockerCompose

from backend import auth, lockfile
from backend.filepaths import REPO_ROOT

CHECKOUT = hashlib.sha256(str(REPO_ROOT).encode()).hexdigest()[:12]
"""Part of the name of all that tests of this checkout make in the engine: another one's is its own business."""
SCALE = "0.1"  # of the source: 20 users, with 10,000 transactions
START_SECONDS = 600  # from nothing to the first answer, images built, on a machine that others use as well
RUN_SECONDS = 900
LOCATION = "deploy.pipeline.definitions"
STORE = "/opt/dagster/dagster_home/data/parquet"  # in Dagster's containers
SECRETS = ("postgres_password", "source_owner_password", "source_reader_password", "dagster_db_password", "jwt_secret")


class TimedOut(AssertionError):
    pass


def wait_for(condition, what, *, seconds, every=0.2, details=lambda: ""):
    """The first true value of ``condition()``; a time-out names what was waited for and what was found."""
    retrying = Retrying(
        retry=retry_if_result(lambda value: not value), stop=stop_after_delay(seconds), wait=wait_fixed(every)
    )
    try:
        return retrying(condition)
    except RetryError:
        raise TimedOut(f"{what}: not within {seconds} s. {details()}") from None


def free_ports(count):
    """Ports of this machine that nobody has, as text."""
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


@contextmanager
def alone():
    """The only run of this checkout's tests of containers. Raises LockHeld where there is one already."""
    with lockfile.held(REPO_ROOT / ".cache" / "e2e.lock", "a run of the end-to-end tests", wait=0):
        _sweep()
        yield


def _sweep():
    """Take away what a run that was killed has left in the engine."""
    ours = f"test-{CHECKOUT}-"
    engine = docker.from_env()
    for container in engine.containers.list(all=True, ignore_removed=True):
        if container.name.startswith(ours):
            container.remove(force=True, v=True)
    for kind in (engine.networks, engine.volumes):
        for left in kind.list():
            if left.name.startswith(ours):
                left.remove(**({"force": True} if kind is engine.volumes else {}))
    engine.close()


@dataclass
class Stack:
    directory: Path
    phase: int
    project: str = field(default_factory=lambda: f"test-{CHECKOUT}-{uuid.uuid4().hex[:10]}")
    services: tuple[str, ...] = ("gateway", "dagster-webserver")
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.engine = docker.from_env()
        self.secrets = self.directory / "secrets"
        self.parquet_host_dir = self.directory / "marts of phase 2"
        if not self.secrets.exists():
            self.secrets.mkdir(mode=0o700)
            for name in SECRETS:
                (self.secrets / name).write_text(uuid.uuid4().hex + uuid.uuid4().hex)
                (self.secrets / name).chmod(0o444)
            for name, text in (("jwks", '{"keys": []}'), ("dbt_env", "# none\n")):
                (self.secrets / name).write_text(text)
                (self.secrets / name).chmod(0o444)
        # In the environment, which wins over what make exports for the checkout's own stack.
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "SECRETS_HOST_DIR": str(self.secrets),
            "PARQUET_HOST_DIR": str(self.parquet_host_dir),
            "SOURCE_SCALE": SCALE,
            "TRAFFIC_RATE": "5",  # enough to change every build, and little for PostgreSQL to do
            **self.settings,
        }

    @property
    def compose(self):
        files = ["base.yaml", f"phase{self.phase}.yaml", "test.yaml"]
        return DockerCompose(
            context=REPO_ROOT,
            compose_file_name=[str(REPO_ROOT / "compose" / file) for file in files],
            profiles=["traffic"],
        )

    def run(self, *args, check=True, timeout=2 * START_SECONDS):
        command = [*self.compose.docker_compose_command(), *args]
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=REPO_ROOT, timeout=timeout, env=self.environment
        )
        if check and finished.returncode != 0:
            states = self.run("ps", "--all", check=False).stdout
            raise AssertionError(f"{' '.join(args)} failed:\n{finished.stderr[-2000:]}\n{states}\n{self.logs()}")
        return finished

    def up(self, *services):
        services = services or self.services
        self.run("up", "--detach", "--wait", "--wait-timeout", str(START_SECONDS), *services)
        if {"backend", "gateway"} & set(services):
            wait_for(self.ready, "the API answers through the gateway", seconds=START_SECONDS, details=self.logs)

    def down(self):
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
        self.engine.close()
        shutil.rmtree(self.parquet_host_dir, ignore_errors=True)

    def logs(self, *services):
        return self.run("logs", "--no-color", "--tail", "25", *services, check=False).stdout

    def container(self, service):
        label = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (found,) = self.engine.containers.list(all=True, filters={"label": label})
        return found

    def backends(self):
        """The replicas that run."""
        label = [f"com.docker.compose.project={self.project}", "com.docker.compose.service=backend"]
        return self.engine.containers.list(filters={"label": label})

    def add_backend(self, *, wait=True):
        """One more replica, with the configuration of now, beside those that run; healthy, if ``wait``."""
        before = self.backends()
        how = ("--wait",) if wait else ()
        scale = f"backend={len(before) + 1}"
        self.run("up", "--detach", *how, "--no-deps", "--no-recreate", "--scale", scale, "backend")
        (new,) = [container for container in self.backends() if container not in before]
        return new

    def containers(self):
        found = self.engine.containers.list(all=True, filters={"label": f"com.docker.compose.project={self.project}"})
        return {container.labels["com.docker.compose.service"]: container for container in found}

    def exec(self, service, *command):
        """Exit code and output of a command in a running container."""
        # Not by the SDK: on a busy machine it loses what comes in one packet with the engine's answer.
        done = subprocess.run(
            ["docker", "exec", self.container(service).id, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=START_SECONDS,
        )  # fmt: skip
        return done.returncode, done.stdout

    # --- the source -----------------------------------------------------------------------------------------------

    def psql(self, sql):
        code, output = self.exec("postgres", "psql", "-U", "postgres", "-d", "finance", "-qtAc", sql)
        assert code == 0, output
        return output.strip()

    # --- the API --------------------------------------------------------------------------------------------------

    def url(self, service, port):
        bindings = self.container(service).attrs["NetworkSettings"]["Ports"][f"{port}/tcp"]
        return f"http://127.0.0.1:{bindings[0]['HostPort']}"

    def ready(self):
        return httpx.get(self.url("gateway", 8000) + "/health/ready", timeout=10).status_code == 200

    def token(self, user_id=1, *, all_rows=False):
        secret = (self.secrets / "jwt_secret").read_text()
        return auth.issue(secret, user_id=user_id, all_rows=all_rows, ttl=timedelta(days=1))

    def api(self, user_id=1, *, all_rows=False):
        token = self.token(user_id, all_rows=all_rows)
        return httpx.Client(
            base_url=self.url("gateway", 8000), headers={"Authorization": f"Bearer {token}"}, timeout=30
        )

    def rows(self, mart, **user):
        """The first page of a mart, for that user."""
        with self.api(**user) as api:
            answer = api.get(f"/api/analytics/datasets/{mart}/query")
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]

    def snapshot(self):
        with self.api() as api:
            return api.get("/api/analytics/datasets").json().get("snapshot")

    def manifest(self, snapshot):
        """Of a snapshot in phases 1 and 2, as the daemon sees it."""
        code, output = self.exec("dagster-daemon", "cat", f"{STORE}/snapshots/{snapshot}/manifest.json")
        assert code == 0, output
        return json.loads(output)

    def follows(self):
        """Whether the API answers from what is published: not yet, while another request opens that snapshot."""
        code, pointer = self.exec("dagster-daemon", "readlink", f"{STORE}/mart")
        assert code == 0, pointer
        return pointer.strip() == f"snapshots/{self.snapshot()}"

    # --- Dagster --------------------------------------------------------------------------------------------------

    def graphql(self, query, **variables):
        answer = httpx.post(
            self.url("dagster-webserver", 3000) + "/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        data = answer.json()
        assert not data.get("errors"), data
        return data["data"]

    def stop_schedule(self):
        """No build at the full hour: for tests that count what is published."""
        found = self.graphql(
            """query($s: RepositorySelector!) { schedulesOrError(repositorySelector: $s) {
               ... on Schedules { results { scheduleState { id } } } } }""",
            s={"repositoryName": "__repository__", "repositoryLocationName": LOCATION},
        )
        for schedule in found["schedulesOrError"]["results"]:
            stopped = self.graphql(
                """mutation($id: String) { stopRunningSchedule(id: $id) {
                   ... on ScheduleStateResult { scheduleState { status } } } }""",
                id=schedule["scheduleState"]["id"],
            )
            assert stopped["stopRunningSchedule"]["scheduleState"]["status"] == "STOPPED", stopped

    def launch(self, *assets, job="all_marts"):
        """Launch a run as the UI does; its id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": LOCATION,
            "jobName": "__ASSET_JOB" if assets else job,
            **({"assetSelection": [{"path": [asset]} for asset in assets]} if assets else {}),
        }
        launched = self.graphql(
            """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
               ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            p={"selector": selector, "runConfigData": {}, "mode": "default"},
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def status(self, run_id):
        found = self.graphql(
            "query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } jobName } } }", id=run_id
        )
        return found["runOrError"]["status"]

    def unfinished_runs(self):
        """How many runs have not ended yet."""
        runs = self.graphql("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
        return sum(run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") for run in runs)

    def finished(self, run_id, *, meanwhile=lambda: None):
        """Status of the run once it has ended."""

        def ended():
            meanwhile()
            status = self.status(run_id)
            return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None

        # Not more often: what it takes to answer, the run goes without.
        return wait_for(
            ended, f"run {run_id} ends", seconds=RUN_SECONDS, every=1, details=lambda: self.logs("dagster-daemon")
        )

    def build(self, *assets):
        """Run a build that must succeed, until the API answers from what it published; id of its run."""
        run_id = self.launch(*assets)
        status = self.finished(run_id)
        assert status == "SUCCESS", f"{status}: {self.failure(run_id)}\n{self.logs('dagster-daemon')}"
        wait_for(self.follows, "the API answers from what is published", seconds=30)
        return run_id

    def events(self, run_id):
        found, cursor = [], None
        while True:
            page = self.graphql(
                """query($id: ID!, $c: String) { logsForRun(runId: $id, afterCursor: $c) { ... on EventConnection {
                   cursor hasMore events { __typename ... on MessageEvent { message }
                     ... on MaterializationEvent { assetKey { path }
                        metadataEntries {
                          label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } }
                     ... on AssetCheckEvaluationEvent { evaluation { checkName success } }
                     ... on ExecutionStepFailureEvent { error { message causes { message } } }
                   } } } }""",
                id=run_id,
                c=cursor,
            )["logsForRun"]
            found += page["events"]
            cursor = page["cursor"]
            if not page["hasMore"]:
                return found

    def failure(self, run_id):
        """What the UI shows of a failed step."""
        return "\n".join(
            json.dumps(event["error"])
            for event in self.events(run_id)
            if event["__typename"] == "ExecutionStepFailureEvent"
        )

    def materialised(self, run_id):
        """Metadata of each asset that the run materialised."""
        return {
            event["assetKey"]["path"][-1]: {
                entry["label"]: entry.get("text", entry.get("intValue")) for entry in event["metadataEntries"]
            }
            for event in self.events(run_id)
            if event["__typename"] == "MaterializationEvent"
        }
