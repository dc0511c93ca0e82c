"""The API over HTTP, as its callers see it."""

from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient

from backend import auth
from backend.app import create_app
from backend.config import Settings
from backend.duckdb.client import Database

SECRET = "an-adequately-long-secret-for-tests-only"
QUERY = "/api/analytics/datasets/fct_transactions/query"


def open_api(
    *,
    parquet_dir: Path | None = None,
    duckdb_path: Path | None = None,
    catalog: Path | None = None,
    **settings: object,
) -> tuple[TestClient, Database]:
    limits = Settings(**settings)
    database = Database(limits, parquet_dir=parquet_dir, duckdb_path=duckdb_path, catalog=catalog)
    return TestClient(create_app(settings=limits, database=database, secret=SECRET)), database


def bearer(user_id: int = 1, *, all_rows: bool = False) -> dict[str, str]:
    token = auth.issue(SECRET, user_id=user_id, all_rows=all_rows, ttl=timedelta(hours=1))
    return {"Authorization": f"Bearer {token}"}


def assert_error(response, status, code):
    """The envelope, whole: exactly these keys, and text for people in each."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert list(error) == ["code", "message", "hint"]
    assert error["code"] == code
    assert error["message"]
    assert error["hint"]
    assert response.headers["x-request-id"]
    return error
