"""Phase 2: who may write what, who sees what, and what a failed, a partial or a second build does."""

import json
import os
import re
import subprocess

import duckdb
import pytest

from .reference import DATASETS
from .stack import LOCATION, wait_for

PARQUET = {
    "backend": "/app/data/parquet",
    "dagster-daemon": "/opt/dagster/dagster_home/data/parquet",
    "dagster-webserver": "/opt/dagster/dagster_home/data/parquet",
}


APP_UID = "23456"


def of_somebody_else(stack):
    """The host's directory as another user made it, for themselves alone."""
    stack.parquet_host_dir.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(stack.parquet_host_dir, 4242, 4242)


@pytest.fixture(scope="module")
def stack(start_stack):
    stack = start_stack(2, settings={"APP_UID": APP_UID, "APP_GID": APP_UID}, before=of_somebody_else)
    stack.stop_schedule()
    return stack


def environment(stack, service):
    return dict(variable.split("=", 1) for variable in stack.container(service).attrs["Config"]["Env"])


def test_the_first_build_began_by_itself(stack):
    runs = stack.graphql("{ runsOrError { ... on Runs { results { status tags { key value } } } } }")
    (first, *_) = reversed(runs["runsOrError"]["results"])
    assert {"key": "started_by", "value": "first_build"} in first["tags"]


def test_the_api_tells_of_the_builds_of_the_pipeline(stack):
    def published():
        with stack.api() as api:
            return re.search(
                r'^analytics_builds_finished_total{outcome="published"} [1-9]', api.get("/metrics").text, re.MULTILINE
            )

    wait_for(published, "the first build is counted", seconds=30)


def test_mounts_and_variables_are_those_of_the_contract(stack):
    for service, path in PARQUET.items():
        (mount,) = [m for m in stack.container(service).attrs["Mounts"] if m["Destination"] == path]
        assert mount["Type"] == "bind"
        assert mount["Source"] == str(stack.parquet_host_dir)
        assert mount["RW"] == (service == "dagster-daemon")
        assert environment(stack, service)["PARQUET_DIR"] == path
    assert "DUCKDB_PATH" not in environment(stack, "backend")
    for service in ("dagster-daemon", "dagster-webserver"):
        assert environment(stack, service)["DUCKDB_PATH"] == "/tmp/dbt_build.duckdb"


@pytest.mark.parametrize("service", ["backend", "dagster-webserver"])
def test_only_the_daemon_can_write_marts(stack, service):
    code, output = stack.exec(service, "touch", f"{PARQUET[service]}/intruder")
    assert code != 0
    assert "Read-only file system" in output
    code, output = stack.exec("dagster-daemon", "touch", f"{PARQUET['dagster-daemon']}/friend")
    assert code == 0, output
    (stack.parquet_host_dir / "friend").unlink()


def test_the_bind_mount_works_whoever_made_the_directory(stack):
    assert stack.exec("dagster-daemon", "id", "-u")[1].strip() == APP_UID
    files = [path for path in stack.parquet_host_dir.rglob("*") if not path.is_symlink()]
    assert {path.stat().st_uid for path in (stack.parquet_host_dir, *files)} == {int(APP_UID)}


def test_no_file_is_shared_but_parquet(stack):
    users = {}
    for service, container in stack.containers().items():
        for mount in container.attrs["Mounts"]:
            if not mount["Destination"].startswith("/run/secrets/"):
                users.setdefault(mount["Source"], set()).add(service)
    shared = {source for source, services in users.items() if len(services) > 1}
    empty = f"{stack.project}_unused"  # where a dbt project of one's own would be
    assert {source for source in shared if empty not in source} == {str(stack.parquet_host_dir)}
    for place in ("project", "files"):
        assert stack.exec("dagster-daemon", "ls", "-A", f"/opt/dagster/{place}") == (0, "")
        assert stack.exec("dagster-daemon", "touch", f"/opt/dagster/{place}/intruder")[0] != 0
    files = {path.suffix or path.name for path in stack.parquet_host_dir.rglob("*") if path.is_file()}
    assert files == {".parquet", ".json", ".lock"}


def test_the_build_file_is_on_no_mount(stack):
    for service in ("dagster-daemon", "dagster-webserver"):
        attrs = stack.container(service).attrs
        assert not [m for m in attrs["Mounts"] if "/tmp/dbt_build.duckdb".startswith(m["Destination"])]
        assert "/tmp" in attrs["HostConfig"]["Tmpfs"]
        assert stack.exec(service, "sh", "-c", "ls /tmp/*.duckdb*")[0] != 0


def test_nobody_is_root_and_nothing_is_writable_but_what_must_be(stack):
    for service, container in stack.containers().items():
        if container.status != "running":
            continue
        assert stack.exec(service, "id", "-u")[1].strip() != "0", service
        assert stack.exec(service, "touch", "/usr/intruder")[0] != 0, service
        assert "CapEff:\t0000000000000000" in stack.exec(service, "cat", "/proc/1/status")[1], service
        assert "NoNewPrivs:\t1" in stack.exec(service, "cat", "/proc/1/status")[1], service


CONNECT = "import socket; socket.create_connection(({!r}, 5432), timeout=3)"


def test_the_backend_cannot_reach_postgresql(stack):
    for service in ("postgres", "dagster-postgres"):
        networks = stack.container(service).attrs["NetworkSettings"]["Networks"].values()
        for target in (service, *(network["IPAddress"] for network in networks)):
            assert stack.exec("backend", "python", "-c", CONNECT.format(target))[0] != 0, target
            code, output = stack.exec("dagster-daemon", "python", "-c", CONNECT.format(target))
            assert code == 0, output  # the control: there is something to reach


def test_dbt_connects_as_a_role_that_can_only_select(stack):
    assert environment(stack, "dagster-daemon")["SOURCE_USER"] == "analytics_reader"
    stack.psql("SET ROLE analytics_reader; SELECT count(*) FROM transactions")
    code, output = stack.exec(
        "postgres", "psql", "-U", "postgres", "-d", "finance", "-c", "SET ROLE analytics_reader; DELETE FROM budgets"
    )
    assert code != 0
    assert "permission denied" in output


def test_no_secret_is_in_an_environment_or_a_log(stack):
    secrets = [path.read_text() for path in stack.secrets.iterdir()]
    logs = stack.run("logs", "--no-color").stdout
    for container in stack.containers().values():
        inspected = json.dumps(container.attrs)
        assert not [secret for secret in secrets if secret in inspected or secret in logs]


def snapshots(stack):
    return sorted(path.name for path in (stack.parquet_host_dir / "snapshots").iterdir())


def manifest(stack, snapshot_id):
    return json.loads((stack.parquet_host_dir / "snapshots" / snapshot_id / "manifest.json").read_text())


def test_a_run_of_one_asset_publishes_a_whole_snapshot(stack):
    first = stack.snapshot()
    run_id = stack.build("dim_users")
    materialised = stack.materialised(run_id)
    assert sorted(materialised) == ["dim_users"]
    # By what the run says of itself: the automation may have built as well, meanwhile.
    after = materialised["dim_users"]["snapshot"]
    before = manifest(stack, after)["parent"]
    assert first <= before < after <= stack.snapshot()
    assert sorted(mart["name"] for mart in manifest(stack, after)["marts"]) == list(DATASETS)
    with stack.api(all_rows=True) as api:
        listed = api.get("/api/analytics/datasets").json()
    assert {d["id"]: d["row_count"] for d in listed["datasets"]} == {
        mart["name"]: mart["rows"] for mart in manifest(stack, listed["snapshot"])["marts"]
    }
    for name in DATASETS:
        files = [stack.parquet_host_dir / "snapshots" / i / f"{name}.parquet" for i in (before, after)]
        assert (files[0].stat().st_ino == files[1].stat().st_ino) == (name != "dim_users"), name


def test_two_runs_at_once_are_serialised(stack):
    runs = [stack.launch(job="hourly_marts"), stack.launch("dim_merchants")]
    assert [stack.finished(run_id) for run_id in runs] == ["SUCCESS"] * 2
    published = [next(iter(stack.materialised(run_id).values()))["snapshot"] for run_id in runs]
    assert manifest(stack, published[1])["parent"] == published[0]


def balance(stack):
    """Of the first account, in what is served."""
    file = stack.parquet_host_dir / "snapshots" / stack.snapshot() / "dim_accounts.parquet"
    return duckdb.execute("SELECT balance FROM read_parquet(?) WHERE account_id = 1", [str(file)]).fetchall()


def test_failed_dbt_tests_fail_the_run_publish_nothing_and_are_shown_on_their_assets(stack):
    before = balance(stack)
    stack.psql("UPDATE accounts SET balance = balance + 1 WHERE account_id = 1")
    stack.psql("INSERT INTO users VALUES (-1, 'twice@example.com', 'Nobody', 'DE', now(), NULL)")
    stack.psql("ALTER TABLE users DROP CONSTRAINT users_email_key")
    stack.psql("INSERT INTO users VALUES (-2, 'twice@example.com', 'Nobody', 'DE', now(), NULL)")
    try:
        run_id = stack.launch()
        assert stack.finished(run_id) == "FAILURE"
        for failed in ("assert_balances_agree_with_movements", "unique_dim_users_email"):
            assert failed in stack.failure(run_id)
        checks = {
            event["evaluation"]["checkName"]: event["evaluation"]["success"]
            for event in stack.events(run_id)
            if event["__typename"] == "AssetCheckEvaluationEvent"
        }
        assert checks["unique_dim_users_email"] is False
        assert checks["unique_dim_users_user_id"] is True
        assert stack.materialised(run_id) == {}
        # A build that the automation had begun before may have published meanwhile; what failed did not.
        assert balance(stack) == before
        assert list((stack.parquet_host_dir / "building").iterdir()) == []
        assert stack.exec("dagster-daemon", "sh", "-c", "ls /tmp/*.duckdb*")[0] != 0
    finally:
        stack.psql("UPDATE accounts SET balance = balance - 1 WHERE account_id = 1")
        stack.psql("DELETE FROM users WHERE user_id < 0")
        stack.psql("ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email)")


def test_a_refused_audit_fails_the_run_publishes_nothing_and_says_why(stack):
    before = stack.snapshot()
    run_id = stack.launch()
    building = stack.parquet_host_dir / "building" / run_id

    def tampered():
        if building.is_dir():
            (building / "nobodys_mart.parquet").write_bytes(b"PAR1")
            return True
        return False

    wait_for(tampered, "the build has begun", seconds=120)
    assert stack.finished(run_id) == "FAILURE"
    assert "nobodys_mart.parquet: no mart is declared by this name" in stack.failure(run_id)
    assert stack.snapshot() == before
    assert not building.exists()


def test_an_emptied_source_table_is_an_empty_mart(stack):
    stack.psql("CREATE TABLE kept AS TABLE budgets; TRUNCATE budgets")
    try:
        stack.build("fct_budgets")
        with stack.api(all_rows=True) as api:
            for mart in ("fct_budgets", "agg_budget_monthly"):
                assert api.get(f"/api/analytics/datasets/{mart}").json()["row_count"] == 0
                assert api.get(f"/api/analytics/datasets/{mart}/query").json()["rows"] == []
    finally:
        stack.psql("INSERT INTO budgets TABLE kept; DROP TABLE kept")


def test_a_rollback_of_the_data_needs_no_build(stack):
    newest = stack.snapshot()
    earlier = manifest(stack, newest)["parent"]
    command = ("python", "-m", "deploy.pipeline", "rollback-data", "--snapshot", earlier)
    code, output = stack.exec("dagster-daemon", *command)
    assert code == 0, output
    assert earlier in output
    wait_for(lambda: stack.snapshot() == earlier, "the API answers from the earlier snapshot", seconds=30)


def test_retention_spares_what_a_reader_holds_in_another_container(stack):
    """The backend holds the current snapshot through its read-only mount; the daemon's retention finds the lock."""
    stack.build("dim_users")  # a snapshot that nobody pages through
    held = stack.snapshot()
    retain = (
        "import pathlib; from backend.snapshots import SnapshotStore;"
        f"print(SnapshotStore(pathlib.Path({PARQUET['dagster-daemon']!r})).retain(keep=1, minutes=0))"
    )
    reader = (
        "import os, pathlib, signal; from backend.snapshots import SnapshotStore;"
        f"held = SnapshotStore(pathlib.Path({PARQUET['backend']!r})).open({held!r});"
        "print(os.getpid(), flush=True); signal.pause()"
    )
    command = ["docker", "exec", stack.container("backend").id, "python", "-c", reader]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid = holder.stdout.readline().strip()
    stack.build("dim_users")  # the API moves on to the new one, so that the reader alone holds the old one
    code, deleted = stack.exec("dagster-daemon", "python", "-c", retain)
    assert code == 0, deleted
    assert held not in deleted
    assert held in snapshots(stack)

    # Control: a killed reader holds nothing.
    assert stack.exec("backend", "sh", "-c", f"kill -9 {pid}")[0] == 0
    assert holder.wait(timeout=30) != 0
    assert held in stack.exec("dagster-daemon", "python", "-c", retain)[1]
    assert held not in snapshots(stack)


def test_dagster_is_imported_once_in_the_daemon_and_once_for_all_runs(stack):
    """Dagster by itself has a code server beside the daemon, another beside the web server, and a Python per run."""

    def programs(service):
        found = stack.container(service).top(ps_args="-eo pid,args")
        return [row[-1] for row in found["Processes"] if "healthcheck" not in row[-1] and " -IS " not in row[-1]]

    in_daemon = programs("dagster-daemon")
    assert sum(" deploy.pipeline.daemon " in program for program in in_daemon) == 1
    assert sum(" from multiprocessing.forkserver import main" in program for program in in_daemon) == 1
    assert not [program for program in in_daemon if " api grpc" in program or "multiprocessing.spawn" in program]
    assert [" deploy.pipeline.webserver " in program for program in programs("dagster-webserver")] == [True]
    assert not [program for program in in_daemon if "<defunct>" in program], "what builds have left was not reaped"


def test_definitions_are_served_to_the_web_server_and_not_to_the_sources_network(stack):
    def reached(service, host, port=4000):
        return stack.exec(service, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}")[0] == 0

    assert reached("dagster-webserver", "code-server")
    assert not reached("postgres", "dagster-daemon")
    assert reached("postgres", "postgres", 5432), "the control: it can ask"
    assert stack.exec("postgres", "getent", "hosts", "dagster-daemon")[0] == 0, "the control: and knows whom"


def test_a_build_that_is_cancelled_in_dagsters_page_ends_and_publishes_nothing(stack):
    before = stack.snapshot()
    run_id = stack.launch()
    wait_for((stack.parquet_host_dir / "building" / run_id).is_dir, "the build has begun", seconds=120)
    ended = stack.graphql(
        "mutation($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }", id=run_id
    )["terminateRun"]
    assert ended["__typename"] == "TerminateRunSuccess", ended
    assert stack.finished(run_id) == "CANCELED"
    assert list((stack.parquet_host_dir / "building").iterdir()) == []
    assert stack.snapshot() == before == snapshots(stack)[-1]


def test_the_daemon_keeps_its_connections_to_dagsters_database(stack):
    """Dagster by itself would open one for each thing it asks: none would be that old."""
    networks = stack.container("dagster-daemon").attrs["NetworkSettings"]["Networks"]
    addresses = ", ".join(f"'{network['IPAddress']}'" for network in networks.values())
    kept = (
        f"SELECT count(*) FROM pg_stat_activity WHERE client_addr IN ({addresses})"
        " AND backend_start < now() - interval '30 seconds'"
    )
    code, output = stack.exec("dagster-postgres", "psql", "-U", "dagster", "-d", "dagster", "-qtAc", kept)
    assert code == 0, output
    assert int(output) >= 1


def test_a_daemon_that_is_killed_or_loses_its_code_server_leaves_what_is_served_and_recovers(stack):
    before = stack.snapshot()
    run_id = stack.launch()
    wait_for((stack.parquet_host_dir / "building" / run_id).is_dir, "the build has begun", seconds=120)
    stack.container("dagster-daemon").kill("SIGKILL")
    assert stack.snapshot() == before
    stack.up("dagster-daemon")
    assert stack.status(run_id) == "FAILURE"

    stack.graphql(
        "mutation($name: String!) { shutdownRepositoryLocation(repositoryLocationName: $name) { __typename } }",
        name=LOCATION,
    )
    wait_for(lambda: stack.container("dagster-daemon").status == "exited", "the daemon ends", seconds=60)
    stack.up("dagster-daemon")
    stack.build("dim_users")
    assert stack.snapshot() > before
    assert list((stack.parquet_host_dir / "building").iterdir()) == []
    assert stack.exec("dagster-daemon", "sh", "-c", "ls /tmp/*.duckdb*")[0] != 0
