import fcntl
import shutil

import pytest

from .dbt.runner import Build


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """``once(name, make)``: a directory that ``make`` filled, in whichever xdist worker came first. Read only."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def made(name, make):
        root = base / name
        with (base / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if lock.read() != "made":
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir()
                make(root)
                lock.write("made")
        return root

    return made


@pytest.fixture(scope="session")
def parsed(once):
    """A directory with the manifest of the parsed project."""

    def parse(root):
        result = Build(root, root / "source.duckdb").dbt("parse")
        assert result.returncode == 0, result.stdout

    return once("dbt_parsed", parse) / "target"
