"""`dysco-conntrack` between real boxes: a connection goes on through one that saw no SYN of it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from dysco.agent.events import Sides, StateVerb
from dysco.agent.model import FiveTuple
from dysco.state import conntrack
from dysco.state.request import VARIABLE, Request, StateError
from dysco.topo import boxes
from dysco.topo.process import ProcessError
from dysco.topo.spec import HostSpec, TopologySpec
from dysco.topo.static import route_through
from dysco.topo.topology import Topology

HOSTS = (
    HostSpec("client", 1),
    HostSpec("firewall", 2, "firewall"),
    HostSpec("firewall2", 3, "firewall"),
    HostSpec("nat", 4, "nat"),
    HostSpec("nat2", 5, "nat"),
    HostSpec("server", 6),
)
VIA_FIREWALL, VIA_NAT = 80, 81
_FIRST_TABLE = 1000
_TRY = 0.7
"""Seconds in which a segment would have come."""


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    with Topology(TopologySpec(HOSTS), tmp_path_factory.mktemp("conntrack")) as topology:
        boxes.set_up_boxes(topology, (VIA_FIREWALL, VIA_NAT))
        yield topology


@dataclass
class Talk:
    client: socket.socket
    server: socket.socket
    sides: Sides
    """As the box between them has it."""

    def exchange(self) -> None:
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            sent = os.urandom(20_000)
            sender.sendall(sent)
            got = b""
            while len(got) < len(sent):
                got += receiver.recv(len(sent) - len(got))
            assert got == sent


@pytest.fixture
def way(topology: Topology) -> Iterator[Topology]:
    """A router whose rules are gone afterwards."""
    yield topology
    router = topology.routers["router"]
    for family in (socket.AF_INET, socket.AF_INET6):
        router.ip.flush_rules(family=family, priority=1000)
        for table in range(_FIRST_TABLE, _FIRST_TABLE + 4):
            router.ip.flush_routes(family=family, table=table)


def talk(topology: Topology, box: str, port: int, version: int) -> Talk:
    route_through(topology, ["client", box, "server"], port)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    server = topology.spec.host("server")
    address = str(server.ipv4 if version == 4 else server.ipv6)
    with topology.hosts["server"].entered():
        listener = socket.create_server((address, port), family=family)
    with topology.hosts["client"].entered():
        client = socket.socket(family)
    with listener:
        client.settimeout(5.0)
        client.connect((address, port))
        served, seen = listener.accept()
    served.settimeout(5.0)
    own, dst = client.getsockname(), ip_address(address)
    sides = Sides(
        FiveTuple(ip_address(own[0]), own[1], dst, port),
        FiveTuple(ip_address(seen[0]), seen[1], dst, port),
    )
    return Talk(client, served, sides)


def reroute(topology: Topology, talk: Talk, box: str) -> None:
    """What went through one box goes through another."""
    router, host = topology.routers["router"], topology.spec.host(box)
    for table in (_FIRST_TABLE, _FIRST_TABLE + 1):
        for family, via in ((socket.AF_INET, host.ipv4), (socket.AF_INET6, host.ipv6)):
            if router.ip.get_routes(family=family, table=table):
                router.ip.route(
                    "replace", family=family, dst="default", gateway=str(via), table=table
                )
    received, emitted = talk.sides
    assert received is not None
    assert emitted is not None
    if emitted.src != received.src:
        v4 = emitted.src.version == 4
        router.ip.rule(
            "add",
            family=socket.AF_INET if v4 else socket.AF_INET6,
            priority=1000,
            table=_FIRST_TABLE,
            dst=str(emitted.src),
            dst_len=emitted.src.max_prefixlen,
        )


BOXES: dict[str, conntrack.Box] = {}
"""As `dysco-conntrack serve` has them: one for all calls of a box."""


def ask(
    topology: Topology, box: str, verb: StateVerb, sides: Sides, state: bytes | str = b""
) -> bytes:
    request = Request(verb, "0123456789abc", box, sides, sides)
    blob = state.encode() if isinstance(state, str) else state
    with topology.hosts[box].entered():
        return BOXES.setdefault(box, conntrack.Box()).handle(request, blob)


def tracked(topology: Topology, box: str, sides: Sides) -> list[boxes.Connection]:
    return [c for c in boxes.connections(topology.hosts[box]) if c.original == sides.received]


def _rule(name: str, words: str) -> str:
    hook = "type filter hook forward priority 9;"
    return f"table inet {name} {{\n chain c {{\n {hook}\n {words}\n }}\n}}\n"


CASES = [
    ("firewall", "firewall2", VIA_FIREWALL, 4),
    ("firewall", "firewall2", VIA_FIREWALL, 6),
    ("nat", "nat2", VIA_NAT, 4),
    ("nat", "nat2", VIA_NAT, 6),
]


@pytest.mark.parametrize(("old", "new", "port", "version"), CASES)
def test_a_connection_goes_on_through_the_new_box(
    way: Topology, old: str, new: str, port: int, version: int
) -> None:
    session = talk(way, old, port, version)
    session.exchange()
    topology, sides = way, session.sides
    assert (sides.received == sides.emitted) == (old == "firewall")
    before = boxes.counters(topology.hosts[new])
    state = ask(topology, old, StateVerb.EXPORT, sides)
    for _ in range(2):  # a second time, in place of the first
        assert ask(topology, new, StateVerb.IMPORT, sides, state) == b""
    assert tracked(topology, new, sides) == tracked(topology, old, sides)
    ask(topology, old, StateVerb.DROP, sides)
    ask(topology, old, StateVerb.DROP, sides)
    ask(topology, new, StateVerb.RESUME, sides)
    assert tracked(topology, old, sides) == []
    reroute(topology, session, new)
    session.exchange()
    after = boxes.counters(topology.hosts[new])
    assert after.to_server > before.to_server
    assert after.to_client > before.to_client
    assert after.dropped == before.dropped
    for end in (session.client, session.server):
        end.close()


def test_without_its_state_the_new_firewall_lets_nothing_through(way: Topology) -> None:
    session = talk(way, "firewall", VIA_FIREWALL, 4)
    session.exchange()
    before = boxes.counters(way.hosts["firewall2"]).dropped
    reroute(way, session, "firewall2")
    session.client.sendall(b"lost")
    session.server.settimeout(_TRY)
    with pytest.raises(TimeoutError):
        session.server.recv(1)
    assert boxes.counters(way.hosts["firewall2"]).dropped > before
    for end in (session.client, session.server):
        end.close()


def test_mark_and_all_of_the_tcp_state_come_over(way: Topology) -> None:
    box = way.hosts["firewall"]
    box.run(["nft", "-f", "-"], stdin=_rule("marks", "ct mark set 77"))
    session = talk(way, "firewall", VIA_FIREWALL, 4)
    session.exchange()
    box.run(["nft", "delete", "table", "inet", "marks"])
    state = json.loads(ask(way, "firewall", StateVerb.EXPORT, session.sides))
    assert state["state"] == "ESTABLISHED"
    assert state["mark"] == 77
    assert all(scale > 0 for scale in state["scales"])
    ask(way, "firewall2", StateVerb.IMPORT, session.sides, json.dumps(state))
    again = json.loads(ask(way, "firewall2", StateVerb.EXPORT, session.sides))
    assert 0 <= state.pop("timeout") - again.pop("timeout") <= 5
    assert again == state
    for end in (session.client, session.server):
        end.close()


def test_labels_come_over_where_the_box_uses_them(way: Topology) -> None:
    session = talk(way, "firewall", VIA_FIREWALL, 4)
    state = json.loads(ask(way, "firewall", StateVerb.EXPORT, session.sides))
    state["labels"] = 1 << 77 | 4
    box = way.hosts["firewall2"]
    ask(way, "firewall2", StateVerb.IMPORT, session.sides, json.dumps(state))
    without = json.loads(ask(way, "firewall2", StateVerb.EXPORT, session.sides))
    assert without["labels"] == 0
    box.run(["nft", "-f", "-"], stdin=_rule("labels", "ct label set 12"))
    try:
        ask(way, "firewall2", StateVerb.IMPORT, session.sides, json.dumps(state))
        there = json.loads(ask(way, "firewall2", StateVerb.EXPORT, session.sides))
    finally:
        box.run(["nft", "delete", "table", "inet", "labels"])
    assert there["labels"] == state["labels"]
    for end in (session.client, session.server):
        end.close()


SIDES = Sides(
    FiveTuple(ip_address("10.0.1.2"), 1111, ip_address("10.0.6.2"), 80),
    FiveTuple(ip_address("10.0.1.2"), 1111, ip_address("10.0.6.2"), 80),
)
STATE = {
    "format": "dysco-conntrack 1",
    "state": "ESTABLISHED",
    "scales": [7, 7],
    "flags": [3, 3],
    "status": 14,
    "timeout": 100,
    "mark": 0,
    "labels": 0,
}


@pytest.mark.parametrize(
    ("verb", "sides", "state", "why"),
    [
        (StateVerb.EXPORT, SIDES, "", "no entry here; is this the namespace of firewall?"),
        (StateVerb.EXPORT, SIDES._replace(emitted=None), "", "an end of the session"),
        (StateVerb.IMPORT, SIDES, "", "no export of dysco-conntrack"),
        (StateVerb.IMPORT, SIDES, json.dumps({**STATE, "format": "x"}), "another format"),
        (StateVerb.IMPORT, SIDES, json.dumps({**STATE, "state": "x"}), "no state is named 'x'"),
        (StateVerb.IMPORT, SIDES, json.dumps({**STATE, "scales": [1]}), "no export of"),
        (StateVerb.IMPORT, SIDES, json.dumps({**STATE, "more": 1}), "no export of"),
    ],
)
def test_what_can_t_be_says_why(
    topology: Topology, verb: StateVerb, sides: Sides, state: str, why: str
) -> None:
    with pytest.raises(StateError) as told:
        ask(topology, "firewall", verb, sides, state)
    assert why in str(told.value)


def test_it_runs_as_a_command(way: Topology) -> None:
    session = talk(way, "firewall", VIA_FIREWALL, 4)
    request = Request(StateVerb.EXPORT, "0123456789abc", "firewall", session.sides, session.sides)
    argv = [sys.executable, "-m", "dysco.state.conntrack", "export"]
    box = way.hosts["firewall"]
    told = box.run(["env", f"{VARIABLE}={json.dumps(request.tree())}", *argv])
    assert json.loads(told)["state"] == "ESTABLISHED"
    with pytest.raises(ProcessError, match=f"status 1: dysco-conntrack: {VARIABLE} is not set"):
        box.run(argv)
    for end in (session.client, session.server):
        end.close()


def test_a_translation_that_another_connection_has_is_refused(topology: Topology) -> None:
    onward = FiveTuple(ip_address("10.0.4.2"), 2222, ip_address("10.0.6.2"), 80)
    first = Sides(SIDES.received, onward)
    assert first.received is not None
    second = Sides(first.received._replace(sport=3333), onward)
    state = json.dumps(STATE)
    ask(topology, "nat2", StateVerb.IMPORT, first, state)
    with pytest.raises(StateError, match=r"10.0.1.2:3333 > 10.0.6.2:80"):
        ask(topology, "nat2", StateVerb.IMPORT, second, state)
    assert tracked(topology, "nat2", second) == []
    assert len(tracked(topology, "nat2", first)) == 1
    ask(topology, "nat2", StateVerb.DROP, first)
