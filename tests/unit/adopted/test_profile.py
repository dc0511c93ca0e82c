"""The profile that a project is built with is its own, but for where builds write."""

import shutil

import duckdb
import pytest
import yaml

from backend.errors import ConfigError
from backend.filepaths import REPO_ROOT
from deploy.pipeline.adopted.profile import copy_database, read_profile

PROJECT = REPO_ROOT / "tests" / "foreign" / "bike_shop"


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch, tmp_path):
    for name in ("DBT_PROFILE", "DBT_PROFILES_DIR", "DBT_TARGET", "DBT_THREADS", "SHOP_HOME", "SHOP_TARGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def project(tmp_path):
    """A project in ``tmp_path`` with this profile; ``write(path)`` changes what it builds in."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "dbt_project.yml").write_text("{name: p, profile: p}")

    def write(**output):
        profile = {"p": {"target": "t", "outputs": {"t": {"type": "duckdb", **output}}}}
        (root / "profiles.yml").write_text(yaml.safe_dump(profile))
        return root

    return write


def test_all_but_three_settings_are_carried_over_to_the_letter(tmp_path, monkeypatch):
    profile = read_profile(PROJECT)
    profile.write(tmp_path, tmp_path / "workspace")
    own = yaml.safe_load((PROJECT / "profiles.yml").read_text())["shop"]["outputs"]["dev"]
    ours = yaml.safe_load((tmp_path / "profiles.yml").read_text())["shop"]["outputs"]["dev"]
    places = {
        "path": str(tmp_path / "workspace" / "shop.dev.duckdb"),
        "external_root": str(tmp_path / "workspace" / "external"),
    }
    assert ours == {**own, **places}
    monkeypatch.setenv("DBT_THREADS", "7")
    profile.write(tmp_path, tmp_path / "workspace")
    ours = yaml.safe_load((tmp_path / "profiles.yml").read_text())["shop"]["outputs"]["dev"]
    assert ours == {**own, **places, "threads": 7}


def test_it_is_looked_for_where_dbt_looks(tmp_path, monkeypatch, project):
    root = project(path="here.duckdb")
    assert read_profile(root).database == root / "here.duckdb"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(root / "profiles.yml", elsewhere)
    with pytest.raises(ConfigError, match=r"no profiles\.yml in .*project or .*home/\.dbt"):
        read_profile(root)
    monkeypatch.setenv("DBT_PROFILES_DIR", str(elsewhere))
    assert read_profile(root).database == root / "here.duckdb"
    monkeypatch.delenv("DBT_PROFILES_DIR")
    shutil.move(elsewhere, tmp_path / "home" / ".dbt")
    assert read_profile(root).database == root / "here.duckdb"


@pytest.mark.parametrize("path", [None, ":memory:"])
def test_a_project_that_builds_in_memory_has_nothing_to_go_on_from(project, path):
    profile = read_profile(project(**({"path": path} if path else {})))
    assert profile.database is None
    assert profile.file_name == "memory.duckdb"


@pytest.mark.parametrize("output", [{"path": "md:shop"}, {"path": "ducklake:x"}, {"remote": {"host": "h", "port": 1}}])
def test_what_is_no_file_of_this_machine_is_refused(project, output):
    with pytest.raises(ConfigError, match="expected a DuckDB file of this machine"):
        read_profile(project(**output))


def test_another_adapters_target_is_refused(monkeypatch):
    monkeypatch.setenv("DBT_TARGET", "warehouse")
    with pytest.raises(ConfigError, match="the target 'warehouse' of the profile 'shop' is of type 'postgres'"):
        read_profile(PROJECT)


def test_a_target_that_is_not_there_is_told_which_are(monkeypatch):
    monkeypatch.setenv("SHOP_TARGET", "prod")
    with pytest.raises(ConfigError, match=r"has no target 'prod': there are dev, warehouse"):
        read_profile(PROJECT)


def test_a_variable_that_is_missing_is_named(project):
    with pytest.raises(ConfigError, match="the profile wants the variable SHOP_NOWHERE"):
        read_profile(project(path="{{ env_var('SHOP_NOWHERE') }}/x.duckdb"))


def test_what_is_in_the_log_of_a_database_is_copied_too(tmp_path):
    source, target = tmp_path / "own.duckdb", tmp_path / "ours.duckdb"
    with duckdb.connect(str(source), config={"checkpoint_threshold": "1TB"}) as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    assert source.with_name("own.duckdb.wal").is_file()
    copy_database(source, target)
    with duckdb.connect(str(target)) as connection:
        assert connection.execute("FROM kept").fetchall() == [(42,)]
