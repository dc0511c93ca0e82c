"""What dbt has to do is done in processes that were forked for it, and are as if they had been started."""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from backend.errors import BuildFailed
from deploy.pipeline import forks
from deploy.pipeline.forks import Task
from tests.e2e.stack import wait_for


def say():
    """What there is to see in the process, to its standard output."""
    sys.stderr.write("said aside")
    print(json.dumps({  # noqa: T201 - that is where it is looked for
        "arguments": sys.argv, "environment": dict(os.environ), "directory": os.getcwd(), "parent": os.getppid(),
        "title": Path("/proc/self/comm").read_text(), "open": sorted(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(), "imported": "dbt.cli.main" in sys.modules, "path": sys.path,
    }))  # fmt: skip


def fail():
    raise SystemExit(int(sys.argv[1]))


def wait_forever():
    Path(sys.argv[1]).write_text(str(os.getpid()))
    signal.pause()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def task(name, *arguments, directory="/", **environment):
    return Task(f"tests.unit.pipeline.test_forks:{name}", arguments, environment, str(directory), "a test")


def run(what):
    return forks.run(what, stdout=1, stderr=2)


def said(what, tmp_path):
    files = [tmp_path / "stdout", tmp_path / "stderr"]
    with files[0].open("wb") as out, files[1].open("wb") as err:
        assert forks.run(what, stdout=out.fileno(), stderr=err.fileno()) == 0
    assert files[1].read_text() == "said aside"
    return json.loads(files[0].read_text())


def test_a_fork_has_what_its_task_says_and_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("OURS", "1")
    (tmp_path / "duckdb.py").write_text("raise SystemExit('of the project')")
    found = said(task("say", "one", "two words", directory=tmp_path, NAME="of the task"), tmp_path)
    assert found["arguments"] == ["dbt", "one", "two words"]
    assert found["environment"] == {"NAME": "of the task"}
    assert found["directory"] == str(tmp_path)
    assert found["title"] == "a test\n"
    assert found["imported"]
    assert found["threads"] == 1
    assert {"", str(tmp_path)} & set(found["path"]) == set(), "what lies in the project's directory can be imported"
    assert len(found["open"]) == 4, "its three standard streams, and the directory that it lists"


def test_all_are_forked_off_one_process(tmp_path):
    parents = {said(task("say"), tmp_path)["parent"] for _ in range(2)}
    assert len(parents) == 1
    assert os.getpid() not in parents


def test_what_is_kept_open_is_open_in_the_fork(tmp_path):
    reading, writing = os.pipe()
    started = tmp_path / "started"
    waiting = threading.Thread(
        target=lambda: forks.run(task("wait_forever", str(started)), stdout=1, stderr=2, keep_open=[writing])
    )
    waiting.start()
    wait_for(lambda: started.exists() and started.read_text(), "it has started", seconds=60, every=0.01)
    os.close(writing)
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):  # somebody can still write
        os.read(reading, 1)
    os.kill(int(started.read_text()), signal.SIGKILL)
    waiting.join()
    assert os.read(reading, 1) == b"", "the process that forks has kept it"
    os.close(reading)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_its_exit_code_is_returned(code):
    assert run(task("fail", str(code))) == code


def test_a_signal_that_ended_it_is_returned_and_the_next_is_started(tmp_path):
    assert run(task("die")) == -signal.SIGKILL
    assert said(task("say"), tmp_path)["imported"]


class Cancelled(BaseException):
    pass


@pytest.fixture
def cancelled():
    """A signal that raises Cancelled here; not SIGINT, which workers of pytest-xdist ignore."""

    def cancel(*_):
        raise Cancelled

    before = signal.signal(signal.SIGUSR1, cancel)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def test_where_the_wait_is_interrupted_it_is_killed(tmp_path, cancelled):
    """As a run that is cancelled is: its dbt must not write on."""
    started = tmp_path / "started"

    def interrupt():
        wait_for(lambda: started.exists() and started.read_text(), "it has started", seconds=60, every=0.01)
        os.kill(os.getpid(), cancelled)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(Cancelled):
        run(task("wait_forever", str(started)))
    interrupting.join()
    assert not Path(f"/proc/{started.read_text()}").exists()
    assert run(task("fail", "0")) == 0


def test_where_the_process_that_forks_is_killed_that_is_an_error_and_the_next_has_another(tmp_path):
    server = said(task("say"), tmp_path)["parent"]
    started = tmp_path / "started"

    def kill():
        wait_for(lambda: started.exists() and started.read_text(), "it has started", seconds=60, every=0.01)
        os.kill(server, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(BuildFailed, match="ended with code -9"):
        run(task("wait_forever", str(started)))
    killing.join()
    pid = int(started.read_text())
    wait_for(lambda: _ended(pid), "what was forked was killed as well", seconds=60, every=0.01)
    assert said(task("say"), tmp_path)["parent"] != server


def _ended(pid):
    with suppress(FileNotFoundError):
        return "(zombie)" in Path(f"/proc/{pid}/status").read_text()  # nobody may be there to wait for it
    return True


def test_where_dbt_can_not_be_imported_that_is_an_error(tmp_path, monkeypatch, capfd):
    forks.stop()
    (tmp_path / "dbt").mkdir()
    (tmp_path / "dbt" / "__init__.py").write_text("raise ImportError('of another dbt')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BuildFailed, match="the process that imports dbt ended with code 1"):
        run(task("fail", "0"))
    assert "of another dbt" in capfd.readouterr().err
    monkeypatch.undo()
    assert run(task("fail", "0")) == 0


def test_once_stopped_nothing_is_left(tmp_path):
    server = said(task("say"), tmp_path)["parent"]
    forks.stop()
    assert not Path(f"/proc/{server}").exists()
