"""Runs the build driver on a small embedded source, with the real dbt or with what it did in an earlier run."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from backend.filepaths import REPO_ROOT
from backend.snapshots import SnapshotStore
from deploy.pipeline.build import Outcome, run_build
from deploy.pipeline.dbt import Dbt, NodeResult
from deploy.pipeline.project import DbtProject
from tests.unit.dbt.runner import INHERITED

SETTINGS = (
    "PARQUET_DIR",
    "DUCKDB_PATH",
    "LEGACY_DUCKDB_PATH",
    "BUILD_LOCK_WAIT_SECONDS",
    "SNAPSHOTS_KEEP",
    "SNAPSHOTS_KEEP_MINUTES",
    "MART_BUILD_DIR",
)


@dataclass(frozen=True)
class Place:
    """A directory that holds all that one build driver knows of, and the parsed project."""

    root: Path
    parsed: Path

    @property
    def source(self):
        return self.root / "source.duckdb"

    @property
    def legacy(self):
        return self.root / "analytics.duckdb"

    @property
    def file(self):
        return self.root / "dbt_build.duckdb"

    @property
    def store(self):
        return SnapshotStore(self.root / "parquet")

    @property
    def project(self):
        return DbtProject.read(self.parsed / "manifest.json")

    @property
    def variables(self):
        return {
            "PARQUET_DIR": str(self.store.root),
            "DUCKDB_PATH": str(self.file),
            "SOURCE_DUCKDB_PATH": str(self.source),
            "DBT_TARGET": "embedded",
            "DBT_TARGET_PATH": str(self.parsed),
            "DBT_USE_COLORS": "false",
        }

    @property
    def environment(self):
        """For a process of its own, which may be killed and leave temporary files."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return inherited | self.variables | {"TMPDIR": str(self.root)}

    def enter(self, monkeypatch):
        """Let this process build here."""
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)

    def build(self, *select, outcome=None):
        outcome = outcome or Outcome()
        run_build(self.project, outcome, run_id="run", holder="a test", select=select or None)
        return outcome

    def alter(self, sql):
        with duckdb.connect(str(self.source)) as connection:
            connection.execute("BEGIN")
            connection.execute(sql)
            connection.execute("COMMIT")

    def served(self, sql):
        """Rows of a query over the marts of the current snapshot."""
        with self.store.open() as snapshot, duckdb.connect() as connection:
            for name in snapshot.manifest.marts:
                connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{snapshot.file(name)}')")
            return connection.execute(sql).fetchall()

    def left_over(self):
        """What lies where only a build in progress leaves something."""
        building = self.store.root / "building"
        return [*building.iterdir(), *self.root.glob(f"{self.file.name}*")]


def cli(place, *arguments, **variables):
    """``python -m deploy.pipeline`` in the place's environment, with these variables changed (None: unset)."""
    return python(place, "-m", "deploy.pipeline", *arguments, **variables)


def python(place, *arguments, **variables):
    environment = {"PYTHONPATH": str(REPO_ROOT), **place.environment, **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in environment.items() if value is not None},
        cwd=REPO_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@dataclass(frozen=True)
class Recording:
    """What the real dbt did in one build, for tests where only the driver around it matters."""

    root: Path

    def record(self, monkeypatch):
        real = Dbt.build

        def build(dbt, select):
            results = real(dbt, select)
            self.root.mkdir()
            shutil.copyfile(dbt.env["DUCKDB_PATH"], self.root / "build.duckdb")
            shutil.copytree(dbt.env["MART_BUILD_DIR"], self.root / "marts")
            (self.root / "results.json").write_text(json.dumps([asdict(result) for result in results]))
            return results

        monkeypatch.setattr(Dbt, "build", build)

    def replay(self, monkeypatch, and_then=None):
        """From now on dbt does what it did then; ``and_then(directory)`` may add to it."""

        def land(dbt):
            shutil.copyfile(self.root / "build.duckdb", dbt.env["DUCKDB_PATH"])

        def build(dbt, select):
            land(dbt)
            directory = Path(dbt.env["MART_BUILD_DIR"])
            for path in (self.root / "marts").iterdir():
                if select is None or path.stem in select:
                    shutil.copyfile(path, directory / path.name)
            if and_then:
                and_then(directory)
            return [NodeResult(**result) for result in json.loads((self.root / "results.json").read_text())]

        monkeypatch.setattr(Dbt, "land_sources", land)
        monkeypatch.setattr(Dbt, "build", build)
