from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import Spread, percentile, uncorrected


def corrected(latencies, interval):
    """As wrk 4.1 adds what a slow answer is said to have kept from being sent."""
    counts = Counter(latencies)
    for latency in range(2 * interval, max(counts) + 1):
        added = latency - interval
        while counts[latency] and added > interval:
            counts[added] += counts[latency]
            added -= interval
    return counts


@given(
    st.dictionaries(st.integers(1, 400), st.integers(1, 5), min_size=1).map(Counter),
    st.integers(1, 100),
)
def test_what_wrk_adds_to_its_latencies_is_taken_away_again(measured, interval):
    reported = corrected(measured, interval)
    assert uncorrected(reported.items(), interval) == measured


def test_wrk_adds_something_to_begin_with():
    assert corrected(Counter({10: 9, 100: 1}), 10).total() > 10


def test_a_percentile_is_a_latency_that_occurred_and_that_share_was_not_slower():
    hundred = Counter(range(1, 101))
    assert [percentile(hundred, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile(Counter({5: 3, 7: 1}), 0.5) == 5
    assert percentile(Counter({5: 3, 7: 1}), 0.99) == 7
    assert percentile(Counter({4: 1}), 0.01) == 4


def test_no_latencies_have_no_percentile():
    with pytest.raises(ValueError, match="no latencies"):
        percentile(Counter(), 0.5)


def test_a_spread_is_the_median_and_how_far_rounds_are_apart():
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([1, 2]) == Spread(1.5, 1, 2)


def test_a_ratio_is_taken_round_by_round():
    # Both were halved by the same busy minute: the ratio is not.
    assert Spread.of_ratios([100, 50, 100], [10, 5, 10]) == Spread(10, 10, 10)


def test_rounds_that_do_not_match_have_no_ratio():
    with pytest.raises(ValueError, match="zip"):
        Spread.of_ratios([1, 2], [1])


def test_two_spreads_are_apart_only_when_no_round_of_one_is_among_those_of_the_other():
    assert Spread(5, 4, 6).apart(Spread(8, 7, 9))
    assert Spread(8, 7, 9).apart(Spread(5, 4, 6))
    assert not Spread(5, 4, 7).apart(Spread(8, 7, 9))
