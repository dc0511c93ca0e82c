"""The guide can be followed: up to step 9 here, the rest in tests/e2e (test_adopted.py, test_takeover.py)."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from backend.snapshots import SnapshotStore
from tests import serving
from tests.e2e.rollout.operator import missing

from .guide import STEPS, Reader, block
from .shop import copied


@pytest.fixture(scope="module")
def shop(installed, tmp_path_factory):
    """Whose owner has built it once, and has no packages in this clone."""
    shop = copied(installed, tmp_path_factory.mktemp("guide"))
    (shop.project / "dbt_packages" / "house_style").unlink()
    return shop


@pytest.fixture(scope="module")
def reader(shop):
    environment = {
        "STATE": str(shop.root / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COMPOSE_PROJECT_NAME": "no-such-project",  # what the targets act on is the state above
    }
    return Reader(shop.root, shop.root / "secrets", environment)


@pytest.fixture(scope="module")
def followed(reader, shop):
    """Steps 1 to 8: what was printed; the owner's database is as it was."""
    before = shop.database.read_bytes()
    printed = {number: reader.follow(number) for number in range(1, 9)}
    assert shop.database.read_bytes() == before
    return printed


def test_steps_are_ten_and_each_says_what_one_has_to_know():
    assert list(STEPS) == [*map(str, range(1, 11)), "A", "B", "C", "D"]
    for number, text in STEPS.items():
        assert [f for f in ("Preconditions", "Stop if", "Roll back with") if f"- **{f}:** " not in text] == [], number
        assert block(number, "bash"), number


def test_without_its_packages_a_project_is_refused_in_words_that_lead_to_step_3(reader, shop):
    fresh = Reader(reader.shop, reader.shop / "hasty", reader.environment)
    for number in (1, 2):
        fresh.run(number)
    refused = fresh.run(4)
    assert refused.returncode != 0
    assert "dbt deps" in refused.stdout


def test_steps_1_to_8_do_what_they_say(followed, shop):
    store = SnapshotStore(shop.root / "state" / "parquet")
    oldest, newest = store.ids()
    assert f"Serving snapshot {oldest}" in followed[8]
    assert store.current_id() == oldest
    assert f"* {newest}" in followed[7]


def test_step_9_serves_what_was_built(followed, reader, tmp_path):
    assert block(9, "bash") == "make demo\n"
    exported = dict(shlex.split(line)[1].split("=", 1) for line in reader.exported)
    with serving.demo({**reader.variables, **exported}, tmp_path / "log") as (port, printed):
        expected = block(9, "text").replace("8000", str(port)).splitlines()
        assert missing(expected, printed) is None, printed
