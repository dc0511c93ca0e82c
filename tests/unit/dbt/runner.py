"""Runs the real dbt, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.filepaths import DBT_PROJECT_DIR
from tests.forked import PROCESSES

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
    with tempfile.TemporaryDirectory() as output:
        printed = [Path(output, name) for name in ("stdout", "stderr")]
        process = PROCESSES.Process(target=_dbt, args=(arguments, environment, project, printed))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(file.read_text() for file in printed))


def _dbt(arguments: Sequence[str], environment: Mapping[str, str], directory: Path, printed: Sequence[Path]) -> None:
    """dbt with these arguments, in a process that was forked for it: importing dbt takes longer than most runs."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager  # noqa: PLC0415 - imported beforehand
    from dbt.cli.main import cli  # noqa: PLC0415

    for descriptor, file in enumerate(printed, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dbt", *arguments]
    try:
        cli()
    finally:  # dbt does as it exits, which such a process does not: what it wrote would stay in a log beside the file
        DuckDBConnectionManager.close_all_connections()


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
