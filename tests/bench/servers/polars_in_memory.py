"""Polars: the marts as data frames in memory, its own JSON and Arrow writers.

``python -m tests.bench.servers.polars_in_memory PORT DIRECTORY``
"""

import io
import sys
from pathlib import Path

import polars as pl
import uvicorn
from fastapi import FastAPI, Response

from tests.bench.questions import ACCOUNTS, TRANSACTIONS

_NEWEST = {"by": ["posted_at", "transaction_id"], "descending": True}


class Marts:
    """Every mart in memory, in one piece each, and the questions asked of them."""

    def __init__(self, directory: Path) -> None:
        self._frames = {path.stem: pl.read_parquet(path).rechunk() for path in directory.glob("*.parquet")}

    def rows(self, name: str, user: int, above: int) -> pl.DataFrame:
        transactions = self._frames[TRANSACTIONS]
        since = pl.col("transaction_id") > -above
        own = (pl.col("user_id") == user) & since
        totals = (pl.col("amount").sum().alias("total"), pl.len().alias("number"))
        match name:
            case "Q1":
                return transactions.filter(own).sort(**_NEWEST).head(100)
            case "Q2":
                months = pl.col("posted_on").dt.truncate("1mo").alias("month")
                return transactions.filter(own).group_by(months).agg(totals).sort("month")
            case "Q3":
                latest = pl.col("posted_on").max().alias("latest")
                return transactions.filter(since).group_by("category_name").agg(*totals, latest).sort("category_name")
            case "Q4":
                accounts = self._frames[ACCOUNTS].filter(pl.col("user_id") == user)
                newest = transactions.filter(own).sort(**_NEWEST).head(100)
                joined = newest.join(
                    accounts.select("account_id", "kind", "balance", "opened_on"),
                    on="account_id",
                    maintain_order="left",
                )
                columns = ("transaction_id", "posted_at", "amount", "account_id", "kind", "balance", "opened_on")
                return joined.select(columns)
            case _:
                return transactions.filter(since & (pl.col("transaction_id") <= 10_000))


def create_app(directory: Path) -> FastAPI:
    app = FastAPI()
    marts = Marts(directory)

    @app.get("/{name}")
    def answer(name: str, above: int, user: int = 0) -> Response:
        rows = marts.rows(name, user, above)
        written = io.BytesIO()
        if name.endswith("Arrow"):
            rows.write_ipc_stream(written)
            return Response(written.getvalue(), media_type="application/vnd.apache.arrow.stream")
        rows.write_json(written)
        return Response(written.getvalue(), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), port=int(sys.argv[1]), log_level="warning", access_log=False)
