"""Deterministic, realistic data for the source: the same scale and seed give the same rows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deploy.source import catalog
from deploy.source.moving import DESCRIPTIONS, Transfers, transfers
from deploy.source.people import EXTERNAL, MONTH_STARTS, MONTHS, People, accounts, people
from deploy.source.spending import CATEGORY_ID, Movements, spending
from deploy.source.tables import Ints, Tables, table

USERS = 200
SEED = 20_260_101

_BUDGETED = ("Groceries", "Restaurants", "Clothing", "Travel", "Subscriptions", "Gifts 🎁")
_BUDGET_MONTHS = 18
_BUDGET_KEPT = 0.5
_STATEMENTS = 0.6
_DESCRIBED = 0.75


def generate(scale: float = 1.0, seed: int = SEED) -> Tables:
    """All tables of the source: 200 users per unit of ``scale`` (never fewer than two), about 500 transactions each.

    Amounts are exact: each account's balance is its opening balance plus its transactions and transfers, and the sum
    of all balances is the sum of all opening balances. Raises ValueError for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale must be positive, not {scale}")
    rng = np.random.Generator(np.random.PCG64(seed))
    world = people(rng, max(2, round(USERS * scale)))
    spent = spending(rng, world)
    moved = transfers(rng, world, spent)
    return {
        "users": world.users,
        "accounts": accounts(rng, world, _gained(world, spent, moved)),
        "categories": _categories(),
        "merchants": _merchants(),
        "transactions": _transactions(rng, world, spent),
        "transfers": _transfers(moved),
        "budgets": _budgets(rng, world),
    }


def _gained(world: People, spent: Movements, moved: Transfers) -> Ints:
    """Cents that each account gained, by account_id."""
    gained = np.zeros(int(world.account_id.max()) + 1, dtype=np.int64)
    np.add.at(gained, world.account_id[spent.user, spent.kind], spent.cents)
    np.add.at(gained, world.account_id[spent.user, EXTERNAL], -spent.cents)
    np.add.at(gained, moved.from_account_id, -moved.cents)
    np.add.at(gained, moved.to_account_id, moved.cents)
    return gained


def _categories() -> pa.Table:
    names, parents, kinds = zip(*catalog.CATEGORIES, strict=True)
    return table(
        "categories",
        {
            "category_id": list(CATEGORY_ID.values()),
            "parent_id": [parent and CATEGORY_ID[parent] for parent in parents],
            "name": names,
            "kind": kinds,
        },
    )


def _merchants() -> pa.Table:
    names, usual, cities, websites = zip(*catalog.MERCHANTS, strict=True)
    return table(
        "merchants",
        {
            "merchant_id": np.arange(1, len(names) + 1),
            "name": names,
            "category_id": [CATEGORY_ID[category] for category in usual],
            "city": cities,
            "website": websites,
        },
    )


def _transactions(rng: np.random.Generator, world: People, spent: Movements) -> pa.Table:
    merchant_id = pa.array(spent.merchant_id, pa.int32(), mask=spent.merchant_id == 0)
    return table(
        "transactions",
        {
            "transaction_id": np.arange(1, len(spent.user) + 1),
            "account_id": world.account_id[spent.user, spent.kind],
            "merchant_id": merchant_id,
            "category_id": spent.category_id,
            "amount": spent.cents,
            "currency": world.currency[spent.user],
            "description": _descriptions(rng, spent.merchant_id),
            "posted_at": spent.micros,
        },
    )


def _descriptions(rng: np.random.Generator, merchant_id: Ints) -> pa.Array:
    """What stands on the statement: the merchant and a reference, somebody's own words, or nothing."""
    count = len(merchant_id)
    drawn = rng.random(count)
    names = pa.array(["", *(name.upper() for name, *_ in catalog.MERCHANTS)])
    reference = pa.array(rng.integers(100_000, 1_000_000, count)).cast(pa.string())
    statement = pc.binary_join_element_wise(names.take(pa.array(merchant_id)), reference, " // ")
    words = pa.array(catalog.PHRASES).take(pa.array(rng.integers(0, len(catalog.PHRASES), count)))
    written = pc.if_else(pa.array((drawn < _STATEMENTS) & (merchant_id > 0)), statement, words)
    return pc.if_else(pa.array(drawn < _DESCRIBED), written, pa.scalar(None, pa.string()))


def _transfers(moved: Transfers) -> pa.Table:
    return table(
        "transfers",
        {
            "transfer_id": np.arange(1, len(moved.cents) + 1),
            "from_account_id": moved.from_account_id,
            "to_account_id": moved.to_account_id,
            "amount": moved.cents,
            "description": pa.array(DESCRIPTIONS).take(pa.array(moved.description)),
            "transferred_at": moved.micros,
        },
    )


def _budgets(rng: np.random.Generator, world: People) -> pa.Table:
    """Limits for the last months, in steps of five euros; some categories and some users have none."""
    kept = rng.random((len(world), len(_BUDGETED))) < _BUDGET_KEPT
    months = np.arange(MONTHS - _BUDGET_MONTHS, MONTHS)
    user, category, offset = np.nonzero(kept[:, :, None] & world.active[:, None, months])
    steps = np.rint(rng.uniform(8, 60, kept.shape) * world.wealth[:, None])[user, category]
    raised = steps + (offset >= _BUDGET_MONTHS // 2)
    return table(
        "budgets",
        {
            "budget_id": np.arange(1, len(user) + 1),
            "user_id": user + 1,
            "category_id": np.array([CATEGORY_ID[name] for name in _BUDGETED])[category],
            "month": MONTH_STARTS[months[offset]],
            "amount": world.local_cents(user, raised * 500.0),
        },
    )
