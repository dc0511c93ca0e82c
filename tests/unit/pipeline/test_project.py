import copy
import hashlib
import json

import pytest

from backend.errors import BuildFailed
from backend.filepaths import DBT_PROJECT_DIR
from deploy.pipeline.project import DbtProject

BALANCES = "agg_daily_balance"
MACRO = "macro.analytics.fingerprint"


@pytest.fixture(scope="module")
def manifest(parsed):
    return json.loads((parsed / "manifest.json").read_text())


@pytest.fixture(scope="module")
def project(manifest):
    return DbtProject(manifest)


@pytest.fixture(scope="module")
def specs(project):
    return {spec.name: spec for spec in project.specs}


def codes_that_change(manifest, edit):
    """The marts whose code is another one once ``edit`` was applied to a copy of the manifest."""
    edited = copy.deepcopy(manifest)
    edit(edited)
    before, after = ({spec.name: spec.code for spec in DbtProject(m).specs} for m in (manifest, edited))
    return {name for name in before if before[name] != after[name]}


def rewritten(model):
    """The edit that another SQL of this model is."""
    return lambda manifest: manifest["nodes"][f"model.analytics.{model}"]["checksum"].update(checksum="another")


def test_eleven_marts_each_after_all_it_reads(project):
    names = [spec.name for spec in project.specs]
    assert len(names) == len(set(names)) == 11
    for name in names:
        assert project.parent_marts(name) <= set(names[: names.index(name)]), name


def test_parent_marts_are_those_a_mart_reads(project):
    assert project.parent_marts(BALANCES) == {"dim_accounts", "fct_transactions", "fct_transfers"}
    assert project.parent_marts("agg_budget_monthly") == {"fct_budgets", "fct_transactions"}
    assert project.parent_marts("fct_transactions") == set()


def test_sources_are_followed_through_staging_models_and_marts(specs):
    assert specs["dim_users"].sources == ("users",)
    assert specs["fct_transfers"].sources == ("accounts", "transfers")
    assert specs["fct_transactions"].sources == ("accounts", "categories", "merchants", "transactions")
    assert specs[BALANCES].sources == ("accounts", "categories", "merchants", "transactions", "transfers")


def test_types_are_duckdbs_text_for_them(specs):
    types = {column.name: column.type for column in specs["fct_transactions"].columns}
    assert types["amount"] == "DECIMAL(12,2)"
    assert types["posted_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["user_id"] == "INTEGER"
    assert {column.name: column.type for column in specs["dim_categories"].columns}["path"] == "VARCHAR[]"


def test_columns_keep_their_order_and_their_descriptions(specs):
    columns = specs["dim_users"].columns
    assert [column.name for column in columns] == ["user_id", "email", "full_name", "country", "created_at", "note"]
    assert all(column.description for column in columns)
    assert specs["dim_users"].description == "One row per user."


def test_the_code_changes_with_the_marts_own_sql(manifest):
    assert codes_that_change(manifest, rewritten(BALANCES)) == {BALANCES}
    assert codes_that_change(manifest, rewritten("dim_users")) == {"dim_users"}


def test_the_code_changes_with_a_staging_model_the_mart_reads(manifest):
    changed = codes_that_change(manifest, rewritten("stg_finance__accounts"))
    assert changed == {"dim_accounts", "fct_transactions", "fct_transfers"}


def test_the_code_of_all_marts_changes_with_a_macro_of_the_project(manifest, specs):
    def edit(edited):
        edited["macros"][MACRO]["macro_sql"] += " "

    assert codes_that_change(manifest, edit) == specs.keys()


def test_the_code_stays_for_what_does_not_make_rows(manifest):
    def edit(edited):
        for node in edited["nodes"].values():
            node["description"] = "another"
            if node["resource_type"] == "test":
                node["checksum"]["checksum"] = "another"
        for name, macro in edited["macros"].items():
            if not name.startswith("macro.analytics."):
                macro["macro_sql"] = "another"
        edited["metadata"]["invocation_id"] = "another"

    assert codes_that_change(manifest, edit) == set()


def test_dbts_checksum_is_of_the_models_sql(manifest):
    """The rest relies on it."""
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            text = (DBT_PROJECT_DIR / node["original_file_path"]).read_text()
            assert node["checksum"]["checksum"] == hashlib.sha256(text.strip().encode()).hexdigest(), node["name"]


def test_a_missing_manifest_says_what_to_run(tmp_path):
    with pytest.raises(BuildFailed, match="No such file") as caught:
        DbtProject.read(tmp_path / "manifest.json")
    assert str(tmp_path) in caught.value.message
    assert "dbt parse" in caught.value.hint
