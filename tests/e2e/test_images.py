"""The images keep their contract: the base images whether official or stand-in, the bundle's own under any uid."""

import gzip
import json
import os
import re
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker
import psycopg
import pytest
from docker.errors import NotFound
from docker.models.containers import Container
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from backend.filepaths import REPO_ROOT
from deploy.bundle.sbom import bill_of
from deploy.rollout.shell import Shell

PASSWORD = "quote ' and $ dollar"
SOME_UID = "54321:54321"
POSTGRES_TMPFS = {"/tmp": "", "/var/run/postgresql": ""}
START_SECONDS = 60
PYTHON_APPS = ["BACKEND_IMAGE", "PIPELINE_IMAGE"]
OWN_IMAGES = [*PYTHON_APPS, "GATEWAY_IMAGE"]


def image_of(variable: str) -> str:
    name = os.environ.get(variable)
    if not name:
        pytest.fail(f"{variable} is not set: run through `make test`, or name an image that the engine has")
    return name


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def volume(engine: docker.DockerClient) -> Iterator[str]:
    name = f"test-images-{uuid.uuid4().hex}"
    engine.volumes.create(name)
    yield name
    engine.volumes.get(name).remove(force=True)


@pytest.fixture
def run(engine: docker.DockerClient, volume: str) -> Iterator[Callable[..., Container]]:
    """Starts containers. Asks for ``volume`` so that they are gone before it is removed."""
    started: list[Container] = []

    def start(image: str, command: list[str] | None = None, **options: Any) -> Container:
        container = engine.containers.create(
            image, command, cap_drop=["ALL"], security_opt=["no-new-privileges"], **options
        )
        started.append(container)
        container.start()
        return container

    yield start
    for container in started:
        with suppress(NotFound):
            container.remove(force=True, v=True)


def output_of(container: Container, *, expected_status: int = 0) -> str:
    status = container.wait(timeout=START_SECONDS)["StatusCode"]
    text = container.logs().decode()
    assert status == expected_status, text
    return text


# --- PostgreSQL -------------------------------------------------------------------------------------------------


@dataclass
class Postgres:
    """One server, started as the stack starts it: read-only root, no capabilities, the two tmpfs."""

    container: Container

    def connect(self, *, user: str = "owner", password: str = PASSWORD, dbname: str = "finance") -> Any:
        for attempt in Retrying(
            stop=stop_after_delay(START_SECONDS),
            wait=wait_fixed(0.1),
            retry=retry_if_exception_type(ConnectionRefusedError),
            reraise=True,
        ):
            with attempt:
                return self._connect_once(user=user, password=password, dbname=dbname)
        raise AssertionError

    def logs(self) -> str:
        return bytes(self.container.logs()).decode()

    def _connect_once(self, **login: Any) -> Any:
        self.container.reload()
        if self.container.status != "running":
            pytest.fail(f"the server ended: {self.logs()[-3000:]}")
        ports = self.container.ports.get("5432/tcp")
        if not ports:
            raise ConnectionRefusedError("no port is published yet")
        try:
            return psycopg.connect(host="127.0.0.1", port=int(ports[0]["HostPort"]), autocommit=True, **login)
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                raise
            raise ConnectionRefusedError(str(error)) from error

    def value(self, query: str) -> Any:
        with self.connect() as connection:
            row = connection.execute(query).fetchone()
        return row[0]

    def process_1(self) -> str:
        command = ["docker", "exec", str(self.container.id), "cat", "/proc/1/status"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def start_postgres(run: Callable[..., Container], tmp_path: Path) -> Callable[..., Postgres]:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o644)

    def start(**options: Any) -> Postgres:
        mounts = {str(secret): {"bind": "/run/secrets/password", "mode": "ro"}}
        environment = {
            "POSTGRES_USER": "owner",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
            "POSTGRES_DB": "finance",
        }
        return Postgres(
            run(
                image_of("POSTGRES_IMAGE"),
                user=options.pop("user", "999:999"),
                read_only=True,
                tmpfs=POSTGRES_TMPFS,
                ports={"5432/tcp": ("127.0.0.1", None)},
                volumes=mounts | options.pop("volumes", {}),
                environment=environment | options.pop("environment", {}),
                **options,
            )
        )

    return start


def test_postgres_refuses_to_start_without_a_password(run: Callable[..., Container]) -> None:
    server = run(image_of("POSTGRES_IMAGE"), user="999:999", read_only=True, tmpfs=POSTGRES_TMPFS)
    assert "POSTGRES_PASSWORD" in output_of(server, expected_status=1)


def test_postgres_runs_init_scripts_once_and_keeps_data(
    start_postgres: Callable[..., Postgres], volume: str, tmp_path: Path
) -> None:
    scripts = tmp_path / "initdb.d"
    scripts.mkdir(mode=0o755)
    (scripts / "1-table.sh").write_text(
        'psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" '
        "-c 'create table runs (script text)' -c \"insert into runs values ('sh')\"\n"
    )
    (scripts / "2-plain.sql").write_text("insert into runs values ('sql');\n")
    (scripts / "3-packed.sql.gz").write_bytes(gzip.compress(b"insert into runs values ('sql.gz');\n"))
    (scripts / "README").write_text("neither script nor SQL\n")
    volumes = {
        volume: {"bind": "/var/lib/postgresql/data", "mode": "rw"},
        str(scripts): {"bind": "/docker-entrypoint-initdb.d", "mode": "ro"},
    }
    for path in scripts.iterdir():
        path.chmod(0o644)

    first = start_postgres(volumes=volumes)
    with first.connect() as connection:
        connection.execute("insert into runs values ('a user')")
    first.container.stop(timeout=30)
    first.container.remove()
    second = start_postgres(volumes=volumes)

    assert second.value("select string_agg(script, ' ' order by script) from runs") == "a user sh sql sql.gz"


def test_postgres_wants_the_password_from_outside(start_postgres: Callable[..., Postgres]) -> None:
    server = start_postgres()
    assert server.value("select current_user") == "owner"
    assert server.value("select auth_method from pg_hba_file_rules order by line_number desc limit 1") == (
        "scram-sha-256"
    )
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        server.connect(password="wrong")


def test_postgres_passes_initdb_args_and_server_options(start_postgres: Callable[..., Postgres]) -> None:
    server = start_postgres(
        environment={"POSTGRES_INITDB_ARGS": "--data-checksums"}, command=["postgres", "-c", "max_connections=17"]
    )
    assert server.value("show data_checksums") == "on"
    assert server.value("show max_connections") == "17"


def test_postgres_runs_as_any_user(start_postgres: Callable[..., Postgres]) -> None:
    server = start_postgres(user=SOME_UID, environment={"PGDATA": "/var/lib/postgresql/data/pgdata"})
    assert server.value("show data_directory") == "/var/lib/postgresql/data/pgdata"
    assert re.search(r"Uid:\s+54321\s", server.process_1())


def test_postgres_started_as_root_drops_to_postgres(start_postgres: Callable[..., Postgres]) -> None:
    needed = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    server = start_postgres(user="0:0", cap_add=needed)
    assert server.value("select 1") == 1
    assert re.search(r"Name:\s+postgres\n(?s:.*)Uid:\s+999\s", server.process_1())


def test_postgres_stops_at_once_with_a_session_open(start_postgres: Callable[..., Postgres]) -> None:
    server = start_postgres()
    with server.connect():
        # Longer than a fast shutdown takes, after which the engine would kill it, with status 137.
        server.container.stop(timeout=30)
    assert server.container.wait()["StatusCode"] == 0
    assert "received fast shutdown request" in server.logs().rpartition("ready to accept connections")[2]


# --- Python, and what is built on it ----------------------------------------------------------------------------


def test_python_image_has_python_under_both_names(run: Callable[..., Container]) -> None:
    check = "import sys, ssl, sqlite3, zoneinfo; zoneinfo.ZoneInfo('Europe/Zurich'); print(sys.version_info[:2])"
    for name in ("python", "python3"):
        container = run(image_of("PYTHON_IMAGE"), [name, "-c", check], user=SOME_UID, read_only=True)
        assert output_of(container).strip() in {"(3, 11)", "(3, 12)"}


@pytest.mark.parametrize("variable", OWN_IMAGES)
def test_own_image_is_not_root_and_says_so(engine: docker.DockerClient, variable: str) -> None:
    config = engine.images.get(image_of(variable)).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Cmd"]
    assert not [line for line in config["Env"] if re.match(r"(SSL_CERT|PIP_|UV_|DBT_ENV_SECRET)", line)]


@pytest.mark.parametrize(
    ("variable", "statement"),
    [
        ("BACKEND_IMAGE", "from backend.app import create_app; print('loaded')"),
        ("PIPELINE_IMAGE", "import dagster_dbt, dbt.version, backend.snapshots; print('loaded')"),
    ],
)
def test_own_image_loads_under_any_uid_on_a_read_only_root(
    run: Callable[..., Container], variable: str, statement: str
) -> None:
    container = run(image_of(variable), ["python", "-c", statement], user=SOME_UID, read_only=True, tmpfs={"/tmp": ""})
    assert output_of(container).splitlines()[-1] == "loaded"


@pytest.mark.parametrize("variable", OWN_IMAGES)
def test_own_image_has_nothing_its_user_can_change(run: Callable[..., Container], variable: str) -> None:
    search = ["find", "/app", "/opt", "/usr", "/etc", "-xdev", "-not", "-type", "l", "-writable"]
    container = run(image_of(variable), ["sh", "-c", f"{' '.join(search)} 2>/dev/null || true"])
    assert output_of(container) == ""


@pytest.mark.parametrize("variable", OWN_IMAGES)
def test_own_image_has_no_compiler(run: Callable[..., Container], variable: str) -> None:
    look = "for tool in cc gcc g++ clang ld make uv git; do command -v $tool; done; true"
    assert output_of(run(image_of(variable), ["sh", "-c", look])) == ""


@pytest.mark.parametrize("variable", PYTHON_APPS)
def test_own_image_has_no_installer(run: Callable[..., Container], variable: str) -> None:
    image = image_of(variable)
    assert output_of(run(image, ["ls", "/opt/venv/bin"])).split()
    assert output_of(run(image, ["python", "-m", "pip"]), expected_status=1).endswith("No module named pip\n")


def test_gateway_image_has_a_valid_configuration_under_any_uid_on_a_read_only_root(
    run: Callable[..., Container],
) -> None:
    command = ["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]
    container = run(image_of("GATEWAY_IMAGE"), command, user=SOME_UID, read_only=True)
    assert "Configuration file is valid" in output_of(container)


@pytest.mark.parametrize("directory", ["/var/log", "/var/cache/apt", "/var/lib/apt/lists"])
def test_gateway_image_has_no_leftovers_of_its_installation(run: Callable[..., Container], directory: str) -> None:
    search = ["find", directory, "-type", "f"]
    left = {*output_of(run(image_of("GATEWAY_IMAGE"), search)).split()}
    assert left <= {*output_of(run(image_of("PYTHON_IMAGE"), search)).split()}


def test_pipeline_image_has_the_parsed_manifest(run: Callable[..., Container]) -> None:
    container = run(image_of("PIPELINE_IMAGE"), ["cat", "/opt/dagster/dbt_target/manifest.json"], user=SOME_UID)
    models = [node for node in json.loads(output_of(container))["nodes"].values() if node["resource_type"] == "model"]
    assert len([node for node in models if node["config"]["meta"].get("dataset")]) == 11


def test_pipeline_image_has_dagster_configured(run: Callable[..., Container]) -> None:
    container = run(
        image_of("PIPELINE_IMAGE"), ["sh", "-c", 'cd "$DAGSTER_HOME" && cat dagster.yaml workspace.yaml'], user=SOME_UID
    )
    assert "storage" in output_of(container)


# --- what is in them --------------------------------------------------------------------------------------------


# What shells, clients and people leave behind; none has a place in an image.
LEFT_BEHIND = re.compile(
    r"(^|/)(\.\w*_history|\.lesshst|\.wget-hsts|\.netrc|\.pypirc|\.git-credentials|\.pgpass|pip\.conf|uv\.toml|\.env"
    r"|id_(rsa|ecdsa|ed25519)|jwt_secret|jwks|[a-z_]+_password)$"
)


@pytest.mark.parametrize("variable", OWN_IMAGES)
def test_no_layer_holds_a_secret_or_a_certificate_of_this_host_or_a_history(
    engine: docker.DockerClient, variable: str, tmp_path: Path
) -> None:
    """Every layer, also where a later one deletes what an earlier one has."""
    secrets = secrets_of_this_checkout()
    assert secrets, "no secret to look for: `make secrets` makes them, and so does `make test`"
    saved = tmp_path / "image.tar"
    with saved.open("wb") as file:
        file.writelines(engine.images.get(image_of(variable)).save())
    with tarfile.open(saved) as archive:
        members = [member for member in archive if member.isfile()]
        leaking = [member.name for member in members if holds_any(archive, member, secrets | private_certificates())]
        left = [name for member in members for name in names_in(archive, member) if LEFT_BEHIND.search(name)]
    saved.unlink()
    assert len(members) > 2
    assert leaking == []
    assert left == []


def secrets_of_this_checkout() -> set[bytes]:
    """Of every file that no image may have, though it lies beside what is copied."""
    files = [path for path in (REPO_ROOT / "secrets").glob("*") if path.name != "jwks"]
    return {line for path in files for line in path.read_bytes().split(b"\n") if len(line) > 16}


def names_in(archive: tarfile.TarFile, member: tarfile.TarInfo) -> list[str]:
    """Names of a layer's files; of what is no layer, none."""
    try:
        with tarfile.open(fileobj=archive.extractfile(member)) as layer:
            return layer.getnames()
    except tarfile.ReadError:
        return []


def private_certificates() -> set[bytes]:
    """One line, out of the middle, of each certificate in this host's bundle that Debian does not ship."""
    bundle = Path(os.environ.get("CA_BUNDLE") or "/etc/ssl/certs/ca-certificates.crt")
    shipped = b"".join(path.read_bytes() for path in Path("/usr/share/ca-certificates").rglob("*.crt"))
    if not bundle.exists() or not shipped:
        return set()
    bodies = re.findall(rb"-----BEGIN CERTIFICATE-----\n(.+?)\n-----END", bundle.read_bytes(), re.DOTALL)
    middles = {lines[len(lines) // 2] for lines in (body.split(b"\n") for body in bodies)}
    return {line for line in middles if line not in shipped}


def holds_any(archive: tarfile.TarFile, member: tarfile.TarInfo, needles: set[bytes]) -> bool:
    """Whether a file of `docker save` holds one of the needles; some engines save their layers compressed."""
    file = archive.extractfile(member)
    assert file
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream: gzip.GzipFile | IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file
    overlap = max(map(len, needles))
    tail = b""
    while block := stream.read(1 << 20):
        if any(needle in tail + block for needle in needles):
            return True
        tail = block[-overlap:]
    return False


INSTALLED = """
import importlib.metadata, json
print(json.dumps(sorted({(found.metadata["Name"], found.version) for found in importlib.metadata.distributions()})))
"""


@pytest.mark.parametrize("variable", [*OWN_IMAGES, "POSTGRES_IMAGE"])
def test_the_bill_of_materials_names_exactly_what_is_installed(run: Callable[..., Container], variable: str) -> None:
    image = image_of(variable)
    named: dict[str, set[tuple[str, str]]] = {"deb": set(), "pypi": set()}
    for component in json.loads(bill_of(image, Shell()))["components"]:
        kind = component["purl"].removeprefix("pkg:").partition("/")[0]
        named[kind].add((component["name"], component["version"]))

    listed = output_of(run(image, ["-l"], entrypoint="dpkg"))
    lines = [line.split()[1:3] for line in listed.splitlines() if line.startswith("ii")]
    assert len(lines) > 50
    assert named["deb"] == {(name.partition(":")[0], version) for name, version in lines}

    interpreters = output_of(
        run(image, ["-c", "ls /opt/venv/bin/python /usr/local/bin/python3 2>&1 || true"], entrypoint="sh")
    )
    installed = {
        tuple(pair)
        for python in re.findall(r"^/\S+", interpreters, re.MULTILINE)
        for pair in json.loads(output_of(run(image, ["-c", INSTALLED], entrypoint=python)))
    }
    assert bool(installed) is (variable in PYTHON_APPS) or "/usr/local/bin/python3\n" in interpreters
    assert named["pypi"] == installed
