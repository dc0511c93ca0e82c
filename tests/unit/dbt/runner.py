"""Runs the real dbt, in a process of its own."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backend.filepaths import DBT_PROJECT_DIR
from deploy.pipeline import forks
from deploy.pipeline.forks import Task

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


def run_dbt(*arguments: str, project: Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """Run dbt on ``project`` with only these environment variables."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment |= {
        "DBT_PROJECT_DIR": str(project),
        "DBT_PROFILES_DIR": str(project),
        "DBT_USE_COLORS": "false",
        **{name: str(value) for name, value in variables.items()},
    }
    task = Task("dbt.cli.main:cli", arguments, environment, str(project), "dbt")
    with tempfile.TemporaryDirectory() as output:
        printed = [Path(output, name) for name in ("stdout", "stderr")]
        with printed[0].open("wb") as stdout, printed[1].open("wb") as stderr:
            code = forks.run(task, stdout=stdout.fileno(), stderr=stderr.fileno())
        return subprocess.CompletedProcess(arguments, code, *(file.read_text() for file in printed))


@dataclass(frozen=True)
class Build:
    """A place to build in: ``parquet/`` for the marts (``tables``: none, marts stay in the file) and the build file."""

    root: Path
    source: Path
    tables: bool = False

    @property
    def parquet(self) -> Path:
        return self.root / "parquet"

    @property
    def file(self) -> Path:
        return self.root / "dbt_build.duckdb"

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.parquet.mkdir(parents=True, exist_ok=True)
        return run_dbt(
            *arguments,
            project=DBT_PROJECT_DIR,
            DBT_TARGET="embedded",
            DBT_TARGET_PATH=self.root / "target",
            DBT_LOG_PATH=self.root / "logs",
            DUCKDB_PATH=self.file,
            MART_BUILD_DIR="" if self.tables else self.parquet,
            SOURCE_DUCKDB_PATH=self.source,
        )

    def mart(self, name: str) -> Path:
        return self.parquet / f"{name}.parquet"
