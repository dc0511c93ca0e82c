from tests.bench import baseline
from tests.bench.results import Results

from .cells import rates

FIVE = [10, 10, 10, 10, 10]
OURS = [200, 210, 190, 200, 205]
CACHED = [1000, 1010, 990, 1000, 1005]
THEN = rates(ours=OURS, plan=FIVE, ours__cached=CACHED, constant=OURS)


def told(now, then=THEN):
    return [line for line in baseline.text(then, now).splitlines() if line.startswith("- ")]


def times(factor, found):
    return [factor * value for value in found]


def test_a_slower_machine_is_no_change():
    now = {"ours": OURS, "plan": FIVE, "ours__cached": CACHED, "constant": OURS}
    assert told(rates(**{peer: times(0.5, found) for peer, found in now.items()})) == ["- nothing changed beyond noise"]


def test_a_change_beyond_every_round_is_told():
    faster = rates(ours=times(1.5, OURS), plan=FIVE, ours__cached=CACHED, constant=OURS)
    assert told(faster) == ["- ours, Q1: requests/s 1.50 times what it was"]
    slower = rates(ours=OURS, plan=FIVE, ours__cached=times(0.5, CACHED), constant=OURS)
    assert told(slower) == ["- ours, cached, Q1: requests/s 0.50 times what it was"]


def test_rounds_that_overlap_are_no_change():
    assert told(rates(ours=[205, 300, 290, 310, 300], plan=FIVE)) == ["- nothing changed beyond noise"]


def test_of_a_few_rounds_nothing_is_told_however_far_they_are_apart():
    now = rates(ours=[400, 400, 400, 400], plan=[10, 10, 10, 10])
    assert told(now) == told(THEN, then=now) == ["- nothing can be told of fewer than 5 rounds of each"]


def test_a_trifle_is_no_change_however_sure():
    steady = [200, 200, 200, 200, 200]
    now = rates(ours=times(1.03, steady), plan=FIVE)
    assert told(now, then=rates(ours=steady, plan=FIVE)) == ["- nothing changed beyond noise"]


def test_results_are_read_as_they_were_written(tmp_path):
    THEN.write(tmp_path / "saved" / "baseline.json")
    assert Results.read(tmp_path / "saved" / "baseline.json") == THEN
