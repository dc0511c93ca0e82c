import pytest

from deploy.rollout.compose import Command, Compose, Config
from deploy.rollout.shell import CommandFailed, Shell
from tests.compose.test_rendered import render


def test_of_the_files_named_only_the_phase_is_exchanged():
    compose = Compose("compose/base.yaml:compose/phase0.yaml:/srv/phase0/ours.yaml")
    assert compose.files_of(2) == "compose/base.yaml:compose/phase2.yaml:/srv/phase0/ours.yaml"
    assert Compose(None).files_of(1) == "compose/base.yaml:compose/phase1.yaml"


def test_every_command_names_the_files_of_its_phase_and_says_so_when_printed():
    command = Compose(None).up(1, "dagster-daemon", wait=30)
    assert command.environment == {"COMPOSE_FILE": "compose/base.yaml:compose/phase1.yaml"}
    assert str(command).startswith("COMPOSE_FILE=compose/base.yaml:compose/phase1.yaml docker compose ")


def test_a_replica_is_added_without_touching_those_that_serve():
    arguments = Compose(None).add_replica(2, "backend", replicas=2).arguments
    assert {"--no-recreate", "--no-deps", "--detach"} < set(arguments)
    assert arguments[arguments.index("--scale") + 1] == "backend=2"


def test_a_container_of_its_own_is_removed_when_it_ends_unless_its_last_words_are_wanted():
    compose = Compose(None)
    attached = compose.run(1, "dagster-daemon", "true", name="x", volume="/srv/marts of ours:/seed:ro").arguments
    assert "--rm" in attached
    assert attached[attached.index("--volume") + 1] == "/srv/marts of ours:/seed:ro"
    assert "--rm" not in compose.run(1, "backend", name="x", detach=True).arguments


def test_a_secret_reaches_the_command_in_a_container_and_no_message():
    command = Compose(None).execute("backend-1", "printenv", "TOKEN", secrets={"TOKEN": "s3cret"})
    assert command.arguments == ("docker", "exec", "--env=TOKEN", "backend-1", "printenv", "TOKEN")
    assert "s3cret" not in f"{command} {command!r}"
    local = Command(("sh", "-c", 'printf %s "$TOKEN"; exit "$CODE"'), {"CODE": "0"}, {"TOKEN": "s3cret"})
    assert Shell().output(local) == "s3cret"
    with pytest.raises(CommandFailed) as failed:
        Shell().output(Command(("false",), {}, {"TOKEN": "s3cret"}))
    assert "s3cret" not in str(failed.value)


def test_the_configuration_gives_what_preflight_looks_at():
    config = Config(render("phase2", PORT="8111", DAGSTER_PORT="3111", SECRETS_HOST_DIR="/srv/secrets", APP_UID="42"))
    assert config.ports == {"gateway": ("127.0.0.1", 8111), "dagster-webserver": ("127.0.0.1", 3111)}
    assert config.secrets["jwt_secret"] == "/srv/secrets/jwt_secret"
    assert "ca_bundle" not in config.secrets
    assert config.user("backend") == "42:10001"
    assert config.variable("dagster-daemon", "SNAPSHOTS_KEEP") == "5"
    assert config.variable("backend", "DUCKDB_PATH") is None


def test_ports_that_the_engine_picks_are_nobodys_to_check():
    assert Config(render("phase2", "test")).ports == {}
