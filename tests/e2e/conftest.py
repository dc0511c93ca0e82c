import os
import uuid
from dataclasses import dataclass

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from backend.filepaths import REPO_ROOT
from tests.page.browser import chromium, open_tab  # noqa: F401 - fixtures

from .images import build, name_them
from .reference import Reference
from .stack import CHECKOUT, Stack, alone, wait_for

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
pytest.register_assert_rewrite("tests.page.promises")
_RUN = pytest.StashKey()


def pytest_configure(config):
    name_them()
    # Once, though two conftest.py have this hook.
    if _RUN not in config.stash and not hasattr(config, "workerinput"):
        run = config.stash[_RUN] = alone()
        run.__enter__()
        config.add_cleanup(lambda: run.__exit__(None, None, None))


@pytest.fixture(scope="session", autouse=True)
def images():
    build()


@pytest.fixture(scope="module")
def start_stack(tmp_path_factory):
    """Starts a stack of a phase from nothing; all are taken away when the module is done."""
    started = []

    def start(phase, *, before=lambda _: None, **options):
        stack = Stack(tmp_path_factory.mktemp(f"phase{phase}"), phase, **options)
        started.append(stack)
        before(stack)
        stack.up()
        return stack

    yield start
    for stack in started:
        stack.down()


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The same data through the embedded path, without containers: what every phase has to answer."""
    return Reference(tmp_path_factory.mktemp("reference"))


@dataclass
class Postgres:
    host: str
    port: int
    owner_password: str
    reader_password: str


@pytest.fixture(scope="session")
def postgres(images, tmp_path_factory):
    """The source's PostgreSQL alone, with its roles."""
    secrets = tmp_path_factory.mktemp("secrets")
    passwords = {
        name: uuid.uuid4().hex for name in ("postgres_password", "source_owner_password", "source_reader_password")
    }
    for name, password in passwords.items():
        (secrets / name).write_text(password)
        (secrets / name).chmod(0o444)
    secrets.chmod(0o755)
    container = (
        DockerContainer(os.environ["POSTGRES_IMAGE"])
        .with_name(f"test-{CHECKOUT}-{uuid.uuid4().hex[:10]}")
        .with_env("POSTGRES_DB", "finance")
        .with_env("POSTGRES_PASSWORD_FILE", "/run/secrets/postgres_password")
        .with_volume_mapping(str(secrets), "/run/secrets", "ro")
        .with_volume_mapping(str(REPO_ROOT / "deploy/source/initdb"), "/docker-entrypoint-initdb.d", "ro")
        .with_exposed_ports(5432)
        .waiting_for(LogMessageWaitStrategy("database system is ready to accept connections", times=2))
    )
    with container:
        port = int(container.get_exposed_port(5432))
        wait_for(
            lambda: container.exec(["pg_isready", "-h", "127.0.0.1"]).exit_code == 0, "PostgreSQL answers", seconds=60
        )
        yield Postgres("127.0.0.1", port, passwords["source_owner_password"], passwords["source_reader_password"])


def pytest_collection_modifyitems(items):
    # A broken image fails everything else, so look at the images first; then begin with what takes longest.
    first = (
        "test_images.py", "test_takeover.py", "test_phases.py", "test_faults.py", "test_bench.py", "test_phase2.py",
    )  # fmt: skip
    items.sort(key=lambda item: first.index(item.path.name) if item.path.name in first else len(first))
