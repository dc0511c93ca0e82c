"""What is done first: DuckDB opened for each request, dictionaries of Python values, and FastAPI's own encoder.

``python -m tests.bench.servers.opened_per_request PORT PATH``: of a directory of Parquet files, through a view of each;
of a DuckDB file, read-only.
"""

import sys
from pathlib import Path

import duckdb
import uvicorn
from fastapi import FastAPI

from tests.bench.questions import QUESTIONS


def create_app(path: Path) -> FastAPI:
    app = FastAPI()

    @app.get("/{name}")
    def answer(name: str, above: int, user: int = 0):
        question = QUESTIONS[name]
        values = {"user": user, "above": above}
        connection = _opened(path)
        try:
            sql = question.sql.format(user="$user", above="$above")
            cursor = connection.execute(sql, {name: values[name] for name in question.parameters})
            names = [field[0] for field in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            connection.close()

    return app


def _opened(path: Path) -> duckdb.DuckDBPyConnection:
    if path.is_file():
        return duckdb.connect(path, read_only=True)
    connection = duckdb.connect(":memory:")
    for file in sorted(path.glob("*.parquet")):
        connection.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM read_parquet('{file}')")
    return connection


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), port=int(sys.argv[1]), log_level="warning", access_log=False)
