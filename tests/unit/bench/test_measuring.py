"""Who is asked what, and what a peer that answers something else comes to."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.bench.asking import Refused, Request
from tests.bench.load import Load, LoadFailed, TooShort
from tests.bench.measuring import Bench, Different
from tests.bench.peers import OURS, PEERS, OverFastApi
from tests.bench.processes import Running
from tests.bench.questions import FIRST_SERIAL, QUESTIONS, SERIAL

SITE = SimpleNamespace(users=[3, 5], token=lambda user, *, all_rows=False: f"token-{user}-{all_rows}")
MONTHS = [{"month": "2025-01-01", "total": 1.5, "number": 2}, {"month": "2025-02-01", "total": -3, "number": 1}]
TYPES = {"month": "DATE", "total": "DECIMAL(38,2)", "number": "BIGINT"}
OURS_ANSWERS = {"columns": [{"name": name, "type": kind} for name, kind in TYPES.items()], "rows": MONTHS}
PEER = OverFastApi("liar", "")


@pytest.fixture
def bench(monkeypatch):
    """One peer beside ours; ``bench.answer`` is what it says."""
    bench = Bench(SITE, [PEER], [QUESTIONS["Q2"]], say=lambda _: None)
    bench.answer = MONTHS
    bench._up.update({OURS.server: Running(1, ()), PEER.server: Running(2, ())})

    def ask(request, port, serial=FIRST_SERIAL):
        if port == 1:
            return json.dumps(OURS_ANSWERS).encode()
        if isinstance(bench.answer, Exception):
            raise bench.answer
        return json.dumps(bench.answer).encode()

    monkeypatch.setattr(Request, "ask", ask)
    return bench


def test_a_peer_that_gives_the_same_answer_may_be_timed(bench):
    bench.check()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([MONTHS[0], MONTHS[1] | {"total": -3.01}], r"row 1 of 2 and 2: expected .*'-3'.*found .*'-3\.01'"),
        (MONTHS[:1], "row 1 of 2 and 1"),
        ([*MONTHS, MONTHS[0]], "row 2 of 2 and 3"),
        (MONTHS[::-1], "row 0 of 2 and 2"),
        ([MONTHS[0] | {"other": 1}], "nobody asked for: other"),
        (Refused("503 busy"), "503 busy"),
    ],
    ids=["a changed cell", "a missing row", "an extra row", "reordered", "an extra column", "refused"],
)
def test_a_peer_that_answers_something_else_ends_the_run_and_is_named(bench, answer, said):
    bench.answer = answer
    with pytest.raises(Different, match=rf"^liar .*Q2 of user 3.*{said}"):
        bench.check()


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=lambda question: question.name)
@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_only_who_repeats_itself_sends_the_same_request_twice(peer, question):
    templates = [request.template() for request in peer.requests(SITE, question)]
    if peer.repeats:
        assert len(templates) == 1
        assert SERIAL not in templates[0]
    else:
        assert all(SERIAL in template for template in templates)


def test_what_a_request_says_of_its_length_is_true_whatever_its_number():
    (template, _) = (request.template() for request in OURS.requests(SITE, QUESTIONS["Q4"]))
    head, body = template.replace(SERIAL, str(FIRST_SERIAL)).split("\r\n\r\n")
    assert f"Content-Length: {len(body.encode())}" in head
    assert len(json.loads(body)["queries"]) == 2


def test_ours_is_asked_by_the_user_and_what_is_about_everybody_by_an_operator():
    of_a_user, of_all = (OURS.requests(SITE, QUESTIONS[name])[1].headers["Authorization"] for name in ("Q1", "Q3"))
    assert (of_a_user, of_all) == ("Bearer token-5-False", "Bearer token-5-True")


def test_a_slow_answer_gets_the_time_that_every_connection_needs(bench):
    bench._alone["liar", "Q2"] = 0.5
    assert bench.seconds(PEER, QUESTIONS["Q2"], 1, 3) == 3
    assert bench.seconds(PEER, QUESTIONS["Q2"], 8, 3) > 4


def test_a_load_that_ended_before_anything_was_answered_is_repeated_for_longer(bench, monkeypatch):
    asked = []

    def put(_port, _requests, *, seconds, serial, **_):
        asked.append((seconds, serial))
        if len(asked) < 3:
            raise TooShort("none of 2 requests was answered")
        return Load(2, 16.0, 5, Counter({1: 3}))

    bench.site = SimpleNamespace(**vars(SITE), root=None)
    monkeypatch.setattr("tests.bench.load.put", put)
    assert bench.load(PEER, QUESTIONS["Q2"], connections=2, seconds=1).answers == 3
    assert [seconds for seconds, _ in asked] == [1, 4, 16]
    assert len({serial for _, serial in asked}) == 3


def test_a_load_that_is_never_answered_fails_and_names_the_peer(bench, monkeypatch):
    def put(*_, **__):
        raise TooShort("none of 2 requests was answered")

    bench.site = SimpleNamespace(**vars(SITE), root=None)
    monkeypatch.setattr("tests.bench.load.put", put)
    with pytest.raises(LoadFailed, match=r"^liar, Q2: none of 2"):
        bench.load(PEER, QUESTIONS["Q2"], connections=2, seconds=1)
