"""Traces, with the examples of https://www.w3.org/TR/trace-context/ and the cases of its test suite."""

import json
import re

import pytest

from .api import QUERY, bearer, open_api

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(00|01)")


@pytest.fixture
def ask(client):
    """``ask(value, …)``: trace id, span id and flags of the answer to a request with these headers."""

    def ask(*values):
        headers = [("traceparent", value) for value in values]
        (came,) = client.get("/health/live", headers=headers).headers.get_list("traceparent")
        trace, span, flags = HEADER.fullmatch(came).groups()
        assert int(trace, 16) != 0
        assert int(span, 16) != 0
        return trace, span, flags

    return ask


@pytest.mark.parametrize(
    ("came", "flags"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "00"),
        # Bits of the flags that nobody knows yet are not passed on.
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", "00"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", "01"),
        # Later versions begin like this one.
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01"),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", "01"),
        (" \t00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\t ", "01"),
    ],
)
def test_a_valid_trace_goes_on_with_a_span_of_ours(ask, came, flags):
    trace, span, ours = ask(came)
    assert (trace, ours) == (TRACE, flags)
    assert span != PARENT
    assert ask(came)[1] != span, "each request is a span"


@pytest.mark.parametrize(
    "came",
    [
        [],
        [""],
        ["00"],
        ["nonsense"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-.{TRACE[1:]}-{PARENT}-01"],
        [f"00-{TRACE[1:]}-{PARENT}-01"],
        [f"00-{TRACE}0-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT[1:]}-01"],
        [f"00-{TRACE}-{PARENT}-1"],
        [f"00-{TRACE}-{PARENT}-.0"],
        [f"00-{TRACE}-{PARENT}"],
        [f"00-{TRACE}-{PARENT}-01-"],
        [f"00-{TRACE}-{PARENT}-01-what-the-future-will-be-like"],
        [f"00-{TRACE}-{PARENT}-01.what-the-future-will-not-be-like"],
        [f"cc-{TRACE}-{PARENT}-01.what-the-future-will-not-be-like"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f".0-{TRACE}-{PARENT}-01"],
        [f"0-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01" + " " * 1000 + "x"],
    ],
)
def test_without_a_valid_one_a_trace_is_begun(ask, came):
    trace, span, flags = ask(*came)
    assert trace.lower() != TRACE
    assert flags == "00"
    assert ask(*came)[:2] != (trace, span)


def test_every_line_of_the_log_has_the_trace(store, capsys):
    client, _ = open_api(parquet_dir=store.root)
    answer = client.get(QUERY, headers={**bearer(1), "traceparent": f"00-{TRACE}-{PARENT}-01"})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"snapshot_opened", "request"}
    assert {line["trace_id"] for line in lines} == {TRACE}
    assert {line["span_id"] for line in lines} == {answer.headers["traceparent"].split("-")[2]}


def test_errors_have_one_too(client, monkeypatch):
    def read(*_):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(client.app.state.database, "read", read)
    for headers in ({}, bearer(1)):
        answer = client.get(QUERY, headers={**headers, "traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert answer.status_code in (401, 500)
        assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
