"""The users of the source and their accounts, as arrays that the money then moves between."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deploy.source import catalog
from deploy.source.tables import Ints, table

FIRST_MONTH = np.datetime64("2023-01", "M")
MONTHS = 36
MONTH_STARTS = (FIRST_MONTH + np.arange(MONTHS + 1)).astype("datetime64[D]")
"""First days of the months covered, and of the one after the last."""

KINDS = tuple(catalog.ACCOUNT_NAMES)
CHECKING, SAVINGS, CREDIT, CASH, EXTERNAL = range(len(KINDS))

_OWNED = (1.0, 0.85, 0.6, 0.7, 1.0)
_DORMANT_EVERY = 100
_LATECOMERS = 0.2
_CARDS_CLOSED = 0.1


@dataclass(frozen=True)
class People:
    """One entry per user in every array; users are counted from 0 here, and from 1 in the tables."""

    users: pa.Table
    currency: NDArray[np.object_]
    rate: NDArray[np.float64]
    """Units of the user's currency per euro."""
    unit: Ints
    """Smallest amount of the currency, in cents."""
    wealth: NDArray[np.float64]
    """Income relative to the typical user's."""
    first_month: Ints
    """Index of the first month with movements; MONTHS for users who never recorded one."""
    card_until: Ints
    """Index of the month in which the credit card is no longer used; MONTHS while it is."""
    account_id: Ints
    """Shape (users, kinds): the account's id, or 0 where the user has none of that kind."""

    def __len__(self) -> int:
        return len(self.wealth)

    @cached_property
    def active(self) -> NDArray[np.bool_]:
        """Shape (users, months): whether the user records movements in that month."""
        return np.arange(MONTHS) >= self.first_month[:, None]

    def has(self, kind: int) -> NDArray[np.bool_]:
        """Whether each user has an account of that kind."""
        return self.account_id[:, kind] > 0

    def local_cents(self, user: Ints, euro_cents: NDArray[np.float64]) -> Ints:
        """Positive euro cents in the users' currencies, rounded to its smallest unit and never zero."""
        unit = self.unit[user]
        return np.maximum(np.rint(euro_cents * self.rate[user] / unit).astype(np.int64), 1) * unit


def people(rng: np.random.Generator, count: int) -> People:
    """``count`` users with their accounts' ids; the first two users share a currency."""
    country = np.resize(np.array(catalog.COUNTRIES), count)
    currency = np.array([catalog.CURRENCIES[code] for code in country], dtype=object)
    latecomer = rng.random(count) < _LATECOMERS
    joined_month = np.where(latecomer, rng.integers(0, 18, count), rng.integers(-24, 0, count))
    first_month = np.maximum(joined_month + 1, 0)
    first_month[_DORMANT_EVERY - 1 :: _DORMANT_EVERY] = MONTHS
    owned = rng.random((count, len(KINDS))) < np.array(_OWNED)
    account_id = np.zeros(owned.shape, dtype=np.int64)
    account_id[owned] = np.arange(1, owned.sum() + 1)
    closes = rng.random(count) < _CARDS_CLOSED
    return People(
        users=_users(rng, country, joined_month),
        currency=currency,
        rate=np.array([catalog.RATES[code] for code in currency]),
        unit=np.where(np.isin(currency.astype(str), list(catalog.WHOLE_UNITS)), 100, 1).astype(np.int64),
        wealth=rng.lognormal(0.0, 0.3, count),
        first_month=first_month,
        card_until=np.where(closes, np.minimum(first_month + rng.integers(6, 30, count), MONTHS), MONTHS),
        account_id=account_id,
    )


def accounts(rng: np.random.Generator, world: People, movements: Ints) -> pa.Table:
    """The accounts; ``movements`` is what each has gained in cents, by ``account_id`` (index 0 unused)."""
    user, kind = np.nonzero(world.account_id)
    opening = np.zeros(len(user), dtype=np.int64)
    for kind_, low, high in ((CHECKING, 80_000, 650_000), (SAVINGS, 0, 1_500_000), (CASH, 1_000, 12_000)):
        chosen = kind == kind_
        amount = rng.uniform(low, high, chosen.sum()) * world.wealth[user[chosen]]
        opening[chosen] = world.local_cents(user[chosen], amount)
    created = world.users["created_at"].to_numpy().astype("datetime64[D]")
    opened = created[user] - np.where(kind == EXTERNAL, 0, rng.integers(0, 3_000, len(user)))
    closing = (kind == CREDIT) & (world.card_until[user] < MONTHS)
    closed = np.where(closing, MONTH_STARTS[world.card_until[user]] + 19, np.datetime64("NaT"))
    names = np.empty(len(user), dtype=object)
    for index, choices in enumerate(catalog.ACCOUNT_NAMES.values()):
        chosen = np.flatnonzero(kind == index)
        names[chosen] = np.array(choices, dtype=object)[rng.integers(0, len(choices), len(chosen))]
    return table(
        "accounts",
        {
            "account_id": world.account_id[user, kind],
            "user_id": user + 1,
            "kind": np.array(KINDS, dtype=object)[kind],
            "name": names,
            "currency": world.currency[user],
            "opening_balance": opening,
            "balance": opening + movements[world.account_id[user, kind]],
            "opened_on": opened,
            "closed_on": closed,
        },
    )


def _users(rng: np.random.Generator, country: NDArray[np.str_], joined_month: Ints) -> pa.Table:
    count = len(country)
    names = [_name(rng, code) for code in country]
    month = (FIRST_MONTH + joined_month).astype("datetime64[us]").astype(np.int64)
    return table(
        "users",
        {
            "user_id": np.arange(1, count + 1),
            "email": [f"{_ascii(name)}.{number}@example.org" for number, name in enumerate(names, 1)],
            "full_name": names,
            "country": country.astype(object),
            "created_at": pa.array(month + rng.integers(0, 27 * 86_400_000_000, count), pa.int64()),
            "note": [
                catalog.NOTES[number % len(catalog.NOTES)] if drawn < 1 / 3 else None
                for number, drawn in enumerate(rng.random(count))
            ],
        },
    )


def _name(rng: np.random.Generator, country: str) -> str:
    firsts, lasts = catalog.NAMES[country]
    first, last = str(rng.choice(firsts)), str(rng.choice(lasts))
    if rng.random() < 1 / 20:
        return f'{first} "{rng.choice(catalog.NICKNAMES)}" {last}'
    return f"{last} {first}" if country == "JP" else f"{first} {last}"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = ("".join(filter(str.isalnum, word)) for word in plain.split())
    return ".".join(word for word in words if word) or "user"
