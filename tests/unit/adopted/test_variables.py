"""An adopted project's variables come from one file, in containers and without."""

import os

import pytest

from backend.errors import ConfigError
from deploy.pipeline.adopted.variables import provide_variables


@pytest.fixture
def provided(monkeypatch, tmp_path):
    """The environment after the file had this text; no text: there is none."""

    def provide(text, **environment):
        if text is not None:
            (tmp_path / "dbt_env").write_text(text)
        monkeypatch.setattr(os, "environ", {"SECRETS_DIR": str(tmp_path), **environment})
        provide_variables()
        return {name: value for name, value in os.environ.items() if name != "SECRETS_DIR"}

    return provide


def test_values_are_as_they_stand_there(provided):
    text = "# of the shop\nSHOP_TILL=/srv/our shop/till.duckdb\n\nSHOP_KEY=a$b${SHOP_TILL}=\nSHOP_SAYS='# 1'\n"
    found = provided(text)
    assert found == {"SHOP_TILL": "/srv/our shop/till.duckdb", "SHOP_KEY": "a$b${SHOP_TILL}=", "SHOP_SAYS": "# 1"}


def test_what_is_set_already_stays(provided):
    assert provided("A=file\nDBT_TARGET=file", A="set", DBT_TARGET="set") == {"A": "set", "DBT_TARGET": "set"}


def test_what_compose_passes_empty_is_not_set(provided):
    empty = dict.fromkeys(("DBT_TARGET", "DBT_PROFILE", "DBT_PROFILES_DIR"), "")
    assert provided("DBT_PROFILE=shop", **empty) == {"DBT_PROFILE": "shop"}


def test_it_need_not_be_there(provided):
    assert provided(None) == {}


def test_a_line_that_sets_nothing_is_refused(provided):
    with pytest.raises(ConfigError, match=r"dbt_env has 'SHOP_TILL', expected NAME=value"):
        provided("A=1\nSHOP_TILL\n")
