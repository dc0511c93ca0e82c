"""The daemon's health check, where there is no daemon. With one: tests/e2e/test_phase2.py."""

import yaml

from backend.filepaths import REPO_ROOT
from deploy.pipeline import healthcheck
from tests.e2e.stack import free_ports


def test_without_what_serves_the_definitions_the_daemon_is_not_up(monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setattr(healthcheck, "CODE_SERVER", ("127.0.0.1", int(port)))
    assert f"at 127.0.0.1:{port} (" in healthcheck.missing()


def test_dagster_looks_for_the_definitions_where_they_are_served():
    (entry,) = yaml.safe_load((REPO_ROOT / "deploy/pipeline/workspace.yaml").read_text())["load_from"]
    assert (entry["grpc_server"]["host"], entry["grpc_server"]["port"]) == healthcheck.CODE_SERVER
