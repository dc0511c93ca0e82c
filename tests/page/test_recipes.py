"""The recipes of backend/README.md run as they stand there, and find what the API has."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from backend.filepaths import REPO_ROOT

SECTION = re.search(
    r"^## Recipes\n(.*?)(?=^## |\Z)", (REPO_ROOT / "backend/README.md").read_text(), re.DOTALL | re.MULTILINE
)[1]
QUERY = "/api/analytics/datasets/fct_transactions/query"


def recipes(language):
    """By what stands in bold before it."""
    found = []
    for part in re.split(r"^\*\*", SECTION, flags=re.MULTILINE)[1:]:
        if code := re.search(rf"^```{language}\n(.*?)^```", part, re.DOTALL | re.MULTILINE):
            found.append(pytest.param(code[1], id=re.match(r"[\w ]+", part)[0]))
    return found


@pytest.fixture
def environment(site, tmp_path):
    """Of whoever tries them, with DuckDB's extension where ``INSTALL`` would have put it."""
    wheel = Path(importlib.util.find_spec("duckdb_extension_httpfs").origin).parent
    (extension,) = wheel.rglob(f"v{duckdb.__version__}/httpfs.duckdb_extension")
    with duckdb.connect() as connection:
        (platform,) = connection.execute("PRAGMA platform").fetchone()
    installed = tmp_path / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / platform
    installed.mkdir(parents=True)
    shutil.copy(extension, installed)
    return {**os.environ, "HOME": str(tmp_path), "API": f"{site.url}/api/analytics", "TOKEN": site.token(1)}


def run(command, environment, directory):
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def totals(site):
    """What the API says itself."""
    answer = site.get(f"{QUERY}?select=category_name,total:amount.sum()")
    return {row["category_name"]: row["total"] for row in json.loads(answer.text, parse_float=Decimal)["rows"]}


@pytest.mark.parametrize("code", recipes("bash"))
def test_curl(site, code, environment, tmp_path):
    for _ in range(2):  # the second time, the file is there already
        months = json.loads(run(["bash", "-euc", code], environment, tmp_path))
        assert months["rows"]
        assert (tmp_path / "transactions.csv").read_bytes() == site.get(f"{QUERY}?format=csv").content


@pytest.mark.parametrize("code", recipes("python"))
def test_python(site, code, environment, tmp_path, totals):
    printed = run([sys.executable, "-c", code], environment, tmp_path)
    if "rows of" in printed:
        listed = site.get("/api/analytics/datasets").json()
        (dataset,) = [one for one in listed["datasets"] if one["id"] == "fct_transactions"]
        assert printed.split()[0] == str(dataset["row_count"])
        return
    for category, total in totals.items():
        assert re.search(rf"{category}\W+{re.escape(str(total))}\b", printed), printed


@pytest.mark.parametrize("code", recipes("javascript"))
def test_javascript(site, code, open_tab, totals):
    page = open_tab(site)
    page.goto("/docs")
    names = {"API": f"{site.url}/api/analytics", "TOKEN": site.token(1)}
    rows = page.evaluate(f"async ({{API, TOKEN}}) => {{ {code} return rows; }}", names)
    assert {row["category_name"]: float(total) for row, total in zip(rows, totals.values(), strict=True)} == {
        row["category_name"]: row["total"] for row in rows
    }


def test_there_is_one_for_each():
    assert [parameter.id for kind in ("bash", "python", "javascript") for parameter in recipes(kind)] == [
        "curl", "pandas", "polars", "All pages of JSON", "DuckDB", "JavaScript",
    ]  # fmt: skip
