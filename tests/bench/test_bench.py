"""The harness end to end, on as little as it takes: real servers, a real load, no times."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import psutil
import pytest

from backend.filepaths import REPO_ROOT
from tests.bench import load
from tests.bench.asking import Request
from tests.bench.questions import FIRST_SERIAL, SERIAL
from tests.e2e.stack import wait_for

SMALL = ("--rounds", "1", "--seconds", "1", "--scale", "0.02")


def bench(*arguments, temporary, **options):
    # Of a job in the background, children ignore Ctrl-C: this one must not, whatever started the tests.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.Popen(
        command,
        cwd=REPO_ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def below(directory):
    """Processes that were started for something in the directory."""
    found = psutil.process_iter(["cmdline", "environ"])
    return [
        process
        for process in found
        if str(directory) in " ".join([*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()])
    ]


def test_a_run_measures_everybody_reports_and_leaves_nothing_behind(tmp_path):
    temporary, output = tmp_path / "temporary", tmp_path / "output"
    temporary.mkdir()
    peers = ("plan", "ours", "ours, cached", "constant")
    chosen = [argument for peer in peers for argument in ("--peer", peer)]
    run = bench(
        *("full", *chosen, "--connections", "2", "--builds", "0", "--note", "a test", "--output", str(output), *SMALL),
        temporary=temporary,
    )
    said, _ = run.communicate()
    assert run.returncode == 0, said
    report = (output / "bench.md").read_text()
    assert "- note: a test" in report
    assert "| target | measured, median (from..to) |  |" in report
    assert "| | Q1 | Q2 | Q3 | Q4 | Q5 | Q5 Arrow |" in report.replace("|  |", "| |")
    cells = json.loads((output / "bench.json").read_text())["cells"]
    measured = {(cell["peer"], cell["question"]) for cell in cells}
    json_questions = {"Q1", "Q2", "Q3", "Q4", "Q5"}
    assert measured == {(peer, name) for peer in peers for name in json_questions} | {
        (peer, "Q5 Arrow") for peer in peers if peer != "plan"
    }
    assert all(cell["rate"] > 0 and cell["memory"] > 1 and cell["p99"] >= cell["p50"] > 0 for cell in cells)
    assert list(temporary.iterdir()) == []
    assert below(temporary) == []


def test_a_run_that_is_broken_off_leaves_nothing_behind(tmp_path):
    run = bench(
        "quick", "--question", "Q1", "--output", str(tmp_path / "output"), *SMALL, temporary=tmp_path, bufsize=1
    )
    wait_for(lambda: "round 1" in run.stdout.readline(), "the first load is over", seconds=120)
    assert len(below(tmp_path)) > 1
    run.send_signal(signal.SIGINT)
    run.communicate()
    assert run.returncode != 0
    assert [path for path in tmp_path.iterdir() if path.name.startswith("bench-")] == []
    assert below(tmp_path) == []


class Answers(BaseHTTPRequestHandler):
    """Every request is answered by what ``answer`` makes of how many there were before."""

    protocol_version = "HTTP/1.1"

    def __init__(self, answer, seen, *arguments):
        self.answer, self.seen = answer, seen
        super().__init__(*arguments)

    def do_GET(self):
        self.seen.append(self.path)
        status = self.answer(len(self.seen))
        if status is None:  # half an answer, and no more
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    """``served(answer)``: port of a server, and the paths that it was asked for."""
    servers = []

    def serve(answer):
        seen = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, answer, seen))
        servers.append(server)
        Thread(target=server.serve_forever).start()
        return server.server_port, seen

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def put(port, tmp_path):
    requests = [Request(f"/{letter}?above={SERIAL}") for letter in "ab"]
    return load.put(port, requests, connections=2, seconds=1, serial=FIRST_SERIAL, scratch=tmp_path)


def test_every_request_is_another_one_and_every_answer_is_counted(served, tmp_path):
    port, seen = served(lambda _: 200)
    done = put(port, tmp_path)
    assert done.answers > 10
    assert len(set(seen)) == len(seen)
    assert {path[:9] for path in seen} == {"/a?above=", "/b?above="}
    assert 0 <= len(seen) - done.answers <= 2
    assert all(FIRST_SERIAL <= int(path[9:]) <= FIRST_SERIAL + done.sent + 2 for path in seen)


@pytest.mark.parametrize("status", [500, 302, 201])
def test_one_answer_that_is_no_200_makes_the_load_fail(served, tmp_path, status):
    port, _ = served(lambda number: status if number == 20 else 200)
    with pytest.raises(load.LoadFailed, match="failed: 1 unexpected"):
        put(port, tmp_path)


def test_answers_that_are_broken_off_make_the_load_fail(served, tmp_path):
    port, _ = served(lambda number: 200 if number % 10 else None)
    with pytest.raises(load.LoadFailed, match="never answered"):
        put(port, tmp_path)
