"""Marts of any size: made by DuckDB rather than by dbt, laid out as ours are, published by the store itself.

However many rows there are, a user has the same number of them, so that a user's answer is the same size everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from backend.manifest import Column, Manifest, MartSpec
from backend.quoting import literal
from deploy.pipeline.adopted.export import layout
from tests.bench.questions import TRANSACTIONS
from tests.bench.site import Site

ROWS_PER_USER = 500
_ASKING = 200
_SMALL_ROWS = 1000
_DAYS = 3 * 365  # that a user's rows are of, in their order: days ascend within a user, as in the example
_DAY = f"(i % {ROWS_PER_USER} * {_DAYS} // {ROWS_PER_USER})"
_ACCOUNT = "(hash(i) % 4)::INTEGER"
_MERCHANT = "(hash(i) % 67)"
_CATEGORY = "(hash(i + 1) % 28)"

_TRANSACTIONS = {
    "transaction_id": ("BIGINT", "i + 1"),
    "user_id": ("INTEGER", f"i // {ROWS_PER_USER} + 1"),
    "account_id": ("BIGINT", f"i // {ROWS_PER_USER} * 4 + {_ACCOUNT} + 1"),
    "account_name": ("VARCHAR", f"['Everyday', 'Savings', 'Card', 'Joint'][{_ACCOUNT} + 1]"),
    "merchant_id": ("INTEGER", f"CASE WHEN i % 5 > 0 THEN {_MERCHANT} END"),
    "merchant_name": ("VARCHAR", f"CASE WHEN i % 5 > 0 THEN 'Merchant ' || {_MERCHANT} END"),
    "category_id": ("INTEGER", _CATEGORY),
    "category_name": ("VARCHAR", f"'category ' || {_CATEGORY}"),
    "category_kind": ("VARCHAR", f"if({_CATEGORY} < 4, 'income', 'expense')"),
    "posted_on": ("DATE", f"DATE '2023-01-01' + {_DAY}::INTEGER"),
    "posted_at": ("TIMESTAMP WITH TIME ZONE", f"to_timestamp(1672531200 + {_DAY} * 86400 + hash(i) % 86400)"),
    "amount": ("DECIMAL(12,2)", "(hash(i + {turn}) % 100000)::DECIMAL(12,2) / 100"),
    "currency": ("VARCHAR", "'EUR'"),
    "description": ("VARCHAR", "CASE WHEN i % 3 > 0 THEN 'Payment ' || hash(i) % 10000 END"),
}
_SMALL = {
    "user_id": ("INTEGER", "i // 10 + 1"),
    "item_id": ("BIGINT", "i + 1"),
    "amount": ("DECIMAL(12,2)", "(hash(i + {turn}) % 100000)::DECIMAL(12,2) / 100"),
    "note": ("VARCHAR", "{mart} || ', note ' || hash(i) % 1000"),
}
_Columns = dict[str, tuple[str, str]]


@dataclass
class Generated:
    """Marts below ``root``: one of so many ``rows`` with the columns of ``fct_transactions``, and ``others``, small."""

    root: Path
    rows: int
    others: int
    _turn: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Publish the first snapshot."""
        self.root.mkdir()
        self.site.make_secret()
        self.publish([spec.name for spec in self._specs])

    @property
    def site(self) -> Site:
        """What is served, and who may ask."""
        return Site(self.root)

    @property
    def users(self) -> range:
        """Who asks: from all over the mart, each with ``ROWS_PER_USER`` rows."""
        users = self.rows // ROWS_PER_USER
        return range(1, users + 1, max(1, users // _ASKING))

    @property
    def bytes(self) -> int:
        """Of all marts, on the disk."""
        return sum(mart.bytes for mart in self.site.manifest.marts.values())

    @property
    def another(self) -> str:
        """One of the small marts."""
        return self._specs[-1].name

    def publish(self, anew: Collection[str]) -> tuple[Manifest, float]:
        """A snapshot with these marts written anew and all others as they are.

        With it, how many seconds the store took over it: linking, audit, fsync and the pointer; not the writing.
        """
        self._turn += 1
        if self._turn > 1:
            self.site.store.retain(keep=1, minutes=0)
        with self.site.store.build(f"turn-{self._turn}", holder="bench") as build:
            for name in anew:
                self._write(build.path / f"{name}.parquet")
            begun = time.perf_counter()
            build.link([spec.name for spec in self._specs if spec.name not in anew])
            return build.publish(self._specs), time.perf_counter() - begun

    @property
    def _specs(self) -> list[MartSpec]:
        marts = {TRANSACTIONS: _TRANSACTIONS, **{f"small_{number:04}": _SMALL for number in range(self.others)}}
        return [
            MartSpec(name, name, "Generated.", tuple(Column(column, kind) for column, (kind, _) in columns.items()))
            for name, columns in marts.items()
        ]

    def _write(self, path: Path) -> None:
        columns, rows = (_TRANSACTIONS, self.rows) if path.stem == TRANSACTIONS else (_SMALL, _SMALL_ROWS)
        values = ", ".join(f"({sql})::{kind} AS {name}" for name, (kind, sql) in columns.items())
        values = values.format(turn=self._turn, mart=literal(path.stem))
        with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as connection:
            source = f"range({rows}) AS t(i)"
            connection.execute(
                f"COPY (SELECT {values} FROM {source}) TO ? ({layout(connection, source, of_users=True)})", [str(path)]
            )
