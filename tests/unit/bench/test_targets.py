from tests.bench.figures import Spread
from tests.bench.report import markdown
from tests.bench.results import Results
from tests.bench.targets import BESIDE_A_BUILD, Calm, Target

from .cells import cell, rates

TWENTY = Target(("ours", "Q1"), (("plan", "Q1"),), 20)


def test_a_target_is_met_by_the_median_of_the_rounds():
    found = TWENTY.measured(rates(ours=[190, 200, 900], plan=[10, 10, 10]))
    assert found == Spread(20, 19, 90)
    assert TWENTY.met(found)
    assert not TWENTY.met(TWENTY.measured(rates(ours=[190, 199, 900], plan=[10, 10, 10])))


def test_against_several_the_fastest_of_them_counts():
    above_all = Target(("ours", "Q1"), (("plan", "Q1"), ("polars", "Q1")), 1)
    found = above_all.measured(rates(ours=[100], plan=[10], polars=[125]))
    assert found == Spread(0.8, 0.8, 0.8)
    assert not above_all.met(found)


def test_a_target_of_which_something_was_not_measured_has_no_verdict():
    above_all = Target(("ours", "Q1"), (("plan", "Q1"), ("polars", "Q1")), 1)
    assert above_all.measured(rates(ours=[100], plan=[10])) is None
    assert TWENTY.measured(rates(plan=[10])) is None


def test_arrow_is_held_against_the_json_of_who_has_no_arrow():
    target = Target(("ours", "Q5 Arrow"), (("plan", "Q5"),), 120)
    results = Results({}, [cell("ours", "Q5 Arrow", rate=130.0), cell("plan", "Q5", rate=1.0)])
    assert target.measured(results).median == 130


def test_calm_is_when_the_slowest_hundredth_takes_no_more_than_three_times_the_median():
    calm = Calm("ours", "Q1")
    of_a_crowd = Results({}, [cell("ours", connections=32, p50=10.0, p99=31.0)])
    assert not calm.met(calm.measured(of_a_crowd))
    assert calm.met(Spread.of([3.0]))
    assert calm.measured(Results({}, [cell("ours", connections=8)])) is None


def test_the_report_has_each_verdict():
    results = rates(ours=[250], plan=[10], ROAPI=[200])
    results.building = {"p99 ratio": 1.5, "rate ratio": 0.4, "visible seconds": 0.2}
    lines = markdown(results).splitlines()
    assert "| ours, Q1: at least 20 times plan | 25 (25..25) | met |" in lines
    assert "| ours, Q1: at least 2 times ROAPI | 1.25 (1.25..1.25) | **not met** |" in lines
    assert "| ours, Q1: at least 1 times polars | - | not measured |" in lines
    assert [line.split(" | ")[-1] for line in lines if any(target.text in line for target in BESIDE_A_BUILD)] == [
        "met |",
        "**not met** |",
        "met |",
    ]
    assert "| ours | 250 (250..250) | 25 (25..25) | 1 | 2 | 1 | 50 |" in lines
