"""Which move is due, by what runs and what the journal says was left unfinished."""

from types import SimpleNamespace

import pytest

from deploy.rollout import preflight
from deploy.rollout.engine import Container
from deploy.rollout.phases import BACKEND, DAEMON, WEBSERVER
from deploy.rollout.rollout import Refused, promotion, way_back
from deploy.rollout.settings import RolloutSettings
from deploy.rollout.site import Observed


def containers(service, *phases):
    """One for each phase; ``~`` before a phase is one that was stopped."""
    for phase in phases:
        stopped = str(phase).startswith("~")
        yield Container(
            id=f"{service}-{phase}",
            name=f"{service}-{phase}",
            service=service,
            phase=int(str(phase).lstrip("~")),
            state="exited" if stopped else "running",
            health="" if stopped else "healthy",
            exit_code=0,
            mounts=(),
            ports={},
        )


def site(backends, daemons, webservers=None, *, unfinished=None):
    running = [
        *containers(BACKEND, *backends),
        *containers(DAEMON, *daemons),
        *containers(WEBSERVER, *(webservers or [str(daemons[0]).lstrip("~")] if daemons else [])),
    ]
    return SimpleNamespace(
        observe=lambda: Observed(running),
        journal=SimpleNamespace(unfinished=lambda: unfinished),
        settings=RolloutSettings(),
        storage=lambda phase: f"storage of phase {phase}",
    )


def names(move):
    return [step.name for step in move.steps()]


SWITCH = ["start-backend", "retire-backend", "resume-builds", "confirm"]


@pytest.mark.parametrize(
    ("here", "target", "way"),
    [
        (site([0], [0]), 1, (0, 1)),
        (site([1], [1]), 2, (1, 2)),
        (site([1], ["~1"], unfinished=(1, 2)), 2, (1, 2)),
        (site([1, 2], ["~1"], unfinished=(1, 2)), 2, (1, 2)),
        (site([2], [2], unfinished=(1, 2)), 2, (1, 2)),
        (site([1], [1], unfinished=(2, 1)), 2, (1, 2)),
    ],
)
def test_a_promotion_starts_one_phase_below_or_goes_on(here, target, way):
    move = promotion(here, target)
    assert (move.origin, move.target) == way


def test_there_is_nothing_to_do_where_all_of_the_phase_is_there():
    assert promotion(site([2], [2]), 2) is None


@pytest.mark.parametrize(
    ("here", "target"), [(site([0], [0]), 2), (site([2], [2]), 1), (site([], [1]), 2), (site([], []), 1)]
)
def test_a_promotion_that_skips_a_phase_or_goes_down_is_refused(here, target):
    with pytest.raises(Refused, match=f"phase {target - 1}"):
        promotion(here, target)


@pytest.mark.parametrize(
    ("here", "way"),
    [
        (site([2], [2]), (2, 1)),
        (site([1], [1]), (1, 0)),
        (site([1], [1], unfinished=(1, 2)), (2, 1)),
        (site([1, 2], ["~1"], unfinished=(1, 2)), (2, 1)),
        (site([2], ["~1"], unfinished=(1, 2)), (2, 1)),
        (site([0], ["~0"], unfinished=(0, 1)), (1, 0)),
        (site([2], ["~2"], unfinished=(2, 1)), (2, 1)),
        (site([2], ["~1"]), (2, 1)),
        (site([1, 2], ["~1"]), (2, 1)),
    ],
)
def test_the_way_back_is_one_phase_down_or_out_of_the_middle_of_a_move(here, way):
    move = way_back(here)
    assert (move.origin, move.target) == way


@pytest.mark.parametrize("here", [site([0], [0]), site([], [1]), site([], [])])
def test_there_is_no_way_back_from_phase_0_or_from_nothing(here):
    with pytest.raises(Refused, match="nothing to roll back"):
        way_back(here)


def test_the_marts_are_brought_before_a_backend_that_needs_them():
    assert names(promotion(site([0], [0]), 1)) == [
        "storage", "rehearse", "pause-builds", "first-snapshot", "compare", *SWITCH,
    ]  # fmt: skip
    assert names(promotion(site([1], [1]), 2)) == [
        "storage", "seed", "rehearse", "pause-builds", "catch-up", "compare", *SWITCH,
    ]  # fmt: skip
    assert names(way_back(site([1], [1])))[3] == "refresh-file"


def test_where_the_target_serves_and_the_origin_builds_no_more_the_marts_stay_where_they_are():
    # Halfway up: phase 2 was seeded, and phase 1 may have published since. Going back must not bring the older ones.
    assert names(way_back(site([1], ["~1"], unfinished=(1, 2)))) == SWITCH
    assert names(way_back(site([1, 2], ["~1"], unfinished=(1, 2)))) == SWITCH
    assert names(promotion(site([1, 2], ["~1"], unfinished=(1, 2)), 2)) == SWITCH
    # But while the origin's builds may publish, what the target has may be out of date.
    assert names(promotion(site([1, 2], [1]), 2))[:2] == ["storage", "seed"]


@pytest.mark.parametrize(
    ("here", "verdict"),
    [
        (site([1], [1]), "ok"),
        (site([1], ["~1"], unfinished=(1, 2)), "ok"),
        (site([1, 2], ["~1"], unfinished=(1, 2)), "ok"),
        (site([2], [2], unfinished=(1, 2)), "ok"),
        (site([1], ["~1"]), "failed"),
        (site([1, 2], [1]), "failed"),
        (site([0], [0]), "failed"),
        (site([], [1], unfinished=(1, 2)), "failed"),
    ],
)
def test_preflight_wants_all_of_the_phase_before_or_a_move_that_was_interrupted(here, verdict):
    (check,) = [check for check in preflight._CHECKS if check.name == "phase"]
    assert preflight._made(check, here, 2).verdict == verdict
