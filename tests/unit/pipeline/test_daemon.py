"""The daemon keeps its code server for as long as that lives."""

import pytest
from dagster import DagsterInstance
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.server import GrpcServerCommand

from deploy.pipeline.daemon import start_what_ended
from tests.e2e.stack import wait_for


@pytest.fixture
def registry(tmp_path):
    with (
        DagsterInstance.local_temp(str(tmp_path)) as instance,
        GrpcServerRegistry(
            instance_ref=instance.get_ref(),
            server_command=GrpcServerCommand.API_GRPC,
            heartbeat_ttl=60,
            startup_timeout=300,
            wait_for_processes_on_shutdown=True,
        ) as registry,
    ):
        yield registry


@pytest.fixture
def served(registry, tmp_path):
    """The process that serves the code now, as the daemon asks for it."""
    (tmp_path / "code.py").write_text("import dagster\ndefs = dagster.Definitions()\n")
    target = LoadableTargetOrigin(python_file=str(tmp_path / "code.py"))
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(target, "code")
    return lambda: registry.get_grpc_server_entry(origin).process.server_process


def test_a_code_server_is_kept_until_it_ends_and_then_replaced(registry, served):
    first = served()
    start_what_ended(registry)
    assert served() is first
    first.kill()
    wait_for(lambda: first.poll() is not None, "it has ended", seconds=60, every=0.01)
    start_what_ended(registry)
    second = served()
    assert second is not first
    assert second.poll() is None


def test_dagsters_own_way_starts_another_one_each_time(registry, served):
    """The control: if this fails, Dagster has changed, and so may we."""
    first = served()
    registry.clear_all_grpc_endpoints()
    assert served() is not first
