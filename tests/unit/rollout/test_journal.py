import json

import pytest

from deploy.rollout.journal import Journal


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "somewhere" / "journal.jsonl")


def move(journal, *events):
    for step, event in events:
        journal.write("promote", 1, 2, step, event)


def test_each_line_says_who_did_what_when_with_which_result(journal):
    journal.write("promote", 0, 1, "seed", "done", result="all is there", seconds=1.5)
    (line,) = journal.path.read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("at").endswith("Z")
    assert "@" in entry.pop("who")
    assert entry == {
        "command": "promote", "origin": 0, "target": 1, "step": "seed", "event": "done", "result": "all is there",
        "seconds": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("events", "unfinished"),
    [
        ([], None),
        ([("", "started")], (1, 2)),
        ([("", "started"), ("seed", "started")], (1, 2)),
        ([("", "started"), ("seed", "started"), ("seed", "done"), ("", "done")], None),
        ([("", "started"), ("seed", "started"), ("seed", "failed"), ("", "undone")], None),
        ([("", "started"), ("seed", "failed"), ("", "failed")], (1, 2)),
        ([("", "done"), ("", "started")], (1, 2)),
    ],
)
def test_a_move_that_neither_ended_nor_was_undone_is_unfinished(journal, events, unfinished):
    move(journal, *events)
    assert journal.unfinished() == unfinished


def test_a_line_that_was_cut_off_costs_neither_those_before_nor_those_after(journal):
    move(journal, ("", "started"))
    with journal.path.open("a") as file:
        file.write('{"at": "2026-')
    move(journal, ("", "done"))
    assert [entry.event for entry in journal.entries()] == ["started", "done"]
