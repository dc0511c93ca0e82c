"""Runs dbt, in a process of its own, and reads what it says of the run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import filepaths
from backend.errors import BuildFailed
from deploy.pipeline import forks
from deploy.pipeline.forks import Task

_FAILED = ("error", "fail", "runtime error")


@dataclass(frozen=True)
class NodeResult:
    """One line of ``run_results.json``: a model or a test, how it went, and what dbt says of it."""

    unique_id: str
    status: str
    message: str
    failures: int | None

    @property
    def failed(self) -> bool:
        """Whether the node errored, or is a test that did not pass."""
        return self.status in _FAILED


@dataclass(frozen=True)
class Dbt:
    """dbt against the project in ``dbt/``, with artefacts in ``target`` and the variables in ``env`` added.

    What it prints goes to the file descriptor ``stdout``. ``keep_open`` are descriptors for it to inherit.
    """

    target: Path
    env: Mapping[str, str]
    keep_open: Sequence[int] = ()
    stdout: int = 1

    @property
    def manifest(self) -> Path:
        """The project as dbt parsed it in its last run, whatever that was."""
        return self.target / "manifest.json"

    def parse(self) -> None:
        """Parse the project. Raises BuildFailed with dbt's own words."""
        self._check("parse")

    def land_sources(self) -> None:
        """Copy all source tables into the build file at one moment. Raises BuildFailed."""
        self._check("run-operation", "land_sources")

    def run(self) -> None:
        """Build all models, and leave out the tests. Raises BuildFailed."""
        self._check("run")

    def build(self, select: Sequence[str] | None) -> list[NodeResult]:
        """``dbt build`` of everything, or of a selection; results of models and tests, failed ones included.

        Raises BuildFailed when dbt failed before or beside these: a hook, the connection, the project itself.
        """
        file = self.target / "run_results.json"
        file.unlink(missing_ok=True)
        code = self._run("build", *(("--select", *select) if select is not None else ()))
        results = []
        if file.is_file():
            results = [
                NodeResult(r["unique_id"], r["status"], r["message"] or "", r["failures"])
                for r in json.loads(file.read_text(encoding="utf-8"))["results"]
            ]
        if code != 0 and not any(result.failed for result in results):
            raise self._ended("build", code)
        return results

    def _check(self, *args: str) -> None:
        if (code := self._run(*args)) != 0:
            raise self._ended(args[0], code)

    def _run(self, *args: str) -> int:
        self.target.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        function, arguments = self._task(*args, *self._places)
        task = Task(function, arguments, self._environment, str(self._directory), title=f"dbt {args[0]}")
        # The build's lock stays held as long as dbt lives, even when its parent is killed.
        return forks.run(task, stdout=self.stdout, stderr=2, keep_open=self.keep_open)

    def _task(self, *args: str) -> tuple[str, list[str]]:
        return "dbt.cli.main:cli", list(args)

    @property
    def _places(self) -> list[str]:
        return [
            *("--project-dir", str(self._project), "--profiles-dir", str(self._profiles)),
            *("--target-path", str(self.target), "--log-path", str(self.target), "--log-format-file", "json"),
        ]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DBT_PROJECT_DIR": str(self._project), **self.env}

    @property
    def _project(self) -> Path:
        return filepaths.DBT_PROJECT_DIR

    @property
    def _profiles(self) -> Path:
        return self._project

    @property
    def _directory(self) -> Path:
        """Where dbt runs: where we do."""
        return Path.cwd()

    @property
    def _log(self) -> Path:
        return self.target / "dbt.log"

    def _ended(self, command: str, code: int) -> BuildFailed:
        """With dbt's errors from its log: what it printed is not shown wherever the exception is."""
        said = [f"dbt {command} ended with code {code}"]
        for line in self._log.read_text(encoding="utf-8").splitlines() if self._log.is_file() else ():
            with suppress(ValueError):  # a killed dbt leaves half a line
                event = json.loads(line)["info"]
                if event["level"] == "error" and event["name"] != "MainStackTrace":
                    said.append(event["msg"])
        return BuildFailed("\n".join(said), hint="see what dbt printed")


def embedded() -> bool:
    """Whether the source is a DuckDB file, as it is where no target is named."""
    return os.environ.get("DBT_TARGET", "embedded") == "embedded"


def provide_password() -> None:
    """Put the reader's password where dbt takes it from: a variable. Raises ConfigError when it has no file."""
    if not embedded() and not os.environ.get("DBT_ENV_SECRET_SOURCE_PASSWORD"):
        os.environ["DBT_ENV_SECRET_SOURCE_PASSWORD"] = filepaths.read_secret("source_reader_password")


@contextmanager
def artefacts() -> Iterator[Path]:
    """A directory for dbt to write to, for a while: where the parsed project is kept can be read-only, as in the image.

    dbt goes on from what is kept there: it compares it with the project, and parses what has changed.
    """
    with tempfile.TemporaryDirectory(prefix="dbt-run-") as directory:
        kept = filepaths.dbt_target_dir() / "partial_parse.msgpack"
        with suppress(FileNotFoundError):
            shutil.copyfile(kept, Path(directory) / kept.name)
        yield Path(directory)


def check(results: Sequence[NodeResult], nodes: Mapping[str, Any]) -> None:
    """Raise BuildFailed when a model or a test failed."""
    if failures := _summary_of_failures(results, nodes):
        raise BuildFailed(
            f"dbt build failed, nothing was published:\n{failures}"
            if filepaths.parquet_dir()
            else f"dbt build failed:\n{failures}",
            hint="fix what it names, then run again",
        )


def _summary_of_failures(results: Sequence[NodeResult], nodes: Mapping[str, Any]) -> str:
    """The failed models and tests, a line each, with dbt's message."""
    lines = []
    for result in results:
        if result.failed:
            node = nodes.get(result.unique_id, {"resource_type": "node", "name": result.unique_id})
            lines.append(f"{node['resource_type']} {node['name']}: {result.status}: {result.message.strip()}")
    return "\n".join(lines)
