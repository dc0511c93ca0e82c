import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from .shop import Shop, copied

FIRST = """
    INSERT INTO sales VALUES (5, '2', 'Bell', 1, 995, '2025-01-05 16:00');
    UPDATE customers SET city = 'Rome' WHERE customer_no = '1';
"""
SECOND = """
    INSERT INTO sales VALUES (6, 'guest', 'Bell', 1, 995, '2025-01-06 13:00');
    UPDATE customers SET city = 'Oslo' WHERE customer_no = '2';
"""
WRONG = "INSERT INTO sales VALUES (7, '1', 'Bell', -1, 995, '2025-01-07 08:00')"
RIGHT = "UPDATE sales SET pieces = 1, product = 'Horn' WHERE sale_no = 7"


@dataclass(frozen=True)
class History:
    """What a shop went through; ``facts`` by stage."""

    shop: Shop
    facts: dict

    @classmethod
    def of(cls, root):
        return cls(Shop(root), json.loads((root / "facts.json").read_text()))

    def snapshot(self, stage):
        return self.facts[stage]["snapshot"]


@pytest.fixture(scope="session")
def installed(once):
    """A shop whose owner has built everything once. Read only."""

    def make(root):
        shop = Shop(root)
        shop.open()
        shop.dbt("build")

    return Shop(once("shop_installed", make))


@pytest.fixture(scope="session")
def history(once, installed):
    """Adopted with a new sale, built again with one more, refused with a wrong one, then built in part."""

    def make(root):
        shop = copied(installed, root)
        facts = {}

        def note(stage, **more):
            facts[stage] = {"snapshot": shop.store.current_id(), "left": list(map(str, shop.left_over())), **more}

        shop.ring_up(FIRST)
        before = shop.hashes()
        said = shop.publish()
        note("first", said=said, untouched=shop.hashes() == before)
        shop.ring_up(SECOND)
        made = shop.run("make", "dbt")
        assert made.returncode == 0, made.stdout + made.stderr
        note("second", untouched=shop.hashes() == before)
        shop.ring_up(WRONG)
        result = shop.build()
        note("refused", code=result.returncode, said=result.stderr)
        shop.ring_up(RIGHT)
        shop.publish("--select", "turnover", "--select", "marks")
        note("partial", untouched=shop.hashes() == before)
        Path(root / "facts.json").write_text(json.dumps(facts))

    return History.of(once("shop_history", make))


@pytest.fixture(scope="session")
def ask(history):
    with history.shop.api() as asked:
        yield asked
