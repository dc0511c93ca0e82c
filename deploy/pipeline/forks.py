"""Runs what dbt has to do in processes forked off one that has imported it, which takes longer than most of that.

The process that has is started when the first is needed, and ends with ours. It is this module:
``python -m deploy.pipeline.forks FD`` serves the socket with the file descriptor ``FD``.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend import filepaths
from backend.errors import BuildFailed

_IMPORTED = "dbt.cli.main"  # not its adapter: importing DuckDB starts a thread, which a fork would lack
_MOST_DESCRIPTORS = 16
_servers: dict[int, _Server] = {}  # by process: after a fork, the parent's is not the child's


@dataclass(frozen=True)
class Task:
    """A function, as ``module:name``, that takes ``arguments`` from ``sys.argv`` and returns or raises an exit code.

    The process has ``environment`` and nothing else, works in ``directory``, and is called ``title`` in lists of
    processes (up to 15 bytes).
    """

    function: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    title: str


def run(task: Task, *, stdout: int, stderr: int, keep_open: Sequence[int] = ()) -> int:
    """Exit code of the task's process, -N where signal N has ended it. It is killed where we are interrupted.

    ``stdout`` and ``stderr`` are file descriptors for it, it inherits those of ``keep_open`` as well. Raises
    BuildFailed when dbt can't be imported.
    """
    server = _servers.get(os.getpid())
    if server is None or server.ended:
        server = _servers[os.getpid()] = _Server()
    return server.run(task, [stdout, stderr, *keep_open])


def stop() -> None:
    """End the process that has dbt, if there is one: for who is about to become another program."""
    if server := _servers.pop(os.getpid(), None):
        server.close()


atexit.register(stop)


class _Server:
    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        ours = os.pathsep.join(filter(None, [str(filepaths.REPO_ROOT), os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the directory of a project is not to be imported, as it is not by dbt's own command.
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": ours},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._replies = self._socket.makefile("r")
        self._one_at_a_time = threading.Lock()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def run(self, task: Task, descriptors: Sequence[int]) -> int:
        with self._one_at_a_time:
            with suppress(BrokenPipeError):  # there is no reply, either
                socket.send_fds(self._socket, [b"\n"], descriptors)
                self._socket.sendall(json.dumps(asdict(task)).encode() + b"\n")
            pid = self._reply()
            try:
                return self._reply()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.close()
                raise

    def _reply(self) -> int:
        with suppress(ConnectionError):
            if line := self._replies.readline():
                return int(line)
        raise BuildFailed(
            f"the process that imports dbt ended with code {self._process.wait()}", hint="see what it printed"
        )

    def close(self) -> None:
        self._replies.close()
        self._socket.close()
        self._process.wait()


def serve(descriptor: int) -> Callable[[], Any] | None:
    """Fork for each task that comes in, one after the other, until there are no more: then it returns None.

    In a fork it returns what there is to do, so that the fork ends as any other process does.
    """
    importlib.import_module(_IMPORTED)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for us has it as well, and decides
    with socket.socket(fileno=descriptor) as client, client.makefile("rb") as requests:
        while (received := socket.recv_fds(client, 1, _MOST_DESCRIPTORS))[0]:
            task, descriptors = Task(**json.loads(requests.readline())), received[1]
            pid = os.fork()
            if pid == 0:
                return _become(task, *descriptors[:2])
            for inherited in descriptors:
                os.close(inherited)
            try:
                client.sendall(f"{pid}\n".encode())
            finally:
                _, status = os.waitpid(pid, 0)
            client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return None


def _become(task: Task, stdout: int, stderr: int) -> Callable[[], Any]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for standard, descriptor in enumerate((stdout, stderr), 1):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(task.directory)
    os.environ.clear()
    os.environ.update(task.environment)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = ["dbt", *task.arguments]
    with suppress(OSError):  # Linux has it
        Path("/proc/self/comm").write_text(task.title, encoding="utf-8")
    function: Callable[[], Any] = pkgutil.resolve_name(task.function)
    return function


if __name__ == "__main__":
    to_do = None
    with suppress(ConnectionError):  # who asked has ended
        to_do = serve(int(sys.argv[1]))
    if to_do is None:
        # To take apart all that was imported takes a third of a second, and a build waits for our end.
        os._exit(0)
    sys.exit(to_do())
