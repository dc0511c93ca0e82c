"""What users earn and spend: movements between an account and the world outside, in arrays of equal length."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deploy.source import catalog
from deploy.source.people import CASH, CHECKING, CREDIT, MONTH_STARTS, MONTHS, SAVINGS, People
from deploy.source.tables import Ints

CATEGORY_ID = {name: number for number, (name, _, _) in enumerate(catalog.CATEGORIES, 1)}
MERCHANT_ID = {name: number for number, (name, *_) in enumerate(catalog.MERCHANTS, 1)}
MERCHANTS_OF = {
    category: np.array([MERCHANT_ID[name] for name, usual, *_ in catalog.MERCHANTS if usual == category])
    for category in {usual for _, usual, *_ in catalog.MERCHANTS}
}

SECOND = 1_000_000
DAY = 86_400 * SECOND

_SALARY = 250_000.0
_FREELANCERS = 0.1
_JOB_GAPS = 0.06
_SUBSCRIBED = 0.4
_CARD = 0.6
_DECEMBER = 11
_DEARER_FROM = 18
_UNKNOWN_MERCHANT = 0.04
_RETURNED = 0.06
_RETURNABLE = ("Clothing", "Electronics", "Kids' things")


@dataclass(frozen=True)
class Movements:
    """Transactions to be, one entry each; users and kinds of account are indices, ``cents`` are signed."""

    user: Ints
    kind: Ints
    merchant_id: Ints
    """0 where it is not known."""
    category_id: Ints
    cents: Ints
    micros: Ints
    """Microseconds since 1970, UTC."""

    @property
    def month(self) -> Ints:
        """Index of the month each was posted in."""
        return np.searchsorted(micros_of(MONTH_STARTS), self.micros, side="right") - 1

    def where(self, chosen: NDArray[np.bool_]) -> "Movements":
        """Those that are chosen."""
        return Movements(*(getattr(self, field.name)[chosen] for field in fields(self)))


def join(parts: list[Movements]) -> Movements:
    """All parts, in the order in which they were posted."""
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Movements)}
    order = np.argsort(columns["micros"], kind="stable")
    return Movements(**{name: values[order] for name, values in columns.items()})


def micros_of(days: NDArray[np.datetime64]) -> Ints:
    """Midnight of the days, in microseconds since 1970."""
    return days.astype("datetime64[us]").astype(np.int64)


def on_days(rng: np.random.Generator, month: Ints, days: tuple[int, int]) -> Ints:
    """A moment in the small hours of one of the days (first, last) of the months."""
    day = rng.integers(days[0] - 1, days[1], len(month))
    return micros_of(MONTH_STARTS)[month] + day * DAY + rng.integers(0, 6 * 3_600, len(month)) * SECOND


def spending(rng: np.random.Generator, world: People) -> Movements:
    """All income and expenses of three years, by time."""
    parts = [_income(rng, world), _interest(rng, world)]
    parts += [_bill(rng, world, bill) for bill in catalog.BILLS]
    parts += [_subscription(rng, world, name, price) for name, price in catalog.SUBSCRIPTIONS.items()]
    habits = [_habit(rng, world, habit) for habit in catalog.HABITS]
    parts += habits
    parts += [
        _returns(rng, bought)
        for bought, habit in zip(habits, catalog.HABITS, strict=True)
        if habit.category in _RETURNABLE
    ]
    return join(parts)


def _income(rng: np.random.Generator, world: People) -> Movements:
    count = len(world)
    freelancer = rng.random(count) < _FREELANCERS
    gap_start = rng.integers(6, MONTHS - 3, count)
    has_gap = rng.random(count) < _JOB_GAPS
    months = np.arange(MONTHS)
    gap = has_gap[:, None] & (months >= gap_start[:, None]) & (months < gap_start[:, None] + 3)
    employer = rng.choice(MERCHANTS_OF["Salary"], count)

    user, month = np.nonzero(world.active & ~gap & ~freelancer[:, None])
    euros = _SALARY * world.wealth[user] * 1.03 ** (month // 12)
    salary = _earned(rng, world, user, month, euros, category="Salary", merchant_id=employer[user])

    thirteenth = (month % 12 == _DECEMBER) & (user % 2 == 0)
    user, month, euros = user[thirteenth], month[thirteenth], euros[thirteenth] * 0.8
    bonus = _earned(rng, world, user, month, euros, category="Bonus", merchant_id=employer[user])

    user, month = _drawn(rng, world, np.where(freelancer, 1.4, 0.0))
    euros = 0.7 * _SALARY * world.wealth[user] * rng.lognormal(0, 0.6, len(user))
    client = rng.choice(MERCHANTS_OF["Freelance"], len(user))
    invoices = _earned(rng, world, user, month, euros, category="Freelance", merchant_id=client)
    return join([salary, bonus, invoices])


def _earned(
    rng: np.random.Generator,
    world: People,
    user: Ints,
    month: Ints,
    euro_cents: NDArray[np.float64],
    *,
    category: str,
    merchant_id: Ints,
) -> Movements:
    kind = SAVINGS if category == "Interest" else CHECKING
    return Movements(
        user=user,
        kind=np.full(len(user), kind),
        merchant_id=merchant_id,
        category_id=np.full(len(user), CATEGORY_ID[category]),
        cents=world.local_cents(user, euro_cents),
        micros=on_days(rng, month, (25, 28)),
    )


def _interest(rng: np.random.Generator, world: People) -> Movements:
    quarter_end = np.arange(1, MONTHS + 1) % 3 == 0
    user, month = np.nonzero(world.active & world.has(SAVINGS)[:, None] & quarter_end)
    euros = rng.uniform(300, 4_500, len(user)) * world.wealth[user] * (1 + month / MONTHS)
    merchant_id = np.full(len(user), MERCHANTS_OF["Interest"][0])
    return _earned(rng, world, user, month, euros, category="Interest", merchant_id=merchant_id)


def _bill(rng: np.random.Generator, world: People, bill: catalog.Bill) -> Movements:
    count = len(world)
    pays = rng.random(count) < bill.share
    usual = bill.cents * world.wealth**0.7 * rng.lognormal(0, 0.2, count)
    merchant_id = rng.choice(MERCHANTS_OF[bill.category], count)
    user, month = np.nonzero(world.active & pays[:, None])
    euros = usual[user] * (1 + bill.yearly) ** (month // 12) * np.array(bill.season)[month % 12]
    return Movements(
        user=user,
        kind=np.full(len(user), CHECKING),
        merchant_id=merchant_id[user],
        category_id=np.full(len(user), CATEGORY_ID[bill.category]),
        cents=-world.local_cents(user, euros),
        micros=on_days(rng, month, bill.days),
    )


def _subscription(rng: np.random.Generator, world: People, merchant: str, price: int) -> Movements:
    count = len(world)
    start = rng.integers(-24, MONTHS, count)
    end = np.where(rng.random(count) < 1 / 3, start + rng.integers(3, 24, count), MONTHS)
    months = np.arange(MONTHS)
    subscribed = (rng.random(count) < _SUBSCRIBED)[:, None] & (months >= start[:, None]) & (months < end[:, None])
    user, month = np.nonzero(world.active & subscribed)
    dearer = price + 100 * (month >= _DEARER_FROM)
    return Movements(
        user=user,
        kind=_paid_from(rng, world, user, month, cash=0.0),
        merchant_id=np.full(len(user), MERCHANT_ID[merchant]),
        category_id=np.full(len(user), CATEGORY_ID["Subscriptions"]),
        cents=-world.local_cents(user, dearer.astype(np.float64)),
        micros=on_days(rng, month, (17, 24)),
    )


def _habit(rng: np.random.Generator, world: People, habit: catalog.Habit) -> Movements:
    season = np.array(habit.season)
    taste = rng.gamma(4.0, 0.25, len(world))
    user, month = _drawn(rng, world, habit.per_month * taste, season)
    count = len(user)
    euros = habit.cents * world.wealth[user] ** 0.6 * rng.lognormal(0, habit.spread, count)
    days = np.diff(MONTH_STARTS).astype(np.int64)
    day = (rng.random(count) * days[month]).astype(np.int64)
    within = rng.integers(habit.hours[0] * 3_600 * SECOND, habit.hours[1] * 3_600 * SECOND, count)
    return Movements(
        user=user,
        kind=_paid_from(rng, world, user, month, cash=habit.cash),
        merchant_id=_favourite(rng, user, MERCHANTS_OF[habit.category]),
        category_id=np.full(count, CATEGORY_ID[habit.category]),
        cents=-world.local_cents(user, euros),
        micros=micros_of(MONTH_STARTS)[month] + day * DAY + within,
    )


def _returns(rng: np.random.Generator, bought: Movements) -> Movements:
    some = bought.where(rng.random(len(bought.user)) < _RETURNED)
    later = some.micros + rng.integers(2 * DAY, 15 * DAY, len(some.user))
    # Paid back to the current account: the card may be closed by then.
    back = Movements(
        some.user, np.full_like(some.kind, CHECKING), some.merchant_id, some.category_id, -some.cents, later
    )
    return back.where(later < micros_of(MONTH_STARTS)[-1])


def _drawn(
    rng: np.random.Generator,
    world: People,
    per_month: NDArray[np.float64],
    season: NDArray[np.float64] | None = None,
) -> tuple[Ints, Ints]:
    """(user, month) of events that happen on average ``per_month`` times, one entry per event."""
    yearly = np.ones(12) if season is None else season
    mean = per_month[:, None] * yearly[np.arange(MONTHS) % 12] * world.active
    cell = np.repeat(np.arange(mean.size), rng.poisson(mean).ravel())
    return cell // MONTHS, cell % MONTHS


def _paid_from(rng: np.random.Generator, world: People, user: Ints, month: Ints, *, cash: float) -> Ints:
    drawn = rng.random((2, len(user)))
    by_card = world.has(CREDIT)[user] & (month < world.card_until[user]) & (drawn[0] < _CARD)
    in_cash = world.has(CASH)[user] & (drawn[1] < cash)
    return np.where(in_cash, CASH, np.where(by_card, CREDIT, CHECKING))


def _favourite(rng: np.random.Generator, user: Ints, merchants: Ints) -> Ints:
    """Merchants of which each user prefers others, a few much more than the rest; some are not known."""
    rank = (rng.random(len(user)) ** 2 * len(merchants)).astype(np.int64)
    merchant_id = merchants[(user * 7 + rank) % len(merchants)]
    return np.where(rng.random(len(user)) < _UNKNOWN_MERCHANT, 0, merchant_id)
