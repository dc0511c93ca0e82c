from collections import Counter

import pytest

from tests.bench.load import Load, LoadFailed, judged

# Eight connections for a second: a hundred answers, and eight requests under way when it ended.
GOOD = {
    "microseconds": 1_000_000,
    "answers": 100,
    "sent": 108,
    "latencies": [[50_000, 60], [90_000, 40]],
    **dict.fromkeys(("unexpected", "connect", "read", "write", "timeout"), 0),
}


def test_a_load_that_went_well_is_what_wrk_counted():
    load = judged(GOOD, 8)
    assert (load.answers, load.rate, load.milliseconds(0.5), load.milliseconds(0.99)) == (
        100,
        pytest.approx(119, 1),
        50,
        90,
    )


@pytest.mark.parametrize("kind", ["unexpected", "connect", "read", "write", "timeout"])
def test_one_failed_request_makes_the_load_fail(kind):
    with pytest.raises(LoadFailed, match=rf"108 requests on 8 connections failed: 1 {kind}$"):
        judged({**GOOD, kind: 1}, 8)


def test_an_answer_that_was_broken_off_makes_the_load_fail():
    with pytest.raises(LoadFailed, match="1 never answered"):
        judged({**GOOD, "sent": 109}, 8)


def test_a_load_without_an_answer_fails():
    with pytest.raises(LoadFailed, match=r"none of 8 requests was answered in 1\.0 s"):
        judged({**GOOD, "answers": 0, "sent": 8, "latencies": []}, 8)


def test_latencies_that_are_not_those_of_the_answers_make_the_load_fail():
    with pytest.raises(LoadFailed, match="99 latencies of 100 answers"):
        judged({**GOOD, "latencies": [[50_000, 60], [90_000, 39]]}, 8)


def test_many_answers_are_counted():
    assert Load(1, 2.0, 201, Counter({10_000: 200})).rate == 100


def test_the_rate_of_a_few_slow_answers_does_not_depend_on_when_the_last_one_ended():
    # All four connections got an answer after a second each, and a second one too late to be counted.
    assert Load(4, 1.9, 8, Counter({1_000_000: 4})).rate == 4
