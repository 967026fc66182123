"""`kill -9` of `dyscod`: sessions go on without it and with the next one. Two are as one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from chained import Conversation, Network, PolicyArgs, box, nft, running

from dysco.topo.controller import Controller
from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.waiting import wait_until

CHAIN = ("client", "firewall", "nat", "counter", "server")
PORT = 90
PATIENT = {"setup_timeout": 15.0, "pending_timeout": 10.0}
"""Longer than a restart takes on a busy machine."""
POLICIES = [
    PolicyArgs("tcp and dst port 80", CHAIN[1:-1]),
    PolicyArgs(f"tcp and dst port {PORT}", CHAIN[1:-1]),
]


def spec() -> TopologySpec:
    kinds = (None, "firewall", "nat", "counter", None)
    hosts = tuple(
        box(name, number, kind)
        for number, (name, kind) in enumerate(zip(CHAIN, kinds, strict=True), start=1)
    )
    return TopologySpec(hosts, tuple(DeviceSpec(f"nic{h.subnet}", h.subnet) for h in hosts))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([["nic1", "nic2", "nic3", "nic4", "nic5"]], id="one"),
        pytest.param([["nic1", "nic3"], ["nic2", "nic4", "nic5"]], id="two"),
    ],
)
def network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """All devices with one `dyscod`, or with two that know of each other's hosts as peers."""
    daemons: list[list[str]] = request.param
    directory = tmp_path_factory.mktemp("restart")
    with running(spec(), directory, POLICIES, settings=PATIENT, daemons=daemons) as network:
        yield network


def kill(network: Network) -> None:
    for controller in network.controllers:
        controller.process.kill()


def start(network: Network) -> None:
    for controller in network.controllers:
        controller.launch()
    for controller in network.controllers:
        controller.wait_ready()


def ids(network: Network) -> list[str]:
    """Of the sessions that are listed, at all `dyscod`."""
    return [session["id"] for session in network.sessions()]


def hops(network: Network, session: str) -> list[str]:
    """The hosts of a session, from what all `dyscod` know of it."""
    found = []
    for controller in network.controllers:
        with controller.api() as client:
            shown = client.get("v1", "sessions", session)
        found += [(hop["position"], hop["host"]) for hop in shown["hops"]]
    return [host for _, host in sorted(found)]


@pytest.mark.parametrize("version", [4, 6])
def test_the_chain_carries(network: Network, version: int) -> None:
    assert network.works(80, version)
    assert network.who(80, version) == network.address("nat", version)
    talk = Conversation(network, PORT, version)
    session, *_ = ids(network)
    talk.exchange()
    assert hops(network, session) == list(CHAIN)
    talk.finish()


def test_established_sessions_outlive_it(network: Network) -> None:
    """They go on while it is dead, are listed again afterwards, and end as any other."""
    network.wait_empty()
    policies = [policies_of(controller) for controller in network.controllers]
    talks = [Conversation(network, PORT, version) for version in (4, 6)]
    before = set(ids(network))
    kill(network)
    for talk in talks:
        talk.exchange(100_000)
    start(network)
    assert set(ids(network)) == before
    assert {s["state"] for s in network.sessions()} == {"established"}
    assert all(hop["recovered"] for s in network.sessions() for hop in s["hops"])
    for session in before:
        assert hops(network, session) == list(CHAIN)
    assert [policies_of(controller) for controller in network.controllers] == policies
    assert network.works(80, 4), "a new session"
    assert network.works(80, 6), "a new session"
    for talk in talks:
        talk.exchange()
        talk.finish()
    network.wait_empty()


def policies_of(controller: Controller) -> list[dict[str, object]]:
    """Its policies, without what they caught."""
    return [{**policy, "sessions": None} for policy in controller.ctl("policy", "list")]


def test_a_long_transfer_runs_through_it(network: Network) -> None:
    """A download of which some is read before the kill, some while it is dead, some after it."""
    content = os.urandom(16_000_000)
    network.web.publish("long", content)
    with network.host("client").entered():
        client = socket.socket()
    with client:
        # A small window, so that most of it stays at the server until it is read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.settimeout(10)
        client.connect((network.address("server"), 80))
        client.sendall(b"GET /long HTTP/1.0\r\n\r\n")
        reader = client.makefile("rb")
        assert b" 200 " in reader.readline()
        while reader.readline().strip():
            pass
        received = reader.read(2_000_000)
        kill(network)
        received += reader.read(2_000_000)
        start(network)
        received += reader.read()
    assert received == content


def test_a_set_up_that_it_cuts_short(network: Network) -> None:
    """The SYN is on its way when `dyscod` dies; the one that TCP sends again finds the next."""
    network.wait_empty()
    connected: list[Conversation] = []
    server = network.host("server")
    with ExitStack() as stack:
        stack.enter_context(
            nft(server, "prerouting", "tcp flags & (syn | ack) == syn counter drop")
        )
        thread = threading.Thread(
            target=lambda: connected.append(Conversation(network, PORT, seconds=20))
        )
        thread.start()
        wait_until(lambda: any(network.entries().values()), "the set-up to start")
        kill(network)
        start(network)
    thread.join(25)
    (talk,) = connected
    talk.exchange()
    (session, *_) = ids(network)
    assert hops(network, session) == list(CHAIN)
    talk.finish()
    network.wait_empty()


def test_nothing_was_dropped_by_the_firewall(network: Network) -> None:
    """Through all of this, strict conntrack saw nothing that it didn't understand."""
    assert network.dropped("firewall") == 0
    assert "please report this" not in network.log()
