"""The examples of the query grammar's documentation run, on tables as dbt's contracts declare them."""

import json
import re

import duckdb
import pytest
import yaml

from backend.api.analytics.filters import OPERATORS, STATES
from backend.filepaths import REPO_ROOT

from .api import bearer, open_api

SECTION = re.search(
    r"^## Query grammar\n(.*?)(?=^## |\Z)", (REPO_ROOT / "backend/README.md").read_text(), re.DOTALL | re.MULTILINE
)[1]
VALUES = {
    "integer": "n",
    "bigint": "n",
    "varchar": "(['Rent', 'Coffee', 'income'])[1 + n % 3]",
    "date": "CASE WHEN n % 4 > 0 THEN DATE '2023-12-01' + n * 7 END",
    "timestamptz": "TIMESTAMPTZ '2023-12-01 12:00:00+00' + to_days(n)",
    "double": "n / 8",
    "boolean": "n % 2 = 0",
    "varchar[]": "['a']",
}


def examples():
    """Each request, as it stands there, and what is documented as its answer, or None."""
    for block in re.findall(r"^```http\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE):
        head, _, rest = block.partition("\n\n")
        requests = re.findall(r"^(GET|POST) (.+)$", head, re.MULTILINE)
        headers = dict(re.findall(r"^([A-Z][\w-]+): (.+)$", head, re.MULTILINE))
        for method, path in requests:
            body = rest if method == "POST" else None
            request = {"method": method, "url": path, "headers": headers, "content": body}
            yield pytest.param(request, None if body else rest, id=path)


def value(column):
    return "1" if column["name"] == "user_id" else VALUES.get(column["data_type"], "n - 150")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme") / "analytics.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TEMP TABLE numbers AS SELECT CAST(range AS INTEGER) AS n FROM range(300)")
        for file in sorted((REPO_ROOT / "dbt/models/marts").rglob("*__models.yml")):
            for mart in yaml.safe_load(file.read_text())["models"]:
                columns = ", ".join(
                    f"CAST({value(column)} AS {column['data_type']}) AS {column['name']}" for column in mart["columns"]
                )
                connection.execute(f"CREATE TABLE {mart['name']} AS SELECT {columns} FROM numbers")
    opened, _ = open_api(duckdb_path=path)
    with opened:
        yield opened


@pytest.mark.parametrize(("request_", "documented"), examples())
def test_an_example_answers(client, request_, documented):
    response = client.request(**{**request_, "headers": {**bearer(1), **request_["headers"]}})
    if documented:
        status, _, text = documented.strip().partition(" ")
        assert (response.status_code, response.json()) == (int(status), json.loads(text))
        return
    assert response.status_code == 200, response.text
    for result in response.json().get("results", [response.json()]):
        assert result["rows"] or request_["url"].endswith("limit=0")
    if "Prefer" in request_["headers"]:
        assert re.fullmatch(r"\*/[1-9]\d*", response.headers["content-range"])


def test_every_operator_function_and_parameter_is_documented():
    for name in (
        *OPERATORS,
        *STATES,
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "trunc",
        "select",
        "order",
        "limit",
        "cursor",
    ):
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`", SECTION), name
