"""The dbt layer's site: the real build on a copy of the project, from an embedded source; the real backend serves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from backend.filepaths import REPO_ROOT
from deploy.source.generate import generate
from deploy.source.load import seed_embedded
from tests.chaos.faults import Ended
from tests.chaos.served import Backend, State
from tests.e2e.stack import wait_for
from tests.unit.dbt.runner import INHERITED

SCALE = 0.05
BUILD_SECONDS = 300
LEFT_OUT = shutil.ignore_patterns("__pycache__", "target", "logs")


class Build:
    """One ``python -m deploy.pipeline build`` under way."""

    def __init__(self, site: DbtSite, **variables: str) -> None:
        self.output = site.directory / "build.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.pipeline", "build"],
                cwd=site.project, env={**site.environment, **variables}, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        site.builds.append(self)

    def ended(self) -> tuple[int, str]:
        """Exit code and output."""
        return self.process.wait(BUILD_SECONDS), self.output.read_text(errors="replace")

    def dbt(self) -> int | None:
        """Process id of the dbt that builds the marts: not of one that parses the project."""
        with suppress(FileNotFoundError, ProcessLookupError):  # one has ended meanwhile
            for server in _children(self.process.pid):
                for pid in _children(server):
                    if Path(f"/proc/{pid}/comm").read_text() == "dbt build\n":
                        return pid
        return None

    def wait_for_dbt(self) -> int:
        return wait_for(self.dbt, "dbt builds", seconds=BUILD_SECONDS, every=0.02)


class DbtSite:
    """The source has two states, which differ in one name: each build is of the other one than what is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "parquet"
        self.project = directory / "project"
        self.source = directory / "source.duckdb"
        self._pristine = directory / "pristine.duckdb"
        directory.mkdir(parents=True, exist_ok=True)
        seed_embedded(self._pristine, generate(SCALE))
        for name in ("backend", "deploy"):
            shutil.copytree(REPO_ROOT / name, self.project / name, ignore=LEFT_OUT)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.environment = inherited | {
            "PARQUET_DIR": str(self.root),
            "DUCKDB_PATH": str(directory / "dbt_build.duckdb"),
            "SOURCE_DUCKDB_PATH": str(self.source),
            "DBT_TARGET": "embedded",
            "DBT_TARGET_PATH": str(directory / "target"),
            "DBT_USE_COLORS": "false",
            "TMPDIR": str(directory),
        }
        self.builds: list[Build] = []
        self.states: list[State] = []
        self.name = "Bea"
        self._known: dict[str, str] = {}  # the source's state: digest of the marts built from it
        for _ in range(2):
            self._other_state()
            self._build()
            if not self.states:
                self.warm = Backend(self.root, directory)
            self.states.append(self.warm.state())
            self._known[self.name] = self.states[-1].rows
        assert len(set(self._known.values())) == 2, "what is served does not tell the two states apart"

    def cold(self) -> Backend:
        return Backend(self.root, self.directory)

    def close(self) -> None:
        self.warm.close()
        for build in self.builds:  # a dbt whose parent was killed may live on, and write
            with suppress(ProcessLookupError):
                os.killpg(build.process.pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def good_build(self) -> str:
        self._other_state()
        self._build()
        return self._known[self.name]

    def faulty_build(self, says: str) -> Ended:
        """A build that has to fail and to say so."""
        code, output = Build(self).ended()
        assert code != 0, output[-1500:]
        assert says in output, f"expected {says!r}:\n{output[-1500:]}"
        return Ended("build failed", output[output.index(says) :][:300])

    @retry(
        retry=retry_if_exception_message(match=".*Could not set lock"), stop=stop_after_delay(60), wait=wait_fixed(0.1)
    )
    def alter(self, sql: str) -> None:
        """Change the source; a dbt whose parent was killed may have it open for a while."""
        with duckdb.connect(str(self.source)) as connection:
            connection.execute(sql)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.project / "dbt" / path
        text = file.read_text()
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new, 1))

    def restore(self) -> None:
        """The source and the project as they are when nothing is wrong with them."""
        shutil.copyfile(self._pristine, self.source)
        self.alter(f"UPDATE users SET full_name = '{self.name}' WHERE user_id = 1")
        shutil.rmtree(self.project / "dbt", ignore_errors=True)
        shutil.copytree(REPO_ROOT / "dbt", self.project / "dbt", ignore=LEFT_OUT)

    def _other_state(self) -> None:
        self.name = {"Ada": "Bea", "Bea": "Ada"}[self.name]
        self.restore()

    def _build(self) -> None:
        code, output = Build(self).ended()
        assert code == 0, output[-3000:]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
