"""Transfers: savings, card settlements, cash withdrawals, and what users send each other."""

from dataclasses import dataclass

import numpy as np

from deploy.source import catalog
from deploy.source.people import CASH, CHECKING, CREDIT, MONTH_STARTS, MONTHS, SAVINGS, People
from deploy.source.spending import DAY, SECOND, Movements, micros_of, on_days
from deploy.source.tables import Ints

_SAVED = 33_000.0
_SENT = 2_100.0
_SAVING_MONTHS = 0.85
_SENT_PER_MONTH = 0.3

DESCRIPTIONS = (*catalog.FRIENDLY, "Sparen", "Kreditkarte 💳", "Geldautomat / ATM")
"""What ``Transfers.description`` points into."""
_SAVING, _SETTLING, _WITHDRAWING = range(len(catalog.FRIENDLY), len(DESCRIPTIONS))


@dataclass(frozen=True)
class Transfers:
    """Transfers to be, one entry each, by time; ``cents`` are positive."""

    from_account_id: Ints
    to_account_id: Ints
    cents: Ints
    description: Ints
    micros: Ints


def transfers(rng: np.random.Generator, world: People, spent: Movements) -> Transfers:
    """All transfers of three years, such that cards are settled monthly and nobody runs out of cash."""
    parts = [
        _savings(rng, world),
        _settlements(rng, world, spent),
        _withdrawals(rng, world, spent),
        _between_users(rng, world),
    ]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in Transfers.__dataclass_fields__]
    order = np.argsort(columns[-1], kind="stable")
    return Transfers(*(values[order] for values in columns))


def _own(
    rng: np.random.Generator,
    world: People,
    user: Ints,
    month: Ints,
    *,
    route: tuple[int, int],
    cents: Ints,
    description: int,
    days: tuple[int, int],
) -> Transfers:
    """Between a user's own accounts: ``route`` is (from kind, to kind), ``days`` are those of the month."""
    return Transfers(
        from_account_id=world.account_id[user, route[0]],
        to_account_id=world.account_id[user, route[1]],
        cents=cents,
        description=np.full(len(user), description),
        micros=on_days(rng, month, days),
    )


def _savings(rng: np.random.Generator, world: People) -> Transfers:
    saves = world.has(SAVINGS)[:, None] & world.active & (rng.random(world.active.shape) < _SAVING_MONTHS)
    user, month = np.nonzero(saves)
    euros = np.rint(_SAVED * world.wealth[user] / 1_000) * 1_000
    cents = world.local_cents(user, euros)
    route = (CHECKING, SAVINGS)
    return _own(rng, world, user, month, route=route, cents=cents, description=_SAVING, days=(28, 28))


def _settlements(rng: np.random.Generator, world: People, spent: Movements) -> Transfers:
    owed = -_monthly(world, spent, CREDIT)[:, :-1]
    user, month = np.nonzero(owed > 0)
    cents, route = owed[user, month], (CHECKING, CREDIT)
    return _own(rng, world, user, month + 1, route=route, cents=cents, description=_SETTLING, days=(5, 6))


def _withdrawals(rng: np.random.Generator, world: People, spent: Movements) -> Transfers:
    needed = -_monthly(world, spent, CASH)
    user, month = np.nonzero(needed > 0)
    note = world.local_cents(user, np.full(len(user), 2_000.0))
    cents = -(-needed[user, month] // note) * note
    route = (CHECKING, CASH)
    return _own(rng, world, user, month, route=route, cents=cents, description=_WITHDRAWING, days=(1, 1))


def _monthly(world: People, spent: Movements, kind: int) -> Ints:
    """Cents moved on each user's account of a kind, shape (users, months)."""
    chosen = spent.where(spent.kind == kind)
    total = np.zeros((len(world), MONTHS), dtype=np.int64)
    np.add.at(total, (chosen.user, chosen.month), chosen.cents)
    return total


def _between_users(rng: np.random.Generator, world: People) -> Transfers:
    """From anybody to anybody whose account has the same currency and who is there by then."""
    parts = []
    for currency in sorted(set(world.currency)):
        group = np.flatnonzero(world.currency == currency)
        sent = rng.poisson(_SENT_PER_MONTH * world.active[group])
        cell = np.repeat(np.arange(sent.size), sent.ravel())
        sender, month = cell // MONTHS, cell % MONTHS
        receiver = (sender + rng.integers(1, max(len(group), 2), len(cell))) % len(group)
        both = (sender != receiver) & world.active[group[receiver], month]
        parts.append(np.stack([group[sender], group[receiver], month])[:, both])
    sender, receiver, month = np.concatenate(parts, axis=1)
    count = len(sender)
    within = rng.integers(8 * 3_600 * SECOND, DAY, count)
    return Transfers(
        from_account_id=world.account_id[sender, CHECKING],
        to_account_id=world.account_id[receiver, CHECKING],
        cents=world.local_cents(sender, _SENT * rng.lognormal(0, 0.8, count)),
        description=rng.integers(0, len(catalog.FRIENDLY), count),
        micros=micros_of(MONTH_STARTS)[month] + rng.integers(0, 28, count) * DAY + within,
    )
