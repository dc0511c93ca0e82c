import pytest

from deploy.rollout.compose import Config
from deploy.rollout.phases import MOVING, PATH_VARIABLES, PHASES, Mount, phase_of
from tests.compose.test_rendered import render

TAKEN = {
    "DBT_PROJECT_DIR": "/srv/shop",
    "LEGACY_DUCKDB_VOLUME": "shop_data",
    "LEGACY_DUCKDB_FILE": "dev/shop of ours.db",
}


@pytest.fixture(scope="module", params=PHASES)
def phase(request):
    return request.param


@pytest.fixture(scope="module")
def services(phase):
    return render(f"phase{phase}")["services"]


@pytest.mark.parametrize("service", MOVING)
def test_what_the_rollout_knows_of_a_phase_is_what_the_compose_files_say(phase, services, service):
    place = PHASES[phase][service]
    environment = services[service]["environment"]
    paths = {name: environment[name] for name in PATH_VARIABLES if name in environment}
    assert paths == {name: path.replace("*", "analytics.duckdb") for name, path in place.variables.items()}
    (mount,) = [mount for mount in services[service]["volumes"] if mount["source"] != "unused"]
    assert Mount(mount["type"], mount["target"], not mount.get("read_only", False)) == place.mount


@pytest.mark.parametrize("service", MOVING)
def test_a_stack_with_a_volume_and_a_file_of_its_own_is_of_the_same_phases(phase, service):
    taken = render(f"phase{phase}", **TAKEN)
    config, definition = Config(taken), taken["services"][service]
    mount = PHASES[phase][service].mount
    assert phase_of(service, definition["environment"], [mount]) == phase
    if phase < 2:
        assert config.storage(service, mount.target) == "shop_data"
        assert config.is_external("shop_data")
    assert not config.is_external("parquet-marts_dagster_postgres_data")


def test_where_the_marts_lie_is_what_the_compose_files_say(phase):
    config = Config(render(f"phase{phase}", COMPOSE_PROJECT_NAME="ours", PARQUET_HOST_DIR="/srv/marts of ours"))
    expected = "/srv/marts of ours" if phase == 2 else "ours_duckdb_data"
    assert {config.storage(service, PHASES[phase][service].mount.target) for service in MOVING} == {expected}


@pytest.mark.parametrize("service", MOVING)
def test_a_container_is_of_the_phase_that_its_variables_and_mounts_make_it(phase, service):
    place = PHASES[phase][service]
    others = [Mount("bind", "/run/secrets/jwt_secret", False, "/srv/secrets")]
    mount = Mount(place.mount.kind, place.mount.target, place.mount.writable, "/srv/marts")
    assert phase_of(service, {**place.variables, "PATH": "/bin"}, [*others, mount]) == phase


@pytest.mark.parametrize("service", MOVING)
def test_a_container_with_another_variable_mount_or_access_is_of_no_phase(phase, service):
    place = PHASES[phase][service]
    mount = place.mount
    assert phase_of(service, {**place.variables, "DUCKDB_PATH": "/elsewhere.duckdb"}, [mount]) is None
    assert phase_of(service, place.variables, []) is None
    assert phase_of(service, place.variables, [Mount(mount.kind, "/elsewhere", mount.writable)]) is None
    assert phase_of(service, place.variables, [Mount(mount.kind, mount.target, not mount.writable)]) is None
