from tests.bench import baseline
from tests.bench.results import Results

from .cells import rates

THEN = rates(ours=[200, 210, 190], plan=[10, 10, 10], ours__cached=[1000, 1010, 990], constant=[2000, 2000, 2000])


def told(now):
    return [line for line in baseline.text(THEN, now).splitlines() if line.startswith("- ")]


def test_a_slower_machine_is_no_change():
    now = rates(ours=[100, 105, 95], plan=[5, 5, 5], ours__cached=[500, 505, 495], constant=[1000, 1000, 1000])
    assert told(now) == ["- nothing changed beyond noise"]


def test_a_change_beyond_every_round_is_told():
    now = rates(ours=[300, 310, 290], plan=[10, 10, 10], ours__cached=[1000, 1010, 990], constant=[2000, 2000, 2000])
    assert told(now) == ["- ours, Q1: requests/s 1.50 times what it was"]
    slower = rates(ours=[200, 210, 190], plan=[10, 10, 10], ours__cached=[500, 505, 495], constant=[2000, 2000, 2000])
    assert told(slower) == ["- ours, cached, Q1: requests/s 0.50 times what it was"]


def test_rounds_that_overlap_are_no_change():
    now = rates(ours=[205, 300, 290], plan=[10, 10, 10])
    assert told(now) == ["- nothing changed beyond noise"]


def test_a_trifle_is_no_change_however_sure():
    then = rates(ours=[200, 200, 200], plan=[10, 10, 10])
    now = rates(ours=[206, 206, 206], plan=[10, 10, 10])
    assert not any(change.certain for change in baseline.changes(then, now))


def test_results_are_read_as_they_were_written(tmp_path):
    THEN.write(tmp_path / "saved" / "baseline.json")
    assert Results.read(tmp_path / "saved" / "baseline.json") == THEN
