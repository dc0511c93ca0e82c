"""Keeps writing to the source: transactions and transfers that leave the sum of all balances as it was."""

import logging
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import psycopg
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from backend.errors import ConfigError
from deploy.source import catalog
from deploy.source.settings import Source

log = logging.getLogger(__name__)

_TRANSFERS = 0.3
_INCOME = 0.05
_CATCH_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Account:
    """An open account, and the account of its user that stands for the outside world."""

    account_id: int
    external_id: int
    currency: str


@dataclass(frozen=True)
class Directory:
    """What traffic chooses from; none of it changes while it runs."""

    accounts: list[Account]
    neighbours: dict[str, list[int]]
    """Per currency, the ids of the accounts that can send each other money."""
    merchants: list[tuple[int, int]]
    """(merchant_id, category_id)."""
    income: list[int]
    """Categories of kind income."""


def run(source: Source, *, rate: float, stop: threading.Event) -> None:
    """Writes ``rate`` movements per second until ``stop`` is set; the one under way then is finished.

    Connects again whenever PostgreSQL goes away. Raises ConfigError when there is nothing to move money between.
    """
    Retrying(
        retry=retry_if_exception_type(psycopg.OperationalError),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_when_event_set(stop),
        sleep=sleep_using_event(stop),
        before_sleep=before_sleep_log(log, logging.WARNING),
        retry_error_callback=lambda _: None,
    )(_session, source, rate, stop)


def _session(source: Source, rate: float, stop: threading.Event) -> None:
    rng = np.random.default_rng()
    with source.connect() as connection:
        directory = read_directory(connection)
        due = time.monotonic()
        while not stop.is_set():
            write(connection, directory, rng)
            # After a stall it catches up on one second, not on all that was missed.
            due = max(due + 1 / rate, time.monotonic() - _CATCH_UP_SECONDS)
            stop.wait(max(0.0, due - time.monotonic()))


def read_directory(connection: psycopg.Connection) -> Directory:
    """What there is to choose from. Raises ConfigError when the source is empty."""
    try:
        rows = connection.execute(
            "SELECT a.account_id, e.account_id, a.currency FROM accounts AS a"
            " JOIN accounts AS e ON e.user_id = a.user_id AND e.kind = 'external'"
            " WHERE a.kind <> 'external' AND a.closed_on IS NULL ORDER BY a.account_id"
        ).fetchall()
        merchants = connection.execute(
            "SELECT merchant_id, category_id FROM merchants JOIN categories USING (category_id)"
            " WHERE kind = 'expense' ORDER BY merchant_id"
        ).fetchall()
        income = connection.execute("SELECT category_id FROM categories WHERE kind = 'income' ORDER BY 1").fetchall()
    except psycopg.errors.UndefinedTable:
        rows = []
    if not rows:
        raise ConfigError("the source has no open accounts", hint="run `python -m deploy.source seed-postgres` first")
    accounts = [Account(*row) for row in rows]
    neighbours: dict[str, list[int]] = defaultdict(list)
    for account in accounts:
        neighbours[account.currency].append(account.account_id)
    return Directory(accounts, dict(neighbours), merchants, [category_id for (category_id,) in income])


def write(connection: psycopg.Connection, directory: Directory, rng: np.random.Generator) -> None:
    """One movement in one database transaction: a transfer between two accounts, or a transaction."""
    account = directory.accounts[rng.integers(len(directory.accounts))]
    neighbours = directory.neighbours[account.currency]
    receiver = neighbours[rng.integers(len(neighbours))]
    amount = _amount(rng, account.currency)
    description = None if rng.random() < 1 / 4 else catalog.PHRASES[rng.integers(len(catalog.PHRASES))]
    with connection.transaction():
        if receiver != account.account_id and rng.random() < _TRANSFERS:
            _move(connection, amount, sender=account.account_id, receiver=receiver)
            connection.execute(
                "INSERT INTO transfers (from_account_id, to_account_id, amount, description, transferred_at)"
                " VALUES (%s, %s, %s, %s, clock_timestamp())",
                [account.account_id, receiver, amount, description],
            )
            return
        merchant_id: int | None = None
        if rng.random() < _INCOME:
            category_id = directory.income[rng.integers(len(directory.income))]
            _move(connection, amount, sender=account.external_id, receiver=account.account_id)
        else:
            merchant_id, category_id = directory.merchants[rng.integers(len(directory.merchants))]
            _move(connection, amount, sender=account.account_id, receiver=account.external_id)
            amount = -amount
        connection.execute(
            "INSERT INTO transactions"
            " (account_id, merchant_id, category_id, amount, currency, description, posted_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp())",
            [account.account_id, merchant_id, category_id, amount, account.currency, description],
        )


def _move(connection: psycopg.Connection, amount: Decimal, *, sender: int, receiver: int) -> None:
    """Rows are locked in the order of their ids, so that writers wait for each other and never deadlock."""
    for account_id, gain in sorted([(sender, -amount), (receiver, amount)]):
        connection.execute(
            "UPDATE accounts SET balance = balance + %s WHERE account_id = %s",
            [gain, account_id],
        )


def _amount(rng: np.random.Generator, currency: str) -> Decimal:
    whole = currency in catalog.WHOLE_UNITS
    cents = max(1, round(rng.lognormal(7.5, 0.8) * catalog.RATES[currency] / (100 if whole else 1)))
    return Decimal(cents) if whole else Decimal(cents).scaleb(-2)
