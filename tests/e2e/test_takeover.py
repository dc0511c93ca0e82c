"""Steps A to D of deploy/ADOPT.md: a volume and a file that somebody else made, up and down, while a client reads."""

import os
import shlex
import subprocess
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb
import httpx
import pytest

from backend.filepaths import REPO_ROOT
from tests.unit.adopted.shop import Shop

from .adopting import begun
from .stack import CHECKOUT, Stack

pytestmark = pytest.mark.timeout(1_800)
SALE = "INSERT INTO sales VALUES ({number}, '1', 'Bell', 1, 995, '2025-01-{number:02} 16:00')"
FILE = "shop.dev.duckdb"


@dataclass
class Client:
    """Reads one user's sales over and over; what was wrong, and how often it was right."""

    stack: Stack
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self):
        ending = threading.Event()
        thread = threading.Thread(target=self._read, args=[ending])
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _read(self, ending):
        with self.stack.api(user_id=1) as api:
            while not ending.wait(0.1):
                try:
                    answer = api.get("/api/analytics/datasets/Sales/query")
                    owners = {row["customer_no"] for row in answer.json()["rows"]}
                    well = (answer.status_code, owners) == (200, {"1"})
                    self.right += well
                    self.wrong += [] if well else [answer.text[:300]]
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.wrong.append(repr(error))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop.of_an_owner(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def taken_over(shop, tmp_path_factory):
    """The stack after step A, and who follows the guide."""
    volume = f"test-{CHECKOUT}-shop-{uuid.uuid4().hex[:6]}"
    stack, reader = begun(shop, tmp_path_factory.mktemp("taken"), 0, places={"shop_data": volume})
    try:
        fill(volume, shop.database)
        reader.follow("A", timeout=1_200)
        for line in reader.exported:  # for the commands of ours that are not the guide's
            stack.environment |= dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
        stack.stop_schedule()
        yield stack, reader
    finally:
        stack.down()
        subprocess.run(["docker", "volume", "rm", volume], check=True, capture_output=True)


def fill(volume, file):
    """Make the volume, as somebody else's stack has: with the file, which belongs to whom its builds run as."""
    script = f"cat >/theirs/{FILE} && chown -R 10001:10001 /theirs"
    command = ["docker", "run", "--rm", "--interactive", "--user=0", "--network=none", f"--volume={volume}:/theirs"]
    image = os.environ["BACKEND_IMAGE"]
    with file.open("rb") as content:
        subprocess.run([*command, "--entrypoint=sh", image, "-c", script], stdin=content, check=True)


def loaded(stack):
    """Which build brought each sale: only what goes on from the file that there was still knows."""
    return {row["sale_no"]: row["loaded_by"] for row in stack.rows("Sales", all_rows=True)}


def test_a_stack_is_taken_over_from_its_own_file_to_phase_2_and_back_without_a_failed_request(taken_over, shop):
    stack, reader = taken_over
    with duckdb.connect(str(shop.database), read_only=True) as connection:
        owners = dict(connection.execute("SELECT sale_no, loaded_by FROM main_finance.Sales").fetchall())
    assert loaded(stack) == owners
    assert {row["customer_no"] for row in stack.rows("Sales", user_id=2)} == {"2"}

    shop.ring_up(SALE.format(number=5))
    assert stack.finished(stack.launch()) == "SUCCESS", "phase 0 builds in the file"
    in_phase_0 = loaded(stack)
    assert {number: in_phase_0[number] for number in owners} == owners
    assert in_phase_0.keys() == {*owners, 5}

    client = Client(stack)
    with client.reading():
        reader.follow("B")
        reader.follow("C", timeout=1_200)
        stack.phase = 1
        assert loaded(stack) == in_phase_0
        shop.ring_up(SALE.format(number=6))
        stack.build()
        in_phase_1 = loaded(stack)
        assert {number: in_phase_1[number] for number in in_phase_0} == in_phase_0
        reader.follow("D", timeout=1_200)
        stack.phase = 2
        assert loaded(stack) == in_phase_1
        refused = command(stack, "make", "finalize").stdout
        assert f"docker volume rm {stack.environment['LEGACY_DUCKDB_VOLUME']}" in refused
        for phase in (1, 0):
            done = command(stack, "make", "rollback")
            assert done.returncode == 0, done.stdout
            stack.phase = phase
            assert loaded(stack) == in_phase_1
    assert client.wrong == []
    assert client.right > 300

    with duckdb.connect(str(file_of(stack, shop.root / "fetched"))) as connection:
        others = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
    assert {("history", "customer_history"), ("main_reference", "product_groups")} <= set(others), "all of it came back"


def command(stack, *words):
    return subprocess.run(
        words, cwd=REPO_ROOT, env=stack.environment, text=True, check=False, input="y\n",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1_200,
    )  # fmt: skip


def file_of(stack, directory):
    """The phase-0 file as the backend has it."""
    directory.mkdir()
    source = f"{stack.container('backend').id}:/app/data/{FILE}"
    subprocess.run(["docker", "cp", source, str(directory)], check=True, capture_output=True)
    return directory / FILE
