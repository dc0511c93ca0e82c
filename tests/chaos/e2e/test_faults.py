"""A few faults of the real dbt and of the real stack; ``make chaos`` injects all of them, several times."""

import pytest

from tests.chaos import matrix

JOBS = [*matrix.jobs("dbt", fast=True), *matrix.jobs("containers", fast=True)]


@pytest.mark.parametrize(("fault", "turn"), JOBS, ids=[f"{fault.name} #{turn}" for fault, turn in JOBS])
def test_no_fault_changes_what_is_served(sites, fault, turn):
    record = sites.inject(fault, seed=1, turn=turn)
    assert record.fine, record
