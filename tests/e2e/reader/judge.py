"""Judges answers in full, in a process of its own, so that judging does not slow down those who read."""

from __future__ import annotations

import functools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from multiprocessing import get_context
from typing import Any

from . import checks
from .oracle import HostDirectory, InContainer, Oracle, answers_as_published
from .queries import KEYS, Read


@dataclass(frozen=True)
class Verdict:
    """What is wrong with an answer, and what the next request needs to know of it."""

    violations: tuple[str, ...]
    snapshot: str | None = None
    next: str | None = None
    keys: tuple[tuple[Any, ...], ...] = ()


class Judge:
    """``constant`` is the sum of all balances; without a ``source`` answers are judged by themselves alone."""

    def __init__(self, source: HostDirectory | InContainer | None, constant: Decimal | None) -> None:
        self._oracle = Oracle(source) if source else None
        self._constant = constant

    def judge(self, read: Read, header: str | None, body: bytes) -> Verdict:
        try:
            answer = checks.parse(body)
            return self._judged(read, header, answer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Verdict((f"not an answer of this API: {type(error).__name__}: {error}: {body[:200]!r}",))

    def _judged(self, read: Read, header: str | None, answer: dict[str, Any]) -> Verdict:
        found = []
        snapshot = header if read.kind == "dataset" else answer["snapshot"]
        if read.kind != "dataset":
            found += checks.one_snapshot(header, answer)
        results = {"batch": lambda: answer["results"], "rows": lambda: [answer], "page": lambda: [answer]}
        if read.kind in results:
            for result in results[read.kind]():
                found += checks.whole(result, read.user)
        if read.kind == "batch":
            found += checks.batch_agrees(read.batch, answer["results"], self._constant)
        if self._oracle:
            found += answers_as_published(self._oracle, read, snapshot, answer)
        if read.kind != "page":
            return Verdict(tuple(found), snapshot)
        names = KEYS[read.queries[0].dataset]
        keys = tuple(tuple(row[name] for name in names) for row in answer["rows"])
        return Verdict(tuple(found), snapshot, answer["next"], keys)


@functools.lru_cache(maxsize=2)
def _judge(source: HostDirectory | InContainer | None, constant: Decimal | None) -> Judge:
    return Judge(source, constant)


def _judged(source: HostDirectory | InContainer | None, constant: Decimal | None, *answer: Any) -> Verdict:
    return _judge(source, constant).judge(*answer)


@functools.cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def ready() -> None:
    """Wait until the process that judges has started: before anything is measured."""
    _process().submit(int).result()


def judged(
    source: HostDirectory | InContainer | None, constant: Decimal | None, read: Read, header: str | None, body: bytes
) -> Verdict:
    """The verdict, from the process that judges."""
    return _process().submit(_judged, source, constant, read, header, body).result()
