import json
import re

import pytest

from backend.filepaths import DBT_PROJECT_DIR
from tests.marts import MARTS

SHARED_BY_ALL_USERS = {"dim_categories", "dim_merchants"}


@pytest.fixture(scope="session")
def manifest(parsed):
    return json.loads((parsed / "manifest.json").read_text())


@pytest.fixture(scope="session")
def models(manifest):
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


@pytest.fixture(scope="session")
def marts(models):
    return {name: model for name, model in models.items() if "marts" in model["path"].split("/")}


def parents(node):
    """Names of the models and tables a node reads."""
    return {parent.split(".")[-1] for parent in node["depends_on"]["nodes"]}


def columns_tested(manifest, mart, kind):
    """The columns (None for the whole mart) that tests of this kind are attached to."""
    nodes = [node for node in manifest["nodes"].values() if node.get("attached_node") == mart["unique_id"]]
    return [node["column_name"] for node in nodes if (node.get("test_metadata") or {}).get("name") == kind]


def test_there_are_eleven_marts_by_these_names(marts):
    assert marts.keys() == MARTS


def test_every_mart_says_its_grain_and_all_its_columns(marts):
    for name, mart in marts.items():
        assert mart["description"].startswith("One row per "), name
        assert mart["config"]["meta"]["dataset"] is True, name
        for column in mart["columns"].values():
            assert column["data_type"], (name, column)
            assert column["description"].strip(), (name, column)


def test_every_mart_has_an_enforced_contract_and_requires_a_user_where_it_has_one(marts):
    for name, mart in marts.items():
        assert mart["contract"]["enforced"] is True, name
        if name not in SHARED_BY_ALL_USERS:
            constraints = mart["columns"]["user_id"]["constraints"]
            assert "not_null" in {constraint["type"] for constraint in constraints}, name


def test_every_mart_has_a_tested_key_and_belongs_to_known_users(marts, manifest):
    for name, mart in marts.items():
        keys = columns_tested(manifest, mart, "unique") + columns_tested(manifest, mart, "unique_together")
        assert keys, f"{name}: nothing tests that its rows are one per grain"
        if name not in SHARED_BY_ALL_USERS | {"dim_users"}:
            assert "user_id" in columns_tested(manifest, mart, "relationships"), name


def test_a_mart_reads_staging_only_or_marts_only_and_is_tagged_for_it(marts, models):
    for name, mart in marts.items():
        assert parents(mart), name
        if parents(mart) <= marts.keys():
            assert mart["tags"] == ["auto_eager"], name
        else:
            assert parents(mart) <= models.keys() - marts.keys(), name
            assert mart["tags"] == ["auto_hourly"], name


def test_a_staging_model_reads_its_one_table_and_leaves_nothing_behind(models, marts):
    staging = {name: model for name, model in models.items() if name not in marts}
    assert len(staging) == 7
    for name, model in staging.items():
        assert parents(model) == {name.removeprefix("stg_finance__")}
        assert model["config"]["materialized"] == "ephemeral"


def test_marts_are_laid_out_for_reads_by_user(marts):
    for name, mart in marts.items():
        order = mart["raw_code"].rsplit("order by", 1)[-1]
        assert re.match(r" user_id\b", order) or name in SHARED_BY_ALL_USERS, name
        assert mart["config"]["options"] == {"format": "parquet", "compression": "zstd", "row_group_size": "10240"}
        assert not mart["config"].get("location"), f"{name}: two marts with one location overwrite each other unnoticed"


def test_singular_tests_say_what_they_assert():
    texts = {path.name: path.read_text() for path in (DBT_PROJECT_DIR / "tests").glob("*.sql")}
    assert texts
    assert [name for name, text in texts.items() if not text.startswith("-- Assert that ")] == []


def test_the_dbt_directory_is_no_package():
    """An ``__init__.py`` in it would hide the installed dbt from everything run at the repository root."""
    assert list(DBT_PROJECT_DIR.rglob("__init__.py")) == []
