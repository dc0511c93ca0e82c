"""Each fault of the store layer at least once, and the control arm; ``make chaos`` injects each many times."""

import pytest

from tests.chaos import matrix


@pytest.fixture(scope="session")
def sites():
    sites = matrix.Sites()
    yield sites
    sites.close()


JOBS = [*matrix.jobs("store", fast=True), *matrix.jobs("control", fast=True)]


@pytest.mark.parametrize(("fault", "turn"), JOBS, ids=[f"{fault.name} #{turn}" for fault, turn in JOBS])
def test_no_fault_changes_what_is_served(sites, fault, turn):
    record = sites.inject(fault, seed=1, turn=turn)
    assert record.fine, record
