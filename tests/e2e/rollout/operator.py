"""Somebody at a terminal, with the runbook: commands on a stack of the tests, and what they printed."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from backend.filepaths import REPO_ROOT
from tests.e2e.stack import wait_for

RUNBOOK = REPO_ROOT / "deploy" / "RUNBOOK.md"
COMMAND_SECONDS = 1_200  # a guard
HIDDEN = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the make that runs the tests


@dataclass(frozen=True)
class Instruction:
    """One command of the runbook and the lines that it has to print, in this order; … is anything."""

    part: str
    step: str
    command: str
    expected: tuple[str, ...]


def instructions():
    """All of the runbook's, in order. What a step expects is expected of its last command."""
    found, part, step, commands = [], "", "", []
    text = RUNBOOK.read_text(encoding="utf-8")
    for heading, title, language, block in re.findall(
        r"^(##+) ([^\n]+)$|^```(bash|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    ):
        if heading:
            part, step = (title, "") if heading == "##" else (part, title)
        elif language == "bash":
            commands = block.strip().splitlines()
        else:
            found += [Instruction(part, step, command, ()) for command in commands[:-1]]
            found.append(Instruction(part, step, commands[-1], tuple(block.strip("\n").splitlines())))
            commands = []
    return found


def missing(expected, printed):
    """The first expected line that no line begins with after those before it; None when all are there."""
    lines = iter(printed.splitlines())
    for wanted in expected:
        text = re.escape(wanted.strip()).replace(r"\ ", r"\s+").replace("…", ".*")
        if not any(re.match(text, line.strip()) for line in lines):
            return wanted
    return None


class Operator:
    def __init__(self, stack, *, wait_seconds=240):
        self.stack = stack
        self.directory = stack.directory / "rollout"
        files = [f"compose/{name}.yaml" for name in ("base", f"phase{stack.phase}", "test")]
        self.environment = {
            **{name: value for name, value in stack.environment.items() if name not in HIDDEN},
            "COMPOSE_FILE": os.pathsep.join(files),
            "ROLLOUT_DIR": str(self.directory),
            "ROLLOUT_WAIT_SECONDS": str(wait_seconds),
        }

    def run(self, command, *, answer="y\n", **environment):
        """What a command of the runbook did; it is answered with yes whatever it asks."""
        return subprocess.run(
            command.split(), cwd=REPO_ROOT, env=self.environment | environment, input=answer, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECONDS,
        )  # fmt: skip

    def succeeds(self, command, **environment):
        """What a command printed that has to succeed."""
        done = self.run(command, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    def follow(self, instruction):
        """A command of the runbook, which has to do and to print what stands there."""
        printed = self.succeeds(instruction.command)
        absent = missing(instruction.expected, printed)
        assert absent is None, f"{instruction.step}: no line {absent!r} in its place in:\n{printed}"

    def killed_at(self, step, *command, by=signal.SIGKILL):
        """Start a command of the rollout, and end it as soon as it has begun that step; its exit code and output."""
        before = len(self.begun())
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.rollout", *command], cwd=REPO_ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(
                lambda: step in self.begun()[before:] or process.poll() is not None,
                f"{command} begins {step}",
                seconds=COMMAND_SECONDS,
                every=0.02,
                details=self.begun,
            )
            process.send_signal(by)
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        finally:
            process.kill()
        assert step in self.begun()[before:], output
        return process.returncode, output

    def watched(self, looks):
        """Watch the status, on a terminal, until it was shown so many times; then Ctrl-C. Its exit code."""
        terminal, screen = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.rollout", "status", "--watch"], cwd=REPO_ROOT, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=screen, stderr=screen,
        )  # fmt: skip
        os.close(screen)
        shown = b""
        try:
            while shown.count(b"Phase: ") < looks:
                shown += os.read(terminal, 65_536)
            process.send_signal(signal.SIGINT)
            with suppress(OSError):  # how a terminal says that nobody writes to it any more
                while os.read(terminal, 65_536):
                    pass
            return process.wait(timeout=60)
        finally:
            process.kill()
            os.close(terminal)

    def journal(self):
        files = list(self.directory.glob("*/journal.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def begun(self):
        """The steps that were begun, so far."""
        return [entry["step"] for entry in self.journal() if entry["event"] == "started" and entry.get("step")]
