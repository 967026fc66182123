"""In every phase of a reconfiguration: RST, FIN, wrapping sequence numbers, a change of mind, a
dead `dyscod`. A phase is held by losing the message that would end it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from chained import Network
from control import Kind, announcements_dropped, dropped, rule
from reconfigured import (
    OVER,
    PATIENT,
    Sessions,
    Talk,
    ask,
    change,
    reconfigured,
    told,
    wait_states,
)

WRAP_IN = 20_000
OLD, NEW = ["client", "server"], ["client", "firewall", "server"]


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    with reconfigured(tmp_path_factory.mktemp("phases"), PATIENT) as network:
        yield network


def hold(network: Network, phase: str) -> str:
    """The nft rule by which no session that has no chain gets past a phase."""
    server = network.address("server")
    match phase:
        case "locking":
            return dropped(Kind.ACK_LOCK)
        case "connecting":
            return f"ip saddr {server} tcp flags & (syn | ack) == (syn | ack) counter drop"
        case "switching":
            return announcements_dropped(server)
        case "draining":
            return dropped(Kind.DRAINED)
        case _:
            return dropped(Kind.ACK_RELEASE)


PHASES = ("locking", "connecting", "switching", "draining", "releasing")


@pytest.mark.parametrize("phase", PHASES)
def test_sessions_end_wrap_and_go_back_in_a_phase(network: Sessions, phase: str) -> None:
    """Each in its own way, and the phase has to be left by all."""
    network.wait_clean()
    dropped_before = network.dropped("firewall")
    wrapping, (cancelled, *aborted) = Talk(network, wrap_in=WRAP_IN), [Talk(network) for _ in "123"]
    closing = [Talk(network) for _ in "12"]
    talks = [wrapping, cancelled, *aborted, *closing]
    with rule(network, hold(network, phase)):
        assert all(a["accepted"] for a in ask(network, talks, insert="firewall", after="client"))
        wait_states(network, talks, (phase,))
        if phase != "switching":
            for talk in talks:
                talk.exchange()
        # New data of an anchor whose announcement is lost waits, as if it were lost itself.
        for talk in (wrapping, cancelled, *closing):
            for by_server in (False, True):
                talk.send(by_server=by_server, size=2 * WRAP_IN)
        possible = phase in ("locking", "connecting")
        with network.controller.api() as client:
            answer = client.delete("v1", "reconfigurations", cancelled.id)
        assert answer["accepted"] is possible, answer
        for by_server in (False, True):
            aborted[by_server].abort(by_server=by_server)
            closing[by_server].ends(by_server=by_server)[0].shutdown(1)
    for by_server in (False, True):
        aborted[by_server].see_reset(by_server=by_server)
        closing[by_server].finish_from(by_server=by_server)
        wrapping.receive(by_server=by_server)
        cancelled.receive(by_server=by_server)
    states = wait_states(network, talks, OVER)
    assert states[0] == "finished", (wrapping.last(), network.log())
    assert wrapping.chain() == NEW
    if possible:
        assert told(network, cancelled.id)[-1] == "failed  cancelled by the operator"
        assert cancelled.chain() == OLD
        change(network, [cancelled], insert="firewall", after="client")
    assert cancelled.chain() == NEW
    for talk in (wrapping, cancelled):
        talk.exchange()
    change(network, [wrapping, cancelled], delete=["firewall"])
    for talk in (wrapping, cancelled):
        talk.exchange()
        talk.finish()
    network.wait_clean()
    if phase != "connecting":
        # A handshake that is given up is reset from both sides, and only the first one fits.
        assert network.dropped("firewall") == dropped_before


def test_kill_9_with_a_session_in_every_phase_and_many_that_wait(network: Sessions) -> None:
    """All of them end after the restart, none is forgotten, and the hosts notice nothing."""
    network.wait_clean()
    held = {phase: Talk(network) for phase in PHASES}
    wrapping = Talk(network, wrap_in=WRAP_IN)
    waiting = [Talk(network) for _ in range(12)]
    talks = [*held.values(), wrapping, *waiting]
    with ExitStack() as stack:
        for phase in reversed(PHASES):
            stack.enter_context(rule(network, hold(network, phase)))
            ask(network, [held[phase]], insert="firewall", after="client")
            wait_states(network, [held[phase]], (phase,))
        ask(network, [wrapping, *waiting], insert="firewall", after="client")
        states = wait_states(network, [wrapping, *waiting], ("locking", "waiting"))
        assert states.count("waiting") > 1, states
        for talk in talks:
            for by_server in (False, True):
                talk.send(by_server=by_server)
        network.controller.process.kill()
        for talk in talks:
            if talk is not held["switching"]:
                for by_server in (False, True):
                    talk.receive(by_server=by_server)
                talk.exchange()
        wrapping.exchange(2 * WRAP_IN)
    network.controller.launch()
    network.controller.wait_ready()
    states = wait_states(network, talks, OVER, 30.0)
    assert states == ["finished"] * len(talks), ([talk.last() for talk in talks], network.log())
    for phase, talk in held.items():
        steps = told(network, talk.id)
        # An announcement came when nobody was there: the device remembers it.
        assert steps[0] in (phase, "draining"), steps
        assert steps[-1] == "finished"
    for talk in talks:
        for by_server in (False, True):
            talk.receive(by_server=by_server)
        talk.exchange()
        assert talk.chain() == NEW
    change(network, talks, delete=["firewall"])
    for talk in talks:
        talk.exchange()
        talk.finish()
    network.wait_clean()
