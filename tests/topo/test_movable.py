"""A server's live connections go to another server, at another address: no Dysco, no P4.

What Dysco's agents do, the router does here: it shuts the way to the server while what that one
has sent still arrives, and then rewrites addresses.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from dysco.agent.events import MAX_STATE, Sides, StateVerb
from dysco.agent.model import FiveTuple
from dysco.state.request import Request
from dysco.topo import movable
from dysco.topo.spec import HostSpec, TopologySpec
from dysco.topo.topology import Topology
from dysco.topo.visit import Visit, VisitError

PORT = 80
SHUT = f"tcp dport {PORT} drop"
HOSTS = (HostSpec("client", 1), HostSpec("server", 2), HostSpec("server2", 3))


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    with Topology(TopologySpec(HOSTS), tmp_path_factory.mktemp("movable")) as topology:
        for name in ("server", "server2"):
            movable.start(topology.hosts[name], name, (PORT,), topology.directory / name)
        yield topology


def address(topology: Topology, name: str, version: int) -> str:
    host = topology.spec.host(name)
    return str(host.ipv4 if version == 4 else host.ipv6)


def sides(topology: Topology, visit: Visit, server: str, version: int) -> Sides:
    client = ip_address(address(topology, "client", version))
    own = ip_address(address(topology, server, version))
    return Sides(FiveTuple(client, visit.port, own, PORT), None)


def ask(
    topology: Topology, server: str, verb: StateVerb, there: Sides, state: bytes = b""
) -> tuple[dict[str, Any], bytes]:
    request = Request(verb, "0123456789abc", server, there, there).tree()
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(5.0)
        control.connect(str(topology.directory / server))
        control.sendall(
            json.dumps({"call": 7, "size": len(state), **request}).encode() + b"\n" + state
        )
        with control.makefile("rb") as answers:
            head = json.loads(answers.readline())
            assert head["call"] == 7
            return head, answers.read(head.get("size", 0))


@contextmanager
def rules(topology: Topology, name: str, hook: str, text: str) -> Iterator[None]:
    router = topology.routers["router"]
    chain = f"chain c {{\n type filter hook {hook} priority -300;\n {text}\n }}"
    router.run(["nft", "-f", "-"], stdin=f"table inet {name} {{\n {chain}\n}}\n")
    try:
        yield
    finally:
        router.run(["nft", "delete", "table", "inet", name])


def elsewhere(topology: Topology, ports: list[int], version: int) -> str:
    """Rules that make server2 the server of some sessions."""
    ip = "ip" if version == 4 else "ip6"
    first, second = (address(topology, name, version) for name in ("server", "server2"))
    those = "{ " + ", ".join(map(str, ports)) + " }"
    return (
        f"{ip} daddr {first} tcp sport {those} {ip} daddr set {second}\n"
        f"{ip} saddr {second} tcp dport {those} {ip} saddr set {first}\n"
    )


@pytest.mark.parametrize(("version", "count"), [(4, 1), (6, 1), (4, 5)])
def test_live_connections_move(topology: Topology, version: int, count: int) -> None:
    server = address(topology, "server", version)
    visits = [Visit(topology.hosts["client"], server, PORT) for _ in range(count)]
    for visit in visits:
        visit.wait_more()
    text = elsewhere(topology, [visit.port for visit in visits], version)
    with ExitStack() as stack:
        with rules(topology, "shut", "forward", SHUT):
            for visit in visits:
                move(topology, visit, version)
            stack.enter_context(rules(topology, "elsewhere", "prerouting", text))
        for visit in visits:
            visit.wait_more()
        assert all(visit.finish() > 0 for visit in visits)


def move(topology: Topology, visit: Visit, version: int) -> None:
    """All that a server and the next one are asked."""
    old, new = (sides(topology, visit, name, version) for name in ("server", "server2"))
    _, state = ask(topology, "server", StateVerb.EXPORT, old)
    assert 0 < len(state) < MAX_STATE
    for server, verb, there, blob in (
        ("server2", StateVerb.IMPORT, new, state),
        ("server2", StateVerb.IMPORT, new, state),  # in place of the first
        ("server2", StateVerb.RESUME, new, b""),
        ("server", StateVerb.DROP, old, b""),
        ("server", StateVerb.DROP, old, b""),
    ):
        assert ask(topology, server, verb, there, blob)[0] == {"call": 7, "size": 0}


def test_a_move_that_fails_leaves_the_connection_where_it_was(topology: Topology) -> None:
    visit = Visit(topology.hosts["client"], address(topology, "server", 4), PORT)
    visit.wait_more()
    old, new = (sides(topology, visit, name, 4) for name in ("server", "server2"))
    with rules(topology, "shut", "forward", SHUT):
        _, state = ask(topology, "server", StateVerb.EXPORT, old)
        head, _ = ask(topology, "server2", StateVerb.IMPORT, new, state[:-1])
        assert "no saved TCP socket" in head["error"]
        head, _ = ask(topology, "server2", StateVerb.IMPORT, old, state)
        assert "Cannot assign requested address" in head["error"]
        ask(topology, "server2", StateVerb.DROP, new)
        ask(topology, "server", StateVerb.RESUME, old)
        ask(topology, "server", StateVerb.RESUME, old)
    visit.wait_more()
    visit.finish()


def test_a_connection_that_is_not_there(topology: Topology) -> None:
    there = Sides(FiveTuple(ip_address("10.0.1.2"), 1, ip_address("10.0.2.2"), PORT), None)
    for verb in (StateVerb.EXPORT, StateVerb.RESUME):
        head, _ = ask(topology, "server", verb, there)
        assert head["error"] == "there is no connection 10.0.1.2:1 > 10.0.2.2:80"
    assert ask(topology, "server", StateVerb.DROP, there)[0] == {"call": 7, "size": 0}
    middle = Sides(there.received, there.received)
    head, _ = ask(topology, "server", StateVerb.EXPORT, middle)
    assert "not the session's right end" in head["error"]


def test_a_visit_notices_what_is_wrong(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = Visit(topology.hosts["client"], address(topology, "server", 4), PORT)
    visit.wait_more()
    monkeypatch.setattr(movable, "stream", lambda seed, start, size: bytes(size))
    with pytest.raises(VisitError, match="not the server's"):
        visit.wait_more()
    visit.close()
