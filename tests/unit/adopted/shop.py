"""The bike shop of tests/foreign: a dbt project with conventions of its own, and the till that it reads."""

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import httpx

from backend.filepaths import REPO_ROOT
from backend.snapshots import SnapshotStore
from tests.serving import served
from tests.unit.backend.api import bearer, open_api
from tests.unit.dbt.runner import INHERITED, run_dbt

TILL = """
    CREATE TABLE sales (
        sale_no BIGINT, customer_no VARCHAR, product VARCHAR, pieces INTEGER, price_cents INTEGER, sold_at TIMESTAMP
    );
    INSERT INTO sales VALUES
        (1, '1', 'Bell', 2, 995, '2025-01-01 10:00'),
        (2, '2', 'Tandem', 1, 250000, '2025-01-02 11:00'),
        (3, 'guest', 'Tyre', 4, 1999, '2025-01-03 12:00'),
        (4, '1', 'Tyre', 2, 1999, '2025-01-04 09:30');
    CREATE TABLE customers (customer_no VARCHAR, name VARCHAR, city VARCHAR);
    INSERT INTO customers VALUES ('1', 'Ada', 'Turin'), ('2', 'Ben', 'Cork'), ('guest', NULL, 'Nowhere');
    CREATE TABLE complaints (complaint_no INTEGER, customer_no VARCHAR, said VARCHAR);
"""


@dataclass(frozen=True)
class Shop:
    """A copy of the project below ``root``, its till, where it keeps its own database and files, and our store."""

    root: Path

    @property
    def project(self):
        return self.root / "projects" / "bike_shop"

    @property
    def till(self):
        return self.root / "till.duckdb"

    @property
    def home(self):
        return self.root / "home"

    @property
    def database(self):
        """What the owner's dbt builds in."""
        return self.home / "shop.dev.duckdb"

    @property
    def store(self):
        return SnapshotStore(self.root / "parquet")

    @property
    def variables(self):
        return {"SHOP_TILL": str(self.till), "SHOP_HOME": str(self.home), "DBT_USE_COLORS": "false"}

    def open(self):
        """A shop whose owner has packages installed, and has never built anything."""
        shutil.copytree(REPO_ROOT / "tests" / "foreign", self.root / "projects")
        self.home.mkdir()
        # Found by its name from then on, without a download.
        package = Path(find_spec("duckdb_extension_httpfs").origin).parent
        extension = package.glob("extensions/v*/httpfs.duckdb_extension")
        with duckdb.connect(config={"extension_directory": str(self.home / "extensions")}) as connection:
            connection.execute(f"INSTALL '{next(extension)}'")
        with duckdb.connect(str(self.till)) as connection:
            connection.execute(TILL)
        self.dbt("deps")

    @classmethod
    def of_an_owner(cls, root):
        """A shop that its owner has built once, where anybody on the host may read and write."""
        shop = cls(root)
        shop.open()
        shop.dbt("build")
        for path in (shop.root, *shop.root.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o777 if path.is_dir() else 0o666)
        return shop

    def dbt(self, *arguments):
        """The owner's own dbt."""
        result = run_dbt(*arguments, project=self.project, **self.variables)
        assert result.returncode == 0, result.stdout

    def ring_up(self, sql):
        with duckdb.connect(str(self.till)) as connection:
            connection.execute(sql)

    @property
    def environment(self):
        """For commands that build the project."""
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            **self.variables,
            "PYTHONPATH": str(REPO_ROOT),
            "DBT_PROJECT_DIR": str(self.project),
            "PARQUET_DIR": str(self.store.root),
            "STATE": str(self.root),  # what make has in its place
            "TMPDIR": str(self.root),
        }

    def run(self, *command, **more):
        return subprocess.run(
            command,
            env=self.environment | more,
            cwd=REPO_ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def build(self, *arguments):
        return self.run(sys.executable, "-m", "deploy.pipeline", "build", *arguments)

    def publish(self, *arguments):
        result = self.build(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def manifest(self):
        with self.store.open() as snapshot:
            return snapshot.manifest

    def rows(self, sql):
        """Of a query over the files that are served."""
        with self.store.open() as snapshot, duckdb.connect() as connection:
            for name in snapshot.manifest.marts:
                connection.execute(f"""CREATE VIEW "{name}" AS FROM read_parquet('{snapshot.file(name)}')""")
            return connection.execute(sql).fetchall()

    @contextmanager
    def api(self):
        """Asks for rows: ``ask(path, user)`` gives the parsed answer; user None sees all rows."""
        client, _ = open_api(parquet_dir=self.store.root)
        with served(client.app) as url:

            def ask(path, user=None):
                headers = bearer(all_rows=True) if user is None else bearer(user)
                answer = httpx.get(f"{url}/api/analytics/datasets{path}", headers=headers, timeout=60)
                assert answer.status_code == 200, answer.text
                return answer.json()

            yield ask

    def hashes(self):
        """Every file of the project and of what belongs to it, with its content."""
        roots = (self.root / "projects", self.home)
        return {
            path: hashlib.sha256(path.read_bytes()).hexdigest()
            for root in roots
            for path in sorted(root.rglob("*"))
            if path.is_file() and path != self.home / "addresses.parquet"
        }

    def left_over(self):
        """What lies where only a build in progress leaves something."""
        return [*(self.store.root / "building").iterdir(), *self.root.glob("dbt-*"), *self.store.root.glob("work*")]


def copied(shop, root):
    """The same project and store below ``root``."""
    shutil.copytree(shop.root, root, symlinks=True, dirs_exist_ok=True)
    return Shop(root)
