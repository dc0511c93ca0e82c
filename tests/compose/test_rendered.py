"""What Compose makes of the files: base alone, each phase, and each phase as the tests run it. Needs no engine."""

import importlib.util
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from backend.catalog import path_of
from backend.config import Settings
from backend.filepaths import REPO_ROOT

COMPOSE_DIR = REPO_ROOT / "compose"
PARQUET = REPO_ROOT / "data" / "parquet"
SERVICES = {
    "postgres",
    "source-seed",
    "traffic",
    "dagster-postgres",
    "dagster-daemon",
    "dagster-webserver",
    "backend",
    "gateway",
    "storage-init",
}
STACKS = {
    "base": (),
    "phase0": ("phase0",),
    "phase1": ("phase1",),
    "phase2": ("phase2",),
    "phase0-test": ("phase0", "test"),
    "phase1-test": ("phase1", "test"),
    "phase2-test": ("phase2", "test"),
}
PHASES = ("phase0", "phase1", "phase2")

DAGSTER_DATA = "/opt/dagster/dagster_home/data"
BUILD_FILE = "/tmp/dbt_build.duckdb"
ALWAYS_MOUNTED = {
    "postgres": {
        "postgres_data:/var/lib/postgresql/data:rw",
        f"{REPO_ROOT}/deploy/source/initdb:/docker-entrypoint-initdb.d:ro",
    },
    "dagster-postgres": {"dagster_postgres_data:/var/lib/postgresql/data:rw"},
    "dagster-daemon": {"unused:/opt/dagster/project:ro", "unused:/opt/dagster/files:rw"},
}
SHARED_VOLUME = {
    "storage-init": {"duckdb_data:/storage:rw"},
    "backend": {"duckdb_data:/app/data:ro"},
    "dagster-daemon": {f"duckdb_data:{DAGSTER_DATA}:rw"},
    "dagster-webserver": {f"duckdb_data:{DAGSTER_DATA}:ro"},
}
STORAGE = {
    "base": {},
    "phase0": SHARED_VOLUME,
    "phase1": SHARED_VOLUME,
    "phase2": {
        "storage-init": {f"{PARQUET}:/storage:rw"},
        "backend": {f"{PARQUET}:/app/data/parquet:ro"},
        "dagster-daemon": {f"{PARQUET}:{DAGSTER_DATA}/parquet:rw"},
        "dagster-webserver": {f"{PARQUET}:{DAGSTER_DATA}/parquet:ro"},
    },
}
BUILDER = {"PARQUET_DIR": f"{DAGSTER_DATA}/parquet", "DUCKDB_PATH": BUILD_FILE}
PATHS = {
    "base": {},
    "phase0": {
        "backend": {"DUCKDB_PATH": "/app/data/analytics.duckdb"},
        "dagster-daemon": {"DUCKDB_PATH": f"{DAGSTER_DATA}/analytics.duckdb"},
        "dagster-webserver": {"DUCKDB_PATH": f"{DAGSTER_DATA}/analytics.duckdb"},
    },
    "phase1": {
        "backend": {"PARQUET_DIR": "/app/data/parquet", "DUCKDB_PATH": "/app/data/analytics.duckdb"},
        "dagster-daemon": BUILDER | {"LEGACY_DUCKDB_PATH": f"{DAGSTER_DATA}/analytics.duckdb"},
        "dagster-webserver": BUILDER,
    },
    "phase2": {
        "backend": {"PARQUET_DIR": "/app/data/parquet"},
        "dagster-daemon": BUILDER,
        "dagster-webserver": BUILDER,
    },
}
PATH_VARIABLES = {"PARQUET_DIR", "DUCKDB_PATH", "LEGACY_DUCKDB_PATH"}

PORTS = {"gateway": 8000, "dagster-webserver": 3000}
SECRETS = {
    "postgres": {"postgres_password", "source_owner_password", "source_reader_password"},
    "source-seed": {"source_owner_password"},
    "traffic": {"source_owner_password"},
    "dagster-postgres": {"dagster_db_password"},
    "dagster-daemon": {"dagster_db_password", "source_reader_password", "dbt_env"},
    "dagster-webserver": {"dagster_db_password"},
    "backend": {"jwt_secret", "jwks"},
    "gateway": set(),
    "storage-init": set(),
}
# Nobody waits for it or asks it anything, and it connects again by itself.
NEEDS_NO_HEALTH_CHECK = {"traffic"}
# It has something to do meanwhile.
WAITS_BY_ITSELF = ("dagster-webserver", "dagster-daemon")
WAYS_OUT = (
    "privileged",
    "container_name",
    "devices",
    "device_cgroup_rules",
    "pid",
    "ipc",
    "userns_mode",
    "uts",
    "cgroup",
    "cgroup_parent",
    "group_add",
    "volumes_from",
    "sysctls",
    "runtime",
)
LOOKS_SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|(^|_)KEY($|_)", re.IGNORECASE)


def compose(*arguments, directory=REPO_ROOT, **variables):
    """The configuration that ``docker compose <arguments>`` in ``directory`` renders with only these variables."""
    binary = Path(importlib.util.find_spec("compose").origin).with_name("docker-compose")
    done = subprocess.run(
        [binary, "--profile", "*", *arguments, "config", "--format", "json"],
        cwd=directory,
        env={"HOME": str(directory), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def render(*overlays, **variables):
    """``base.yaml`` and these overlays; whoever keeps a compose/.env sees the same."""
    files = [option for name in ("base", *overlays) for option in ("-f", COMPOSE_DIR / f"{name}.yaml")]
    return compose("--env-file", "/dev/null", *files, **variables)


@cache
def stack(name):
    return render(*STACKS[name])


@pytest.fixture(params=STACKS)
def name(request):
    return request.param


@pytest.fixture
def config(name):
    return stack(name)


@pytest.fixture
def services(config):
    return config["services"]


def mounts(service):
    return {
        f"{mount['source']}:{mount['target']}:{'ro' if mount.get('read_only') else 'rw'}"
        for mount in service.get("volumes", [])
    }


def networks(service):
    return set(service.get("networks") or ())


def path_variables(service):
    return {key: value for key, value in (service.get("environment") or {}).items() if key in PATH_VARIABLES}


def one_shots(services):
    """Services that others wait for to end."""
    return {
        needed
        for service in services.values()
        for needed, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }


def changes(before, after):
    """Service -> the keys of it that differ."""
    found = {
        name: {key for key in before[name].keys() | after[name] if before[name].get(key) != after[name].get(key)}
        for name in before
    }
    return {name: keys for name, keys in found.items() if keys}


def test_every_service_is_there_whatever_the_phase(services):
    assert set(services) == SERVICES


# --- storage ----------------------------------------------------------------------------------------------------------
def test_each_service_has_the_mounts_of_its_phase_and_no_other(name, services):
    phase = name.removesuffix("-test")
    for service in SERVICES:
        expected = ALWAYS_MOUNTED.get(service, set()) | STORAGE[phase].get(service, set())
        assert mounts(services[service]) == expected, service


def test_each_service_has_the_path_variables_of_its_phase_and_no_other(name, services):
    phase = name.removesuffix("-test")
    for service in SERVICES:
        assert path_variables(services[service]) == PATHS[phase].get(service, {}), service


def test_the_build_file_of_phases_1_and_2_is_on_no_mount():
    for phase in ("phase1", "phase2"):
        for service in ("dagster-daemon", "dagster-webserver"):
            definition = stack(phase)["services"][service]
            assert any(mount.split(":")[0] == "/tmp" for mount in definition["tmpfs"]), service
            assert not any(mount.split(":")[1].startswith("/tmp") for mount in mounts(definition)), service


def test_no_volume_is_a_host_path_in_disguise(config):
    for volume, definition in config["volumes"].items():
        assert set(definition) == {"name"}, volume


def test_the_parquet_directory_may_have_a_space_in_its_name():
    services = render("phase2", PARQUET_HOST_DIR="/srv/marts of ours")["services"]
    assert {
        service: mounts(services[service]) - ALWAYS_MOUNTED.get(service, set()) for service in STORAGE["phase2"]
    } == {
        service: {mount.replace(str(PARQUET), "/srv/marts of ours") for mount in expected}
        for service, expected in STORAGE["phase2"].items()
    }


# --- a dbt project of one's own ---------------------------------------------------------------------------------------
SHOP = {
    "DBT_PROJECT_DIR": "/srv/our shop/dbt",
    "DBT_FILES_DIR": "/srv/our shop",
    "DBT_TARGET": "",
    "DBT_PROFILE": "shop",
    "DBT_PROFILES_DIR": "/srv/our shop/dbt/profile",
    "MART_SELECTOR": "tag:mart",
    "SOURCE_REPLICAS": "0",
    "SOURCE_NETWORK_INTERNAL": "false",
}


def test_a_project_has_its_own_path_in_the_daemon_alone_which_writes_beside_it():
    services = render("phase2", **SHOP)["services"]
    ours = {mount for mount in mounts(services["dagster-daemon"]) if "shop" in mount}
    assert ours == {"/srv/our shop/dbt:/srv/our shop/dbt:ro", "/srv/our shop:/srv/our shop:rw"}
    assert not [name for name, service in services.items() if "unused" in str(mounts(service))]
    assert {name for name, service in services.items() if "shop" in str(service)} == {"dagster-daemon"}


def test_the_daemon_knows_which_project_and_which_marts():
    environment = render("phase2", **SHOP)["services"]["dagster-daemon"]["environment"]
    told = {name: environment.get(name) for name in SHOP}
    assert told == {**SHOP, **dict.fromkeys(["DBT_FILES_DIR", "SOURCE_REPLICAS", "SOURCE_NETWORK_INTERNAL"])}


TAKEN = {"LEGACY_DUCKDB_VOLUME": "shop_data", "LEGACY_DUCKDB_FILE": "dev/shop.db"}


@pytest.mark.parametrize("phase", ["phase0", "phase1"])
def test_a_stack_that_is_taken_over_keeps_its_volume_and_its_file(phase):
    config = render(phase, **SHOP, **TAKEN)
    (volume,) = [definition for definition in config["volumes"].values() if definition["name"] == "shop_data"]
    assert volume == {"name": "shop_data", "external": True}, "neither made nor deleted"
    assert "duckdb_data" not in config["volumes"]
    for service in SERVICES:
        ours = {mount.replace("legacy_", "") for mount in mounts(config["services"][service]) if "duckdb" in mount}
        assert ours == STORAGE[phase].get(service, set()), service
        paths = path_variables(config["services"][service])
        expected = PATHS[phase].get(service, {})
        assert paths == {name: path.replace("analytics.duckdb", "dev/shop.db") for name, path in expected.items()}


def test_a_volume_without_the_project_that_says_whose_rows_it_has_is_none():
    volumes = render("phase0", **TAKEN)["volumes"].values()
    assert "shop_data" not in {definition.get("name") for definition in volumes}
    assert [definition for definition in volumes if definition.get("external")], "so Compose finds nothing to mount"


def test_the_backend_shows_of_a_projects_file_what_its_catalog_names():
    for phase, catalog in (("phase0", True), ("phase1", True), ("phase2", False)):
        environment = render(phase, **SHOP, **TAKEN)["services"]["backend"]["environment"]
        expected = str(path_of(Path("/app/data/dev/shop.db"))) if catalog else ""
        assert environment.get("DUCKDB_CATALOG", "") == expected
        assert not stack(phase)["services"]["backend"]["environment"].get("DUCKDB_CATALOG"), "not of the example's"


def test_a_project_does_without_the_examples_source_and_may_reach_its_own():
    config = render("phase2", **SHOP)
    assert {name for name, service in config["services"].items() if service.get("scale") == 0} == {
        "postgres",
        "source-seed",
    }
    assert not config["networks"]["source"].get("internal")


# --- hosts with SELinux -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("label", ["", "z"])
def test_every_mount_of_a_host_path_is_labelled_for_selinux_if_asked_for(label):
    for phase in PHASES:
        found = {
            (service, mount["target"]): mount.get("bind", {}).get("selinux", "")
            for service, definition in render(phase, SELINUX_LABEL=label, PARQUET_HOST_DIR="/srv/of ours", **SHOP)[
                "services"
            ].items()
            for mount in definition.get("volumes", [])
            if mount["type"] == "bind"
        }
        assert len(found) == (7 if phase == "phase2" else 3), phase
        assert set(found.values()) == {label}, phase


def test_a_label_for_selinux_changes_nothing_else():
    for phase in PHASES:
        labelled = render(phase, SELINUX_LABEL="z")["services"]
        for service, definition in stack(phase)["services"].items():
            assert mounts(labelled[service]) == mounts(definition), service
            assert changes({service: definition}, {service: labelled[service]}) in ({}, {service: {"volumes"}})


# --- hardening --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_service_can_do_more_than_it_must(services, service):
    definition = services[service]
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert definition.get("cap_add", []) == (["CHOWN"] if service == "storage-init" else [])
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert int(definition["mem_limit"]) > 0
    assert definition["pids_limit"] > 0
    assert [key for key in WAYS_OUT if definition.get(key)] == []


@pytest.mark.parametrize("service", sorted(SERVICES - {"storage-init"}))
def test_no_service_that_runs_on_is_root(services, service):
    user, *group = services[service]["user"].split(":")
    assert user not in {"", "0", "root"}
    assert group not in (["0"], ["root"])


def test_storage_init_is_root_without_a_network_and_gives_the_storage_to_the_services_user():
    services = render("phase2", APP_UID="1234", APP_GID="2345")["services"]
    assert services["storage-init"]["user"] == "0:0"
    assert services["storage-init"]["network_mode"] == "none"
    command = services["storage-init"]["command"]
    assert (command[0], *command[-2:]) == ("chown", "1234:2345", "/storage")
    for service in ("backend", "dagster-daemon", "dagster-webserver"):
        assert services[service]["user"] == "1234:2345", service


def test_the_backend_has_at_least_four_times_the_cpu_weight_of_a_build(services):
    assert services["backend"]["cpu_shares"] >= 4 * services["dagster-daemon"]["cpu_shares"]


# --- network ----------------------------------------------------------------------------------------------------------
def test_only_the_api_and_dagster_are_published_and_only_on_this_machine(services):
    published = {
        (name, port["host_ip"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    assert published == {(name, "127.0.0.1", port) for name, port in PORTS.items()}


def test_ports_are_the_usual_ones_unless_moved():
    def published(config):
        return {name: [port["published"] for port in config["services"][name]["ports"]] for name in PORTS}

    assert published(stack("phase2")) == {"gateway": ["8000"], "dagster-webserver": ["3000"]}
    moved = render("phase2", PORT="8111", DAGSTER_PORT="3111")
    assert published(moved) == {"gateway": ["8111"], "dagster-webserver": ["3111"]}


def test_the_engine_picks_the_ports_of_tests():
    for phase in PHASES:
        for service in PORTS:
            (port,) = stack(f"{phase}-test")["services"][service]["ports"]
            assert not port.get("published"), (phase, service)


def test_the_api_shares_no_network_with_a_database(services):
    for database in ("postgres", "dagster-postgres"):
        assert networks(services[database])
        for service in ("backend", "gateway"):
            assert networks(services[service]).isdisjoint(networks(services[database])), (service, database)


def test_the_backend_is_reached_through_the_gateway_alone_and_reaches_nothing_outside(config):
    assert networks(config["services"]["backend"]) == {"api"}
    assert config["networks"]["api"]["internal"] is True
    assert {name for name, service in config["services"].items() if "api" in networks(service)} == {
        "backend",
        "gateway",
    }


def test_replicas_of_the_backend_can_stand_side_by_side(services):
    assert not {"ports", "container_name", "hostname", "mac_address"} & set(services["backend"])
    assert all("ipv4_address" not in (network or {}) for network in services["backend"]["networks"].values())


def gateway_seconds(setting):
    """Every value of a setting of the gateway."""
    configuration = (REPO_ROOT / "deploy/images/gateway/haproxy.cfg").read_text(encoding="utf-8")
    return [int(found) for found in re.findall(rf"^ +{setting} (\d+)s\b", configuration, re.MULTILINE)]


def test_nobody_is_killed_before_the_longest_request_is_answered(services):
    """Draining, and then as long as the gateway waits for an answer."""
    longest, _ = sorted(gateway_seconds("timeout server"))  # behind the gateway, and then within it
    (finishing,) = gateway_seconds("hard-stop-after")
    assert finishing >= longest
    for service, before in (("backend", Settings().drain_seconds), ("gateway", 0)):
        (minutes, seconds) = re.fullmatch(r"(?:(\d+)m)?(\d+)s", services[service]["stop_grace_period"]).groups()
        assert int(minutes or 0) * 60 + int(seconds) > before + longest, service


def test_a_backend_drains_until_the_gateway_must_have_noticed():
    (between,) = gateway_seconds("default-server check inter")
    (patience,) = gateway_seconds("timeout check")
    assert Settings().drain_seconds > between + patience


def test_the_databases_networks_lead_nowhere_else(config):
    assert config["networks"]["source"]["internal"] is True
    assert config["networks"]["orchestration"]["internal"] is True
    assert networks(config["services"]["postgres"]) == {"source"}
    assert networks(config["services"]["dagster-postgres"]) == {"orchestration"}


def test_no_service_goes_around_the_networks(services):
    for name, service in services.items():
        assert service.get("network_mode") == ("none" if name == "storage-init" else None), name
        assert bool(networks(service)) is (name != "storage-init"), name
        assert not any(service.get(key) for key in ("links", "external_links", "extra_hosts")), name


# --- secrets ----------------------------------------------------------------------------------------------------------
def test_every_secret_is_a_file_of_the_secrets_directory(tmp_path):
    for phase in PHASES:
        secrets = render(phase, SECRETS_HOST_DIR=str(tmp_path), CA_BUNDLE="/ca.crt")["secrets"]
        assert {name: definition["file"] for name, definition in secrets.items()} == {
            name: str(tmp_path / name) for name in set().union(*SECRETS.values())
        } | {"ca_bundle": "/ca.crt"}


def test_each_service_holds_the_secrets_it_needs_and_no_other(services):
    for name, service in services.items():
        held = {(secret["source"], secret["target"]) for secret in service.get("secrets", [])}
        assert held == {(secret, f"/run/secrets/{secret}") for secret in SECRETS[name]}, name


def test_no_variable_or_build_argument_holds_a_secret(services):
    for name, service in services.items():
        assert "env_file" not in service, name
        variables = (service.get("environment") or {}) | service.get("build", {}).get("args", {})
        for variable, value in variables.items():
            if LOOKS_SECRET.search(variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert value in {f"/run/secrets/{secret}" for secret in SECRETS[name]}, (name, variable)
            assert not re.search(r"://[^/\s]*:[^/\s]*@", value or ""), (name, variable)


# --- order and health -------------------------------------------------------------------------------------------------
def test_services_wait_for_health_or_success_never_for_a_mere_start(services):
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if (name, needed) == WAITS_BY_ITSELF:
                continue
            assert how["condition"] in {"service_healthy", "service_completed_successfully"}, (name, needed)
            assert how["required"] is True, (name, needed)
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)


def test_every_service_that_runs_on_has_a_health_check(services):
    for name in SERVICES - one_shots(services) - NEEDS_NO_HEALTH_CHECK:
        check = services[name].get("healthcheck", {})
        assert not check.get("disable"), name
        assert check.get("test", ["NONE"])[0] in {"CMD", "CMD-SHELL"}, name


def test_what_runs_once_is_not_started_again(services):
    assert one_shots(services) == {"source-seed", "storage-init"}
    for name in one_shots(services):
        assert services[name]["restart"] == "no", name


# --- overlays ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_adds_storage_and_its_variables_and_changes_nothing_else(phase):
    base, config = stack("base"), stack(phase)
    assert set(config["services"]) == set(base["services"])
    differing = {key for key in base.keys() | config if base.get(key) != config.get(key)}
    assert differing <= {"services", "volumes"}
    for name, keys in changes(base["services"], config["services"]).items():
        assert keys <= {"volumes", "environment"}, name
        before, after = (one["services"][name].get("environment") or {} for one in (base, config))
        assert {key: value for key, value in after.items() if key not in {*PATH_VARIABLES, "DUCKDB_CATALOG"}} == before


@pytest.mark.parametrize("phase", PHASES)
def test_tests_change_ports_and_restarts_alone(phase):
    ours, tests = stack(phase), stack(f"{phase}-test")
    assert {key for key in ours.keys() | tests if ours.get(key) != tests.get(key)} == {"services"}
    assert set(ours["services"]) == set(tests["services"])
    assert changes(ours["services"], tests["services"]) == {
        name: {"ports", "restart"} if name in PORTS else {"restart"} for name in SERVICES - one_shots(ours["services"])
    }
    assert {service["restart"] for service in tests["services"].values()} == {"no"}


@pytest.mark.parametrize("phase", PHASES)
def test_the_readme_has_the_mounts_and_variables_of_each_phase(phase):
    (row,) = [
        line
        for line in (COMPOSE_DIR / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{phase}.yaml`")
    ]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    mounted, variables = ({}, {})
    for found, cell in ((mounted, cells[2]), (variables, cells[3])):
        for line in cell.split("<br>"):
            service, *values = re.findall(r"`([^`]+)`", line)
            found[service] = {value.replace("$PARQUET_HOST_DIR", str(PARQUET)) for value in values}
    services = stack(phase)["services"]
    assert mounted == {name: mounts(services[name]) - ALWAYS_MOUNTED.get(name, set()) for name in STORAGE[phase]}
    assert variables == {
        name: {f"{key}={value}" for key, value in path_variables(services[name]).items()} for name in PATHS[phase]
    }
