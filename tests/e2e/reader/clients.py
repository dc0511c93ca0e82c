"""Clients that read an API at the same time and have every answer judged."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

import httpx

from . import checks, judge
from .oracle import HostDirectory, InContainer
from .queries import ALL_ROWS, BATCHES, SINGLE, WALKS, Query, Read

USERS = (1, 2, 3, 4, ALL_ROWS, ALL_ROWS)
KINDS = ("listing", "dataset", "rows", "batch", "page")
_EXAMPLES = 20
_VERDICTS = 2_000  # kept, of answers that came byte for byte


@dataclass(frozen=True)
class Target:
    """An API to read: tokens by user, and where its snapshots can be copied from, if it has any."""

    url: str
    tokens: Mapping[int, str]
    source: HostDirectory | InContainer | None
    constant: Decimal | None = None
    timeout: float = 30  # seconds; no answer by then is a failed read
    # Between phases 0 and 1 a cursor ends, because a file has no snapshot, and the API says so: 410.
    across_phases: bool = False


@dataclass
class Rollback:
    """Announced before it began; seen when the first answer from its target was there."""

    target: str
    began: float = field(default_factory=time.monotonic)
    seen: float | None = None

    def answered(self, snapshot: str | None, timing: Timing) -> None:
        # One that was asked before may be of the target too, from when that was served the last time.
        if snapshot == self.target and timing.at - timing.seconds > self.began:
            self.seen = min(timing.at, self.seen or timing.at)

    @property
    def seconds(self) -> float | None:
        return self.seen - self.began if self.seen else None


@dataclass(frozen=True)
class Timing:
    """When an answer was there, and the seconds it took."""

    at: float
    seconds: float


class Findings:
    """What all clients found, so far; safe to add to from many threads."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.failed = 0
        self.violated = 0
        self.examples: list[str] = []
        self.snapshots: dict[str | None, float] = {}
        self.walks_across_a_publish = 0
        self.walks_ended: list[tuple[float, str | None]] = []  # across phases: when a cursor ended, and its snapshot
        self.rollbacks: list[Rollback] = []
        self.timings: list[Timing] = []
        self._lock = threading.Lock()

    def failure(self, read: Read, what: str) -> None:
        with self._lock:
            self.failed += 1
            self._example(f"FAILED {read.name}: {what}")

    def violations(self, read: Read, found: Iterator[str] | tuple[str, ...]) -> None:
        for what in found:
            with self._lock:
                self.violated += 1
                self._example(f"VIOLATION {read.name}: {what}")

    def answered(self, read: Read, snapshot: str | None, timing: Timing) -> None:
        with self._lock:
            self.reads[read.kind] += 1
            self.timings.append(timing)
            self.snapshots.setdefault(snapshot, timing.at)
            if read.cursor is None and self.rollbacks:
                self.rollbacks[-1].answered(snapshot, timing)

    def announce_rollback(self, target: str) -> Rollback:
        with self._lock:
            self.rollbacks.append(Rollback(target))
            return self.rollbacks[-1]

    def walked_across(self) -> None:
        with self._lock:
            self.walks_across_a_publish += 1

    def _example(self, text: str) -> None:
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text[:1_000])


Round = Callable[[int, random.Random], Iterator[Read]]


class Readers:
    """``clients`` threads that read ``target`` from entering the block to leaving it, ``pace`` seconds between reads.

    The last of them reads pages so slowly that a snapshot is published between two of them. ``rounds`` makes what each
    of the others asks again and again.
    """

    def __init__(self, target: Target, *, clients: int = 9, pace: float = 0.1, rounds: Round | None = None) -> None:
        self.target = target
        self._round = rounds or repertoire
        self.findings = Findings()
        self._pace = pace
        self._done = threading.Event()
        self._verdicts: OrderedDict[tuple[Read, bytes], judge.Verdict] = OrderedDict()
        self._threads = [
            threading.Thread(target=self._run, args=(self._read_slowly if i == clients else self._read, i), daemon=True)
            for i in range(1, clients + 1)
        ]

    def __enter__(self) -> Readers:
        judge.ready()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - a client that gave up has not found that all is well
            self.findings.violations(Read("client", number), (f"gave up: {type(error).__name__}: {error}",))

    def _read(self, number: int) -> None:
        chance = random.Random(number)
        user = USERS[number % len(USERS)]
        client = Client(self, user)
        while not self._done.is_set():
            for read in self._round(user, chance):
                client.walk(read) if read.kind == "page" else client.ask(read)
                if self._done.wait(self._pace):
                    break
        client.close()

    def _read_slowly(self, _: int) -> None:
        client = Client(self, ALL_ROWS)
        while not self._done.is_set():
            for query in WALKS["all rows"]:
                if client.walk(Read("page", ALL_ROWS, (query,)), pause=self._until_published):
                    self.findings.walked_across()
        client.close()

    def _until_published(self) -> bool:
        known = len(self.findings.snapshots)
        while not self._done.wait(0.1):
            if len(self.findings.snapshots) > known:
                return True
        return False

    def judged(self, read: Read, answer: httpx.Response) -> judge.Verdict:
        """Of the same bytes the same verdict."""
        header = answer.headers.get("X-Snapshot-Id")
        key = (read, hashlib.blake2b(f"{header} ".encode() + answer.content, digest_size=16).digest())
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = judge.judged(self.target.source, self.target.constant, read, header, answer.content)
            self._verdicts[key] = verdict
            if len(self._verdicts) > _VERDICTS:
                self._verdicts.popitem(last=False)
        return verdict

    @property
    def done(self) -> bool:
        return self._done.is_set()


class Client:
    """One user's connection."""

    def __init__(self, readers: Readers, user: int) -> None:
        self._readers = readers
        self._findings = readers.findings
        self._walking_on: str | None = None
        self._clock = checks.Clock(across_phases=readers.target.across_phases)
        self._http = httpx.Client(
            base_url=readers.target.url,
            headers={"Authorization": f"Bearer {readers.target.tokens[user]}"},
            timeout=readers.target.timeout,
        )

    def close(self) -> None:
        self._http.close()

    def ask(self, read: Read) -> judge.Verdict | None:
        """The verdict on the answer; None when there was none to judge."""
        method, path, params, body = read.request()
        began = time.monotonic()
        try:
            answer = self._http.request(method, path, params=params, json=body)
        except httpx.HTTPError as error:
            self._findings.failure(read, f"{type(error).__name__}: {error}")
            return None
        ended = time.monotonic()
        if answer.status_code == httpx.codes.GONE and read.cursor and self._readers.target.across_phases:
            self._findings.walks_ended.append((ended, self._walking_on))
            return None
        if answer.status_code != httpx.codes.OK:
            self._findings.failure(read, f"{answer.status_code} {answer.text[:300]}")
            return None
        announced = [rollback.target for rollback in self._findings.rollbacks]
        verdict = self._readers.judged(read, answer)
        self._findings.answered(read, verdict.snapshot, Timing(ended, ended - began))
        self._findings.violations(read, verdict.violations)
        if read.cursor is None:
            self._findings.violations(read, self._clock.saw(verdict.snapshot, announced))
        return verdict

    def walk(self, first: Read, pause: Callable[[], bool] = lambda: True) -> bool:
        """All pages, and whether they came; ``pause`` after the first says whether to go on."""
        read, pages = first, []
        while True:
            verdict = self.ask(read)
            if verdict is None:
                return False
            pages.append((verdict.snapshot, verdict.keys))
            self._walking_on = verdict.snapshot
            if verdict.next is None:
                break
            if self._readers.done or (len(pages) == 1 and not pause()):
                return False
            (query,) = read.queries
            after = replace(query, offset=query.offset + query.limit)
            read = replace(read, queries=(after,), cursor=verdict.next)
        self._findings.violations(first, checks.one_walk(pages))
        return True


def repertoire(user: int, chance: random.Random) -> Iterator[Read]:
    """One round of everything that a client asks, in an order of its own."""
    batch, walks, rounds = (
        ("the bank's books", WALKS["all rows"][:2], 3)
        if user == ALL_ROWS
        else ("one user's books", WALKS["one user"], 2)
    )
    light = [
        Read("listing", user),
        *(Read("dataset", user, (Query(name),)) for name in ("fct_transactions", "dim_users", "agg_daily_balance")),
        *(Read("rows", user, (query,)) for query in SINGLE),
        *[Read("batch", user, BATCHES[batch], batch)] * 3,
    ]
    reads = light * rounds + [Read("page", user, (query,)) for query in walks]
    chance.shuffle(reads)
    return iter(reads)
