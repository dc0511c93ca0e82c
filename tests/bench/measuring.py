"""The run: every peer up, all of them found to answer the same, then one load after another in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Self

import typer

from tests.bench import load, usage
from tests.bench.answers import Row, canonical, first_difference
from tests.bench.asking import TIMEOUT_SECONDS, Refused
from tests.bench.peers import OURS, Peer
from tests.bench.processes import Running
from tests.bench.questions import FIRST_SERIAL, Question
from tests.bench.results import Cell
from tests.bench.serving import SERVERS
from tests.bench.site import Site

_ROUNDS_OF_ANSWERS = 1.6
"""How many answers each connection has the time for at least, where one takes longer than a round is to be."""


class Different(AssertionError):
    """A peer that does not answer what ours does: its speed says nothing."""


@dataclass
class Bench:
    """Peers and questions of one run; a context in which the servers are up."""

    site: Site
    peers: Sequence[Peer]
    questions: Sequence[Question]
    say: Callable[[str], None] = typer.echo
    _up: dict[str, Running] = field(default_factory=dict)
    _alone: dict[tuple[str, str], float] = field(default_factory=dict)
    _serial: int = FIRST_SERIAL
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Start every server. Raises NotStarted, or what is missing."""
        try:
            self._start(OURS.server)
            self._write_constants()
            for peer in self.peers:
                if peer.server not in self._up:
                    self._start(peer.server)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every server."""
        self._stack.close()

    def server(self, peer: Peer) -> Running:
        """The one that the peer's requests go to."""
        return self._up[peer.server]

    def cells(self) -> list[tuple[Peer, Question]]:
        """Who is asked what."""
        return [(peer, question) for question in self.questions for peer in self.peers if peer.answers(question)]

    def check(self) -> None:
        """Ask everybody everything once. Raises Different with peer, question and the first row that is not ours."""
        for question in self.questions:
            users = self.site.users if question.of_a_user else self.site.users[:1]
            columns = self._columns(question)
            expected = {user: self._rows(OURS, question, user, columns) for user in users}
            for peer in self.peers:
                if peer.answers(question):
                    for user in users[:1] if peer.repeats else users:
                        found = self._rows(peer, question, user, columns)
                        if difference := first_difference(expected[user], found, ordered=question.ordered):
                            raise Different(
                                f"{peer.name} does not answer {question.name} of user {user} as ours does: {difference}"
                            )
            self.say(f"{question.name}: {sum(map(len, expected.values()))} rows are the same, whoever is asked")

    def measure(self, *, connections: Sequence[int], rounds: int, seconds: float) -> Iterator[Cell]:
        """Every load in every round. Raises LoadFailed for one that had a failed request."""
        for turn in range(rounds):
            for question in self.questions:
                asked = [peer for peer in self.peers if peer.answers(question)]
                first = turn % len(asked) if asked else 0
                for count in connections:
                    for peer in asked[first:] + asked[:first]:
                        yield self._cell(peer, question, connections=count, turn=turn, seconds=seconds)

    def seconds(self, peer: Peer, question: Question, connections: int, seconds: float) -> float:
        """How long that load takes: ``seconds``, or as long as every connection needs for an answer."""
        return max(seconds, _ROUNDS_OF_ANSWERS * connections * self._alone[peer.name, question.name])

    def load(self, peer: Peer, question: Question, *, connections: int, seconds: float) -> load.Load:
        """Put one load on the peer, for longer where nothing is answered by then. Raises LoadFailed naming both."""
        server = self.server(peer)
        try:
            done = load.put(
                server.port,
                peer.requests(self.site, question),
                connections=connections,
                seconds=seconds,
                serial=self._serial,
                scratch=self.site.root,
            )
        except load.TooShort as error:
            if seconds > TIMEOUT_SECONDS:
                raise load.LoadFailed(f"{peer.name}, {question.name}: {error}") from error
            self._serial += connections + 2
            return self.load(peer, question, connections=connections, seconds=4 * seconds)
        except load.LoadFailed as error:
            raise load.LoadFailed(f"{peer.name}, {question.name}: {error}") from error
        self._serial += done.sent + 2  # wrk asks for one before it starts
        return done

    def _cell(self, peer: Peer, question: Question, *, connections: int, turn: int, seconds: float) -> Cell:
        with usage.measured(self.server(peer).pids) as used:
            done = self.load(
                peer,
                question,
                connections=connections,
                seconds=self.seconds(peer, question, connections, seconds),
            )
        self.say(
            f"round {turn + 1}, {question.name}, {connections} connections, {peer.name}: {done.rate:.1f}/s, "
            f"p99 {done.milliseconds(0.99):.1f} ms"
        )
        return Cell(
            peer=peer.name,
            question=question.name,
            connections=connections,
            round=turn,
            answers=done.answers,
            rate=done.rate,
            p50=done.milliseconds(0.5),
            p99=done.milliseconds(0.99),
            cpu=used.cpu_seconds / done.answers * 1000,
            memory=used.peak_bytes / 1e6,
        )

    def _start(self, name: str) -> None:
        scratch = self.site.root / "servers" / name.replace(" ", "-")
        scratch.mkdir(parents=True)
        self._up[name] = self._stack.enter_context(SERVERS[name](self.site, scratch))

    def _write_constants(self) -> None:
        directory = self.site.root / "constant"
        directory.mkdir()
        for question in self.questions:
            request = OURS.request(self.site, question, self.site.users[0])
            (directory / question.name).write_bytes(request.ask(self.server(OURS).port))

    def _rows(self, peer: Peer, question: Question, user: int, columns: dict[str, str]) -> list[Row]:
        """The peer's answer, and how long it took where that is less than before. Raises Different."""
        request = peer.request(self.site, question, user)
        port = self.server(peer).port
        try:
            self._serial += 1
            begun = time.perf_counter()
            body = request.ask(port, self._serial)
            took = time.perf_counter() - begun
            rows = canonical(peer.rows(question, body), columns)
        except (Refused, ValueError) as error:
            raise Different(f"{peer.name} has no answer to {question.name} of user {user}: {error}") from error
        self._alone[peer.name, question.name] = min(took, self._alone.get((peer.name, question.name), took))
        return rows

    def _columns(self, question: Question) -> dict[str, str]:
        request = OURS.request(self.site, replace(question, arrow=False), self.site.users[0])
        return OURS.columns(request.ask(self.server(OURS).port))
