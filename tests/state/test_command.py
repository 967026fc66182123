"""What all state commands have in common: requests, the command line, calls in one process."""

from __future__ import annotations

import io
import json
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from dysco.agent.events import MAX_STATE, Sides, StateVerb
from dysco.agent.model import FiveTuple
from dysco.state import command
from dysco.state.request import VARIABLE, Request, RequestError, StateError

ENDS = FiveTuple(ip_address("10.0.1.2"), 1111, ip_address("10.0.6.2"), 80)
SIX = FiveTuple(ip_address("fd00::1"), 1111, ip_address("fd00::2"), 80)
EXPORT = Request(StateVerb.EXPORT, "0123456789abc", "box", Sides(ENDS, SIX), Sides(ENDS, None))


def shout(request: Request, state: bytes) -> bytes:
    if request.host != "box":
        raise StateError(f"{request.host} is nobody")
    return request.verb.value.encode() + state.upper()


def test_a_request_comes_over_as_it_was() -> None:
    text = json.dumps(EXPORT.tree())
    assert Request.of_environment({VARIABLE: text}) == EXPORT


@pytest.mark.parametrize(
    "change",
    [
        {"verb": "eat"},
        {"session": None, "received": 5},
        {"was": {}},
        {"received": {"src": "10.0.0.1", "sport": 1, "dst": "fd00::1", "dport": 2}},
        {"received": {"src": "10.0.0.1", "sport": 0, "dst": "10.0.0.1", "dport": 2}},
        {"received": {"src": "10.0.0.1", "sport": 1, "dst": "10.0.0.1", "dport": 65536}},
        {"received": {"src": "10.0.0", "sport": 1, "dst": "10.0.0.1", "dport": 2}},
    ],
)
def test_what_is_no_request_says_so(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="no request of dyscod"):
        Request.of({**EXPORT.tree(), **change})


@pytest.mark.parametrize(
    ("words", "variable", "why"),
    [
        ([], "{}", "usage: shout export|import|resume|drop|serve"),
        (["eat"], "{}", "usage: shout"),
        (["export", "import"], "{}", "usage: shout"),
        (["export"], None, f"shout: {VARIABLE} is not set"),
        (["export"], "x", "is no JSON"),
        (["export"], "{}", "no request of dyscod"),
        (["drop"], json.dumps(EXPORT.tree()), "it asks to export, the command line to drop"),
        (["export"], json.dumps({**EXPORT.tree(), "host": "me"}), "shout: me is nobody"),
    ],
)
def test_bad_usage_and_failures_end_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, words: list[str], variable: str | None, why: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["shout", *words])
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    with pytest.raises(SystemExit) as ended:
        command.main("shout", shout)
    assert why in str(ended.value)


def served(calls: bytes) -> bytes:
    answers = io.BytesIO()
    command.serve(shout, io.BytesIO(calls), answers)
    return answers.getvalue()


def call(number: int, state: bytes = b"", **change: Any) -> bytes:
    tree = {"call": number, "size": len(state), **EXPORT.tree(), **change}
    return json.dumps(tree).encode() + b"\n" + state


def test_many_calls_are_answered_in_one_process() -> None:
    got = served(call(1) + call(2, b"two\n", verb="import") + call(3, host="me") + call(4))
    answers = io.BytesIO(got)
    assert json.loads(answers.readline()) == {"call": 1, "size": 6}
    assert answers.read(6) == b"export"
    assert json.loads(answers.readline()) == {"call": 2, "size": 10}
    assert answers.read(10) == b"importTWO\n"
    assert json.loads(answers.readline()) == {"call": 3, "error": "me is nobody"}
    assert json.loads(answers.readline()) == {"call": 4, "size": 6}
    assert answers.read() == b"export"


def test_a_call_that_is_cut_off_is_not_carried_out() -> None:
    assert served(call(1, b"whole")[:-1]) == b""


@pytest.mark.parametrize(
    "line",
    [b"x\n", b"[]\n", b'{"call": 1}\n', b'{"call": "1", "size": 0}\n', call(1, size=MAX_STATE + 1)],
)
def test_what_is_no_call_ends_the_process(line: bytes) -> None:
    with pytest.raises(RequestError, match="is no call"):
        served(line)
