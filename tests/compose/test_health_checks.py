"""Health checks that ask by HTTP, run as they are rendered against servers that answer this and that."""

import subprocess
import sys

import pytest

from tests.answering import answering
from tests.e2e.stack import free_ports

from .test_rendered import stack

ASKED = {
    "backend": ("/health/ready", '{"status":"ready"}'),
    "gateway": ("/health/live", '{"status":"live"}'),
    "dagster-webserver": ("/graphql", '{"data":{"runsOrError":{"__typename":"Runs"}}}'),
}
REFUSED = {
    "backend": '{"error":{"code":"no_snapshot","message":"HTTP/1.1 200 OK","hint":""}}',
    "gateway": '{"error":{"code":"no_backend","message":"","hint":""}}',
    "dagster-webserver": '{"data":{"runsOrError":{"__typename":"PythonError"}}}',
}


@pytest.fixture(params=sorted(ASKED))
def service(request):
    return request.param


@pytest.fixture
def code(service):
    """Exit code of the service's health check on a port of this machine."""
    kind, program, *arguments = stack("phase2")["services"][service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    port = {"dagster-webserver": "3000"}.get(service, "8000")
    assert arguments.count(port) == 1
    return lambda other: subprocess.run(
        [sys.executable, *(other if argument == port else argument for argument in arguments)],
        check=False, timeout=60, stderr=subprocess.DEVNULL,
    ).returncode  # fmt: skip


def test_it_is_healthy_where_it_is_answered_as_it_is_to_be(service, code):
    path, text = ASKED[service]
    with answering((200, text)) as (port, paths):
        assert code(port) == 0
    assert [asked.split("?")[0] for asked in paths] == [path]


@pytest.mark.parametrize("status", [503, 502, 500])
def test_it_is_not_with_another_status_whatever_is_said(service, code, status):
    with answering((status, ASKED[service][1])) as (port, _):
        assert code(port) != 0


def test_it_is_not_where_another_answer_comes(service, code):
    with answering((200, REFUSED[service])) as (port, _):
        assert code(port) != 0


def test_it_is_not_where_nobody_listens(code):
    (port,) = free_ports(1)
    assert code(port) != 0
