""".env_example is complete, true and enough for ``docker compose up``."""

import inspect
import re
import shutil

import pytest
import yaml

from backend.config import Settings
from backend.filepaths import DBT_PROJECT_DIR, REPO_ROOT, dbt_target_dir, rollout_dir, secret_file
from deploy.pipeline.settings import PipelineSettings
from deploy.rollout.settings import RolloutSettings
from deploy.source import __main__ as source

from .test_rendered import COMPOSE_DIR, LOOKS_SECRET, compose, render

ENV_EXAMPLE = REPO_ROOT / ".env_example"
COMPOSE_FILES = sorted(COMPOSE_DIR.glob("*.yaml"))
SETTINGS = (Settings, PipelineSettings, RolloutSettings)
NAME = "[A-Z][A-Z0-9_]*"

# Read by Compose itself, before any file of ours.
COMPOSE_OWN = {"COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}

# A mount can't be left out: what is mounted, and where, while the variable is empty.
PLACEHOLDERS = {
    "DBT_PROJECT_DIR": {"unused", "/opt/dagster/project"},
    "DBT_FILES_DIR": {"unused", "/opt/dagster/files"},
}

# Read somewhere, and nobody's to set in .env: name -> why.
NOT_SETTINGS = {
    "DAGSTER_PG_HOST": "the Compose files name their own database",
    "DAGSTER_PG_USER": "the Compose files name their own database",
    "DAGSTER_PG_DB": "the Compose files name their own database",
    "DAGSTER_PG_PASSWORD": "set by the entrypoint from a secret's file",
    "DBT_ENV_SECRET_SOURCE_PASSWORD": "set by the entrypoint from a secret's file",
    "MART_BUILD_DIR": "set by the build for the dbt that it starts",
    "POSTGRES_USER": "the postgres image's, set by base.yaml",
    "POSTGRES_DB": "the postgres image's, set by base.yaml",
    "DOCKER_CONFIG": "the host's own",
    "PIP_CERT": "the host's own; CA_BUNDLE is where it is not set",
    "SSL_CERT_FILE": "the host's own; CA_BUNDLE is where it is not set",
    "TMPDIR": "the host's own",
    "PYTHONPATH": "the host's own",
    "PYTHONDONTWRITEBYTECODE": "set by a build for the dbt of a project of one's own",
    "TOKEN": "the rollout's, for a script in a backend's container",
    "USER": "the host's own",
    "PHASE": "make's argument; .env names the phase in COMPOSE_FILE",
    "USER_ID": "make's argument, for one command",
    "SNAPSHOT": "make's argument, for one command",
    "STATE": "make's argument; only what runs without containers has it",
}


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch):
    for name in example():
        monkeypatch.delenv(name, raising=False)


def example():
    """Name -> value, active or commented: prose has a space after its ``#``."""
    pairs = re.findall(rf"^#?({NAME})=(.*)$", ENV_EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(dict(pairs)) == len(pairs), "a variable is there twice"
    return dict(pairs)


def compose_defaults():
    """Name -> the defaults of all ``${NAME:-default}`` in the Compose files."""
    found = {}
    for file in COMPOSE_FILES:
        for name, default in re.findall(rf"(?<!\$)\$\{{({NAME})(?::?-([^}}]*))?", file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(default)
    return found


def shell_defaults():
    found = {}
    for file in [*REPO_ROOT.glob("deploy/setup/*.sh"), *REPO_ROOT.glob("deploy/source/initdb/*.sh")]:
        for name, default in re.findall(rf"\$\{{({NAME}):?[-?]([^}}]*)", file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(default)
    return found


def makefile_variables():
    text = (REPO_ROOT / "Makefile").read_text(encoding="utf-8")
    defaults = re.findall(rf"^({NAME}) *\?=", text, re.MULTILINE)
    exported = " ".join(re.findall(r"^export ([A-Z_ ]+)$", text, re.MULTILINE)).split()
    ours = re.findall(rf"\$\$\{{({NAME})[:}}]", text)
    arguments = re.findall(rf'"\$\(({NAME})\)"', text)
    return {*defaults, *exported, *ours, *arguments}


def setting_variables():
    return {
        (model.model_config.get("env_prefix", "") + field).upper() for model in SETTINGS for field in model.model_fields
    }


def code_variables():
    """What Python, dbt's configuration and SQL read by name."""
    reads = re.compile(
        rf"""(?:environ(?:\.get\(|\[)|getenv\(|env_var\(|envvar=|_optional\(|_required\()\s*["']({NAME})["']"""
    )
    files = [
        file
        for pattern in ("backend/**/*.py", "deploy/**/*.py", "dbt/*.yml", "dbt/*/**/*.sql", "dbt/*/**/*.py")
        for file in REPO_ROOT.glob(pattern)
        if not file.is_relative_to(DBT_PROJECT_DIR / "target")
    ]
    return {name for file in files for name in reads.findall(file.read_text(encoding="utf-8"))}


def used():
    return {
        *compose_defaults(),
        *shell_defaults(),
        *makefile_variables(),
        *setting_variables(),
        *code_variables(),
        *COMPOSE_OWN,
    }


def dbt_defaults():
    text = (DBT_PROJECT_DIR / "profiles.yml").read_text(encoding="utf-8")
    return dict(re.findall(rf"env_var\('({NAME})'(?:, *'([^']*)')?\)", text))


# --- complete ---------------------------------------------------------------------------------------------------------
def test_every_variable_that_is_used_is_there():
    assert used() - set(NOT_SETTINGS) - set(example()) == set()


def test_every_variable_there_is_used():
    assert set(example()) - used() == set()


def test_what_is_left_out_is_still_used_and_not_there_as_well():
    outdated = set(NOT_SETTINGS) - used()
    assert outdated == set()
    assert set(NOT_SETTINGS) & set(example()) == set()


def test_the_compose_files_pass_each_setting_to_its_service():
    services = render("phase2")["services"]
    for service, model in (("backend", Settings), ("dagster-daemon", PipelineSettings)):
        prefix = model.model_config.get("env_prefix", "")
        for name in ((prefix + field).upper() for field in model.model_fields):
            assert services[service]["environment"][name] == example()[name], name
            value = render("phase2", **{name: "41"})["services"][service]["environment"][name]
            assert value == "41", name


def test_every_variable_is_explained():
    explained = False
    for line in ENV_EXAMPLE.read_text(encoding="utf-8").splitlines():
        if re.match(rf"#?{NAME}=", line):
            assert explained, f"no word on {line}"
        else:
            explained = line.startswith("# ") and not line.startswith("# ---")


# --- true -------------------------------------------------------------------------------------------------------------
def test_defaults_are_those_of_the_compose_files():
    for name, defaults in compose_defaults().items():
        assert PLACEHOLDERS.get(name, set()) <= defaults, name
        assert defaults - PLACEHOLDERS.get(name, set()) in ({example()[name]}, set()), name


def test_defaults_are_those_of_the_settings_classes(monkeypatch):
    built_in = [model() for model in SETTINGS]
    for name in setting_variables():
        monkeypatch.setenv(name, example()[name])
    assert [model() for model in SETTINGS] == built_in


def test_defaults_are_those_of_set_up():
    defaults, ours = shell_defaults(), example()
    assert defaults["CA_BUNDLE"] == {ours["CA_BUNDLE"]}
    assert defaults["DEBIAN_MIRROR"] == {ours["DEBIAN_MIRROR"]}
    (secrets,) = defaults["SECRETS_HOST_DIR"]
    assert (REPO_ROOT / secrets).resolve() == (COMPOSE_DIR / ours["SECRETS_HOST_DIR"]).resolve()


def test_defaults_are_those_of_the_source():
    scales = {
        float(inspect.signature(command).parameters["scale"].default)
        for command in (source.seed_postgres, source.seed_embedded)
    }
    assert scales == {float(example()["SOURCE_SCALE"])}
    assert inspect.signature(source.traffic).parameters["rate"].default == float(example()["TRAFFIC_RATE"])


def test_defaults_are_those_of_dbt():
    ours = example()
    for name, default in dbt_defaults().items():
        # Those two are said as Compose has them.
        if name not in {*NOT_SETTINGS, "DBT_TARGET", "DBT_PROJECT_DIR"}:
            assert ours[name] == default, name


def test_defaults_are_those_of_paths():
    assert str(secret_file("x").parent) == example()["SECRETS_DIR"]
    assert dbt_target_dir() == REPO_ROOT / example()["DBT_TARGET_PATH"]
    assert rollout_dir() == REPO_ROOT / example()["ROLLOUT_DIR"]


def test_the_image_names_are_those_that_are_pinned():
    pins = dict(re.findall(rf"^({NAME})=(.*)$", (REPO_ROOT / "deploy/images/pins.env").read_text(), re.MULTILINE))
    assert {name: image.partition("@")[0] for name, image in pins.items()} == {name: example()[name] for name in pins}


def test_the_project_is_named_the_same():
    project = yaml.safe_load((COMPOSE_DIR / "base.yaml").read_text(encoding="utf-8"))["name"]
    assert project == example()["COMPOSE_PROJECT_NAME"]


# --- enough -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def clone(tmp_path):
    """A clone in which ``cp .env_example .env`` was done."""
    root = tmp_path / "clone"
    shutil.copytree(COMPOSE_DIR, root / "compose")
    shutil.copy(ENV_EXAMPLE, root / ".env")
    return root


def test_compose_without_files_named_is_phase_2_of_this_clone(clone):
    files = ("-f", clone / "compose/base.yaml", "-f", clone / "compose/phase2.yaml")
    assert compose(directory=clone) == compose(*files, directory=clone)


def test_uncommenting_every_default_changes_nothing(clone):
    untouched = compose(directory=clone)
    env = clone / ".env"
    env.write_text(re.sub(rf"^#({NAME}=)", r"\1", env.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert compose(directory=clone) == untouched


def test_what_env_sets_reaches_the_services(clone):
    with (clone / ".env").open("a") as env:
        env.write('APP_UID=4242\nPORT=8111\nAPI_MAX_LIMIT=7\nPARQUET_HOST_DIR="/srv/marts of ours"\n')
    config = compose(directory=clone)
    backend = config["services"]["backend"]
    assert backend["user"] == "4242:10001"
    assert config["services"]["gateway"]["ports"][0]["published"] == "8111"
    assert backend["environment"]["API_MAX_LIMIT"] == "7"
    assert backend["volumes"][0]["source"] == "/srv/marts of ours"


def test_no_secret_belongs_in_env():
    assert {name for name in example() if LOOKS_SECRET.search(name)} == {"SECRETS_DIR", "SECRETS_HOST_DIR"}
