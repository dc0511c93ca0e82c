"""What the process that builds is told and tells survives the files in between."""

import json

import pytest

from backend.audit import Written
from backend.errors import BuildFailed
from deploy.pipeline.adopted.export import Relation
from deploy.pipeline.adopted.plan import Plan


@pytest.fixture
def plan(tmp_path):
    relation = Relation("Sales", "shop", "main_finance", "Sales", False, "customer_no")
    return Plan(
        ["build", "--select", "fqn:a.b+"],
        [relation],
        tmp_path / "m",
        tmp_path / "e",
        tmp_path / "result",
        tmp_path / "t",
    )


def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


def test_what_was_written_is_told(plan):
    plan.result.write_text(json.dumps({"written": {"Sales": {"fingerprint": "1:2", "sha256": "ab"}}}))
    assert plan.written() == {"Sales": Written("1:2", "ab")}


def test_an_export_that_failed_fails_the_build_with_its_words(plan):
    plan.result.write_text(json.dumps({"failure": ["exporting the mart Sales failed", "cast it"]}))
    with pytest.raises(BuildFailed, match="exporting the mart Sales failed") as caught:
        plan.written()
    assert caught.value.hint == "cast it"
