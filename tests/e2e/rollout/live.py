"""A live stack whose rollout is tested: clients read through the gateway, and traffic writes to the source."""

from contextlib import contextmanager
from dataclasses import replace

from tests.e2e.reader.clients import Readers
from tests.e2e.reader.meanwhile import target, traffic
from tests.e2e.reader.queries import ALL_ROWS, BATCHES, SINGLE, WALKS, Read
from tests.e2e.stack import RUN_SECONDS, wait_for

CLIENTS, PACE_SECONDS = 14, 0.25  # 50 requests a second and more, wherever an answer takes less than 30 milliseconds
IDLE_READS = 300


def light_round(user, chance):
    """One of everything, in an order of its own: many small requests rather than few large ones."""
    batch = "the bank's books" if user == ALL_ROWS else "one user's books"
    walks = () if user == ALL_ROWS else WALKS["one user"]
    reads = [
        Read("listing", user),
        Read("dataset", user, (SINGLE[0],)),
        *(Read("rows", user, (query,)) for query in SINGLE),
        Read("batch", user, BATCHES[batch], batch),
        *(Read("page", user, (query,)) for query in walks),
    ]
    chance.shuffle(reads)
    return iter(reads)


@contextmanager
def readers_through(stack):
    """Clients whose every answer is judged by itself: no phase or store is known to them."""
    asked = replace(target(stack), source=None, across_phases=True)
    with traffic(stack), Readers(asked, clients=CLIENTS, pace=PACE_SECONDS, rounds=light_round) as readers:
        yield readers


def more_reads(readers, reads=IDLE_READS):
    enough = readers.findings.reads.total() + reads
    wait_for(lambda: readers.findings.reads.total() >= enough, f"{reads} more reads", seconds=600)


def assert_kept(readers):
    """No request failed, and no answer was wrong."""
    findings = readers.findings
    assert (findings.failed, findings.violated) == (0, 0), "\n".join(findings.examples)


def settled(stack):
    """Nothing builds by itself any more: in phase 0 a build locks the API out."""
    stack.stop_schedule()
    wait_for(lambda: stack.unfinished_runs() == 0, "the first run has ended", seconds=RUN_SECONDS, every=1)
    return stack
