import fcntl

import pytest

from .runner import Build
from .source import create_source


@pytest.fixture(scope="session")
def full_build(tmp_path_factory, worker_id):
    """Everything built once from the small source, by whichever xdist worker comes first. Read only."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "dbt_full_build"
    root.mkdir(exist_ok=True)
    build = Build(root, root / "source.duckdb")
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "output").exists():
            create_source(build.source)
            result = build.dbt("build")
            (root / "output").write_text(f"{result.returncode}\n{result.stdout}")
    output = (root / "output").read_text()
    assert output.startswith("0\n"), output
    return build
