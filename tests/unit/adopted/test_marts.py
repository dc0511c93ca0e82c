"""Which relations of a project are marts."""

import copy

import pytest

from backend.errors import BuildFailed, ConfigError
from deploy.pipeline.adopted.project import AdoptedProject, default_marts, parsed_project

FOLDER = {"sales_log", "turnover", "best_sellers", "price_list", "complaints", "addresses", "recalls", "marks"}


@pytest.fixture(scope="module")
def selected(installed):
    """``selected(selector)``: the project as it is parsed with that MART_SELECTOR, and a copy of its manifest."""

    def parse(selector):
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in {**installed.variables, "MART_SELECTOR": selector}.items():
                monkeypatch.setenv(name, value)
            for name in ("DBT_PROFILE", "DBT_PROFILES_DIR", "DBT_TARGET"):
                monkeypatch.delenv(name, raising=False)
            with parsed_project(installed.project, stdout=2) as project:
                return project

    return parse


@pytest.fixture(scope="module")
def project(selected):
    return selected("")


def names(unique_ids):
    return {unique_id.split(".")[-1] for unique_id in unique_ids}


def without_the_folder(manifest):
    edited = copy.deepcopy(manifest)
    for node in edited["nodes"].values():
        node["original_file_path"] = node["original_file_path"].replace("models/marts/", "models/")
    return edited


def test_without_a_word_they_are_the_models_in_folders_called_marts(project):
    assert project.selector == "path:models/marts"
    assert names(project.marts) == FOLDER, "and not the one that is disabled"


def test_those_that_say_that_they_are_datasets_come_before_the_folder(project):
    edited = copy.deepcopy(dict(project.manifest))
    for unique_id in ("model.bike_shop.turnover", "seed.bike_shop.product_groups"):
        edited["nodes"][unique_id]["config"]["meta"] = {"dataset": True}
    selector, marts = default_marts(edited)
    assert selector == "config.meta.dataset:true"
    assert names(marts) == {"turnover", "product_groups"}


def test_without_either_they_are_the_models_that_no_other_reads(project):
    selector, marts = default_marts(without_the_folder(project.manifest))
    assert names(marts) == FOLDER - {"sales_log", "price_list"}, "of which turnover and marks are made"
    assert "fqn:bike_shop.marts.finance.turnover" in selector.split()


def test_what_is_printed_for_the_leaves_selects_the_same_in_dbt(project, selected):
    selector, marts = default_marts(without_the_folder(project.manifest))
    assert set(selected(selector).marts) == set(marts)


def test_a_selector_of_ones_own_decides_alone_and_ephemeral_models_are_none(selected):
    chosen = selected("+turnover named_customers customer_history")
    assert set(chosen.relations) == {"Sales_Clean", "Sales", "product_groups", "turnover", "customer_history"}


def test_a_selector_that_selects_nothing_is_refused(selected):
    with pytest.raises(BuildFailed, match="is a mart by 'tag:of_nothing'"):
        selected("tag:of_nothing")


def test_marts_of_one_name_are_told_apart_by_their_schemas(project):
    edited = copy.deepcopy(dict(project.manifest))
    edited["nodes"]["model.bike_shop.complaints"]["alias"] = "SALES"
    renamed = AdoptedProject(project.root, project.parsed, project.profile, edited, project.selector, project.marts)
    assert {"main_finance.Sales", "main_reporting.SALES", "turnover"} <= renamed.relations.keys()
    assert renamed.mart_nodes["main_reporting.SALES"] == "model.bike_shop.complaints"


def test_a_user_column_that_is_no_name_is_refused(project):
    edited = copy.deepcopy(dict(project.manifest))
    edited["nodes"]["model.bike_shop.complaints"]["config"]["meta"] = {"user_column": ["customer_no"]}
    wrong = AdoptedProject(project.root, project.parsed, project.profile, edited, project.selector, project.marts)
    with pytest.raises(BuildFailed, match=r"meta\.user_column of complaints is \['customer_no'\]"):
        _ = wrong.relations


def test_a_model_that_writes_into_what_is_served_is_refused(project, installed, tmp_path):
    project.check_locations(tmp_path / "parquet")
    with pytest.raises(ConfigError, match=r"addresses writes to .*this\.identifier.*before any test has passed"):
        project.check_locations(installed.home)


def test_parents_that_are_not_there_yet_are_built_with_a_part(project):
    there = {("main_finance", "sales"), ("main_prep", "sales_clean")}
    assert names(project.missing_parents({"turnover"}, there)) == {"product_groups"}
    there |= {("main_reference", "product_groups")}
    assert project.missing_parents({"turnover"}, there) == []
    assert project.with_readers({"Sales"}) == {"Sales", "turnover"}
