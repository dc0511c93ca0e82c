"""How each server is started: on a port of its own, below a directory of the run, for as long as a block lasts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pyarrow.parquet as pq

from backend.filepaths import REPO_ROOT
from backend.quoting import quoted
from tests.bench.asking import Refused, Request
from tests.bench.processes import Running, free_port, listening, started
from tests.bench.questions import ACCOUNTS, TRANSACTIONS
from tests.bench.site import SetUpFailed, Site

PEERS_BIN = REPO_ROOT / ".cache" / "bench" / "venv" / "bin"
_POSTGRES_USER = "postgres"
_MISSING = "run `deploy/setup.sh bench`"


@contextmanager
def _on_a_port(
    command: list[str], port: int, scratch: Path, *, env: dict[str, str] | None = None, health: str = ""
) -> Iterator[Running]:
    """A server that listens, and answers at ``health`` where that is given."""

    def ready() -> bool:
        if not health:
            return listening(port)
        with suppress(Refused, OSError):
            Request(health).ask(port)
            return True
        return False

    with started(command, log=scratch / "log", ready=ready, env=env or {}) as process:
        yield Running(port, (process.pid,))


def _app(
    module: str, argument: Path, scratch: Path, *, python: str = sys.executable
) -> AbstractContextManager[Running]:
    port = free_port()
    return _on_a_port([python, "-m", f"tests.bench.servers.{module}", str(port), str(argument)], port, scratch)


def ours(site: Site, scratch: Path, *, workers: int = 1) -> AbstractContextManager[Running]:
    """The API, on the snapshots of the site."""
    port = free_port()
    env = {name: site.environment[name] for name in ("PARQUET_DIR", "SECRETS_DIR")} | {"API_WORKERS": str(workers)}
    return _on_a_port(
        [sys.executable, "-m", "backend.server", "--port", str(port)], port, scratch, env=env, health="/health/ready"
    )


def constant(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """The answers that lie in the site's ``constant``."""
    return _app("constant", site.root / "constant", scratch)


def plan(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """The original plan, on the path that everybody may read."""
    return _app("opened_per_request", site.mart, scratch)


def shared_file(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """The DuckDB file."""
    return _app("opened_per_request", site.file, scratch)


def polars(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """Data frames in memory."""
    return _app("polars_in_memory", site.mart, scratch)


def roapi(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """ROAPI, with all marts in memory."""
    http, *others = (f"127.0.0.1:{free_port()}" for _ in range(3))
    tables = [
        {"name": path.stem, "uri": str(path), "option": {"format": "parquet", "use_memory_table": True}}
        for path in sorted(site.mart.resolve().glob("*.parquet"))
    ]
    (scratch / "roapi.yml").write_text(json.dumps({"tables": tables}))  # JSON is YAML
    command = [_peer("roapi"), "--config", str(scratch / "roapi.yml"), "--addr-http", http]
    command += ["--addr-postgres", others[0], "--addr-flight-sql", others[1]]
    return _on_a_port(command, int(http.rpartition(":")[2]), scratch, env={"RUST_LOG": "warn"})


def datasette(site: Site, scratch: Path) -> AbstractContextManager[Running]:
    """Datasette, with views on the snapshot's files."""
    port = free_port()
    configuration = {"plugins": {"datasette-parquet": {"marts": {"directory": str(site.mart.resolve())}}}}
    (scratch / "metadata.json").write_text(json.dumps(configuration))
    command = [_peer("datasette"), "serve", "--port", str(port), "--metadata", str(scratch / "metadata.json")]
    command += ["--setting", "max_returned_rows", "10000", "--setting", "sql_time_limit_ms", "60000"]
    return _on_a_port(command, port, scratch)


@contextmanager
def postgres(site: Site, scratch: Path) -> Iterator[Running]:
    """A PostgreSQL of the run's own, on a socket, with the marts as tables; FastAPI before it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        raise SetUpFailed(f"no PostgreSQL in /usr/lib/postgresql: {_MISSING}")
    user = _POSTGRES_USER if os.getuid() == 0 else None  # it refuses to be root
    data = scratch / "data"
    data.mkdir()
    if user:
        for directory in (scratch, data):
            os.chown(directory, *_ids(user))
    subprocess.run(
        [
            binaries[-1] / "initdb",
            "--username=bench",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            data,
        ],
        check=True,
        capture_output=True,
        user=user,
        cwd=scratch,
    )
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": scratch,
        "shared_buffers": "512MB",
        "work_mem": "64MB",
    }
    command = [str(binaries[-1] / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]

    def ready() -> bool:
        with suppress(psycopg.OperationalError), _connected(scratch):
            return True
        return False

    with started(command, log=scratch / "postgres.log", ready=ready, env={}, user=user, cwd=scratch) as process:
        with _connected(scratch) as connection:
            _load(connection, site)
        with _app("postgres", scratch, scratch, python=_peer("python")) as app:
            yield Running(app.port, (*app.pids, process.pid))


def _ids(user: str) -> tuple[int, int]:
    import pwd  # noqa: PLC0415

    found = pwd.getpwnam(user)
    return found.pw_uid, found.pw_gid


def _connected(directory: Path) -> psycopg.Connection:
    return psycopg.connect(host=str(directory), user="bench", dbname="postgres", autocommit=True)


def _load(connection: psycopg.Connection, site: Site) -> None:
    """Every mart as a table, and the indexes that the questions want."""
    types = {"DOUBLE": "double precision"}
    for mart in site.manifest.marts.values():
        columns = ", ".join(f"{quoted(column.name)} {types.get(column.type, column.type)}" for column in mart.columns)
        connection.execute(f"CREATE TABLE {mart.name} ({columns})")
        table = pq.read_table(site.mart / f"{mart.name}.parquet")
        with connection.cursor() as cursor, cursor.copy(f"COPY {mart.name} FROM STDIN") as copy:
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                copy.write_row(row)
    connection.execute(f"ALTER TABLE {TRANSACTIONS} ADD PRIMARY KEY (transaction_id)")
    connection.execute(f"CREATE INDEX ON {TRANSACTIONS} (user_id, posted_at DESC, transaction_id DESC)")
    connection.execute(f"ALTER TABLE {ACCOUNTS} ADD PRIMARY KEY (account_id)")
    connection.execute(f"CREATE INDEX ON {ACCOUNTS} (user_id)")
    connection.execute("VACUUM ANALYZE")


def _peer(program: str) -> str:
    path = PEERS_BIN / program
    if not path.exists():
        raise SetUpFailed(f"{path} is not there: {_MISSING}")
    return str(path)


SERVERS: dict[str, Callable[[Site, Path], AbstractContextManager[Running]]] = {
    "ours": partial(ours, workers=os.cpu_count() or 1),
    "ours, one process": ours,
    "constant": constant,
    "plan": plan,
    "shared file": shared_file,
    "polars": polars,
    "ROAPI": roapi,
    "datasette": datasette,
    "PostgreSQL": postgres,
}
