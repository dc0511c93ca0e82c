"""dbt runs forked off one process that has imported it: importing takes longer than most of what tests have it do.

``python -m tests.unit.dbt.zygote`` reads a run on each line of its input, and writes the exit code of each.
"""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from backend.filepaths import REPO_ROOT


def run(arguments, *, environment, directory, output):
    """Exit code of ``dbt`` with these arguments and nothing else in its environment; it prints to files in ``output``.

    As in a process of its own: nothing of a run is left for the next.
    """
    zygote = _zygote()
    asked = {"arguments": arguments, "environment": environment, "directory": str(directory), "output": str(output)}
    zygote.stdin.write(json.dumps(asked) + "\n")
    zygote.stdin.flush()
    return int(zygote.stdout.readline())


@cache
def _zygote():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.dbt.zygote"],
        cwd=REPO_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    atexit.register(process.wait)
    atexit.register(process.stdin.close)  # the first of the two, which ends it
    return process


def _serve():
    import dbt.adapters.duckdb  # noqa: F401, PLC0415
    from dbt.cli.main import cli  # noqa: PLC0415

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be(cli, **json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _be(cli, *, arguments, environment, directory, output):
    """End as dbt with these arguments."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(output, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dbt", *arguments]
    code = 1
    try:
        cli()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
