"""Sessions end, by FIN, by RST, by silence, by the operator; nothing of them is left."""

from __future__ import annotations

import pytest
from chained import Conversation, Network, connect

from dysco.topo.waiting import wait_until

PORT = 86
"""Firewall, then counter."""


def states(network: Network) -> list[str]:
    """Of the sessions. `dyscod` learns of a SYN-ACK while the connection goes on already."""
    return [session["state"] for session in network.sessions()]


def test_fin(network: Network) -> None:
    network.wait_empty()
    before = network.counted("firewall", "session_closed")
    talks = [Conversation(network, PORT, version) for version in (4, 6)]
    for talk in talks:
        talk.exchange()
    wait_until(lambda: states(network) == ["established"] * 2, "both to be established")
    held = network.entries()
    assert [held[f"nic{n}"] for n in range(1, 6)] == [4, 8, 0, 8, 4]
    for talk in talks:
        talk.finish()
    network.wait_empty()
    assert network.counted("firewall", "session_closed") == before + 2


@pytest.mark.parametrize("by_server", [False, True])
def test_rst(network: Network, by_server: bool) -> None:
    network.wait_empty()
    before = network.counted("server", "session_reset")
    talks = [Conversation(network, PORT, version) for version in (4, 6)]
    for talk in talks:
        talk.exchange()
        talk.reset(by_server=by_server)
    network.wait_empty()
    assert network.counted("server", "session_reset") == before + 2


def test_half_closed_goes_on(network: Network) -> None:
    """One direction is closed; the other one goes on for as long as it likes."""
    network.wait_empty()
    talk = Conversation(network, PORT)
    assert talk.server is not None
    talk.client.shutdown(1)
    assert talk.server.recv(1) == b""
    for _ in range(20):
        talk.server.sendall(b"x" * 1000)
        received = 0
        while received < 1000:
            received += len(talk.client.recv(1000 - received))
    assert states(network) == ["established"]
    talk.server.close()
    assert talk.client.recv(1) == b""
    network.wait_empty()


def test_nobody_listens(network: Network) -> None:
    """The server's own RST comes back to the client, through the chain."""
    network.wait_empty()
    with pytest.raises(ConnectionRefusedError):
        connect(network, PORT)
    network.wait_empty()


def test_the_five_tuple_comes_again(network: Network) -> None:
    """A new connection with the five-tuple of one that just ended is a new session."""
    network.wait_empty()
    first = Conversation(network, PORT)
    first.exchange()
    port = first.local_port
    first.reset()
    second = Conversation(network, PORT, local_port=port)
    second.exchange()
    second.finish()
    network.wait_empty()


def test_the_operator_closes(network: Network) -> None:
    network.wait_empty()
    talk = Conversation(network, PORT)
    talk.exchange()
    (session,) = network.sessions()
    network.controller.ctl("session", "close", session["id"])
    network.wait_empty()
    assert network.works(80)
