"""The runbook is one that can be followed; tests/e2e/test_rollout.py follows it."""

import re

import pytest

from tests.e2e.rollout.operator import RUNBOOK, instructions, missing

FIELDS = ("Preconditions", "Stop if", "Roll back with", "Point of no return", "Took")
STEPS = re.findall(
    r"^### (\d+)\. [^\n]+\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_steps_are_numbered_in_order():
    assert [int(number) for number, _ in STEPS] == list(range(1, 11))


@pytest.mark.parametrize(("number", "text"), STEPS, ids=[number for number, _ in STEPS])
def test_each_step_says_all_that_an_operator_has_to_know(number, text):
    assert [field for field in FIELDS if f"- **{field}:** " not in text] == []
    assert "```bash\n" in text
    assert "```text\n" in text


def test_all_commands_are_found_each_with_what_it_prints():
    found = instructions()
    assert len(found) == len(STEPS) + 1, "one step has two commands"
    assert [(i.part, i.command) for i in found if "promote" in i.command or "rollback" in i.command] == [
        ("Up", "make promote PHASE=1"),
        ("Up", "make promote PHASE=2"),
        ("Down", "make rollback"),
        ("Down", "make rollback"),
    ]
    assert all(i.expected for i in found if not i.command.startswith("make preflight PHASE=2"))


@pytest.mark.parametrize(
    ("expected", "absent"),
    [
        (("one", "three"), None),
        (("o…e two",), None),
        (("… two", "three"), None),
        (("three", "one"), "one"),
        (("two",), "two"),
        (("one  two 3",), "one  two 3"),
        (("one.two",), "one.two"),
    ],
)
def test_lines_are_found_in_their_order_and_by_their_beginning(expected, absent):
    assert missing(expected, " one   two\n\nthree four\n") == absent
