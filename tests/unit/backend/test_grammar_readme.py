"""The examples of the query grammar's documentation run, on tables as dbt's contracts declare them."""

import json
import re

import pytest

from backend.api.analytics.filters import OPERATORS, STATES
from backend.filepaths import REPO_ROOT

from .api import bearer

SECTION = re.search(
    r"^## Query grammar\n(.*?)(?=^## |\Z)", (REPO_ROOT / "backend/README.md").read_text(), re.DOTALL | re.MULTILINE
)[1]


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


@pytest.mark.parametrize(("request_", "documented"), examples())
def test_an_example_answers(declared_client, request_, documented):
    response = declared_client.request(**{**request_, "headers": {**bearer(1), **request_["headers"]}})
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
