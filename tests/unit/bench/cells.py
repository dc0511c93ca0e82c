"""Made-up results."""

from tests.bench.results import Cell, Results


def cell(peer, question="Q1", connections=8, turn=0, **figures):
    known = {"answers": 100, "rate": 100.0, "p50": 1.0, "p99": 2.0, "cpu": 1.0, "memory": 50.0}
    return Cell(peer, question, connections, turn, **(known | figures))


def rates(**of_peers):
    """Q1 of each peer, a round for each of its rates."""
    return Results(
        {"date": "a day", "commit": "abc"},
        [
            cell(peer.replace("__", ", "), rate=float(rate), turn=turn)
            for peer, found in of_peers.items()
            for turn, rate in enumerate(found)
        ],
    )
