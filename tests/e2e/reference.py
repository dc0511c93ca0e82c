"""What every phase has to answer: the same source through dbt and the store on this machine, without containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

from backend import auth
from backend.filepaths import REPO_ROOT
from tests.marts import MARTS

from .stack import SCALE

SECRET = "s" * 64
DATASETS = tuple(sorted(MARTS))  # as the API lists them
QUERIES = {
    **{f"{dataset}, first page": f"{dataset}/query?limit=1000" for dataset in DATASETS},
    "ordered": "fct_transactions/query?order=amount.desc,transaction_id&limit=500",
    "ordered, with ties": "fct_transactions/query?order=category_name&limit=500",
    "columns": "agg_monthly_cashflow/query?select=month,net,savings_rate&limit=50&offset=10",
    "filtered": "fct_transactions/query?category_name=eq.Rent&limit=500",
    "text": "dim_merchants/query?order=name.desc",
    "nested": "dim_categories/query?select=category_id,path",
}
ANSWER = """
import sys, json
from fastapi.testclient import TestClient
from backend.app import create_app
queries, tokens = json.load(sys.stdin)
with TestClient(create_app()) as api:
    print(json.dumps({
        user: {name: api.get("/api/analytics/datasets/" + path, headers={"Authorization": "Bearer " + token}).text
               for name, path in queries.items()}
        for user, token in tokens.items()
    }))
"""


class Reference:
    def __init__(self, directory):
        (directory / "jwt_secret").write_text(SECRET)
        self._env = {
            **{k: v for k, v in os.environ.items() if k not in ("DUCKDB_PATH", "PARQUET_DIR")},
            "PYTHONPATH": str(REPO_ROOT),
            "PARQUET_DIR": str(directory / "parquet"),
            "SOURCE_DUCKDB_PATH": str(directory / "source.duckdb"),
            "SOURCE_SCALE": SCALE,
            "DBT_TARGET": "embedded",
            "DBT_TARGET_PATH": str(directory / "target"),
            "SECRETS_DIR": str(directory),
        }
        self._python("-m", "deploy.source", "seed-embedded")
        self._python("-m", "deploy.pipeline", "build", DUCKDB_PATH=str(directory / "build.duckdb"))
        tokens = {
            str(user): auth.issue(SECRET, user_id=user, all_rows=all_rows, ttl=timedelta(hours=1))
            for user, all_rows in ((1, False), (2, False), (0, True))
        }
        printed = self._python("-c", ANSWER, stdin=json.dumps([QUERIES, tokens]))
        self._answers = json.loads(printed.splitlines()[-1])  # the lines before are the log

    def answers(self, user):
        """The reference's answers of one user (0: all rows), by the name of the query."""
        return {name: comparable(text) for name, text in self._answers[str(user)].items()}

    def _python(self, *args, stdin=None, **env):
        finished = subprocess.run(
            [sys.executable, *args], input=stdin, env={**self._env, **env}, cwd=REPO_ROOT,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
        return finished.stdout


def comparable(text):
    """An answer without what has to differ between two stacks. Numbers stay the text they are."""
    answer = json.loads(text, parse_float=lambda digits: "float " + digits, parse_int=lambda digits: "int " + digits)
    return {key: answer[key] for key in ("dataset", "columns", "rows", "row_count")} | {"more": bool(answer["next"])}
