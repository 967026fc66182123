"""Sessions go on at another box, or at another server, with the state that the old one had."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from chained import Network, PolicyArgs, box, running
from streams import Stream

from dysco.topo import boxes, movable
from dysco.topo.controller import HostState, conntrack_helper
from dysco.topo.devices import tool_path
from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.topology import Topology
from dysco.topo.visit import Visit
from dysco.topo.waiting import wait_until

FIREWALL, NAT, DIRECT, APP, BROKEN, BARE = 90, 91, 92, 93, 94, 95
POLICIES = [
    PolicyArgs(f"tcp and dst port {FIREWALL}", ("firewall",)),
    PolicyArgs(f"tcp and dst port {NAT}", ("nat", "counter")),
    PolicyArgs(f"tcp and dst port {DIRECT}", ()),
    PolicyArgs(f"tcp and dst port {APP}", ("firewall",)),
    PolicyArgs(f"tcp and dst port {BROKEN}", ("broken",)),
    PolicyArgs(f"tcp and dst port {BARE}", ("counter",)),
]
PATIENT: dict[str, int | float] = {
    # A test's machine may have much else to do.
    "lock_timeout": 30.0,
    "connect_timeout": 30.0,
    "move_timeout": 20.0,
    "hold_time": 1.0,
    # Ports of a box that has just left rest for longer than that box keeps its entries.
    "port_quarantine": 60.0,
}
BOXES = ("firewall", "firewall2", "nat", "nat2")
APPS = ("app", "app2")


SLOW: HostState = {"timeout": 20.0}


def states(topology: Topology) -> Mapping[str, HostState]:
    """Helpers everywhere, but for a box whose commands are there and fail."""
    broken = ["sh", "-c", "echo no such luck >&2; exit 1"]
    return {
        **{name: {**conntrack_helper(topology.hosts[name]), **SLOW} for name in BOXES},
        **{name: {"helper": f"unix:{topology.directory / name}.socket", **SLOW} for name in APPS},
        "broken": {"export": broken, "import": broken, "drop": ["true"]},
        "server": {"import": broken, "drop": ["true"]},
    }


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    hosts = [
        box("client", 1),
        box("firewall", 2, "firewall"),
        box("firewall2", 3, "firewall"),
        box("nat", 4, "nat"),
        box("nat2", 5, "nat"),
        box("counter", 6, "counter"),
        box("broken", 7, "firewall"),
        box("server", 8),
        box("app", 9),
        box("app2", 10),
    ]
    devices = tuple(DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    spec = TopologySpec(tuple(hosts), devices)
    directory = tmp_path_factory.mktemp("moves")
    with running(spec, directory, POLICIES, states=states, settings=PATIENT) as network:
        for name in APPS:
            control = network.directory / f"{name}.socket"
            movable.start(network.host(name), name, (DIRECT, APP), control)
        yield network


def tracked(network: Network, name: str, port: int) -> list[boxes.Connection]:
    """What a box knows of a client's connection."""
    return [c for c in boxes.connections(network.host(name)) if c.original.sport == port]


def steps(network: Network, session: str, left: str = "client") -> list[str]:
    """Of a session's moves, at its left anchor."""
    with network.controller.api() as client:
        told = client.get("v1", "events")
    return [e["state"] for e in told if (e["session"], e["host"]) == (session, left)]


def test_a_strict_firewall_goes_on_with_the_other_one_s_state(network: Network) -> None:
    stream = Stream(network, FIREWALL)
    before = [network.dropped(name) for name in BOXES[:2]]
    (old,) = tracked(network, "firewall", stream.port)
    done = stream.change("--replace", "firewall=firewall2", "--migrate-state")
    assert stream.chain() == ["client", "firewall2", "server"]
    assert done["started"] < done["locked"] < done["switched"] < done["finished"]
    assert steps(network, stream.id) == [
        "locking",
        "preparing",
        "holding",
        "moving",
        "switching",
        "releasing",
        "finished",
    ]
    (new,) = tracked(network, "firewall2", stream.port)
    assert (new.state, new.original, new.reply) == (old.state, old.original, old.reply)
    assert tracked(network, "firewall", stream.port) == []
    to_client = boxes.counters(network.host("firewall2")).to_client
    stream.wait_more()
    assert boxes.counters(network.host("firewall2")).to_client > to_client
    # And back again.
    stream.change("--replace", "firewall2=firewall", "--migrate-state")
    assert tracked(network, "firewall2", stream.port) == []
    assert [network.dropped(name) for name in BOXES[:2]] == before
    stream.finish()


def test_a_nat_goes_on_with_the_other_one_s_mapping(network: Network) -> None:
    stream = Stream(network, NAT)
    (old,) = tracked(network, "nat", stream.port)
    assert str(old.reply.dst) == network.address("nat")
    stream.change("--replace", "nat=nat2", "--migrate-state")
    assert stream.chain() == ["client", "nat2", "counter", "server"]
    (new,) = tracked(network, "nat2", stream.port)
    assert (new.state, new.original, new.reply) == (old.state, old.original, old.reply)
    assert tracked(network, "nat", stream.port) == []
    stream.finish()


class Guest(Visit):
    """A visit at `app`, and its session."""

    def __init__(self, network: Network, port: int, version: int = 4) -> None:
        super().__init__(network.host("client"), network.address("app", version), port)
        self.wait_more()
        self._network = network
        with network.controller.api() as client:
            match = f"tcp and src port {self.port}"
            (session,) = client.get("v1", "sessions", match=match)["sessions"]
        self.id = str(session["id"])

    def chain(self) -> list[str]:
        with self._network.controller.api() as client:
            return list(client.get("v1", "sessions", self.id)["hosts"])

    def end(self) -> None:
        """Every byte came, both ways."""
        assert self.finish() > 0


def change(network: Network, *words: str) -> list[dict[str, Any]]:
    """`dysco-ctl reconfigure`, to the end."""
    answer = network.controller.ctl("reconfigure", *words, check=False)
    assert answer["refused"] == [], answer
    return list(answer["reconfigurations"])


@pytest.mark.parametrize(("port", "version"), [(DIRECT, 6), (APP, 4)])
def test_a_live_session_follows_its_server(network: Network, port: int, version: int) -> None:
    guest = Guest(network, port, version)
    boxes_between = guest.chain()[1:-1]
    (done,) = change(network, guest.id, "--move", "app=app2")
    assert done["state"] == "finished", (done, network.log())
    assert guest.chain() == ["client", *boxes_between, "app2"]
    guest.wait_more()
    (done,) = change(network, guest.id, "--move", "app2=app")
    assert done["state"] == "finished", (done, network.log())
    guest.wait_more()
    guest.end()
    network.wait_empty()


def test_all_sessions_follow_their_server(network: Network) -> None:
    guests = [Guest(network, APP) for _ in range(6)]
    done = change(network, "--match", f"tcp and dst port {APP}", "--move", "app=app2")
    assert [r["state"] for r in done] == ["finished"] * len(guests), (done, network.log())
    for guest in guests:
        guest.wait_more()
        assert guest.chain() == ["client", "firewall", "app2"]
        guest.end()
    network.wait_empty()


@pytest.mark.parametrize(
    ("port", "old", "new", "verb"),
    [(BROKEN, "broken", "firewall2", "export"), (FIREWALL, "firewall", "broken", "import")],
)
def test_a_command_that_fails_leaves_the_session_where_it_was(
    network: Network, port: int, old: str, new: str, verb: str
) -> None:
    stream = Stream(network, port)
    before = [network.dropped(name) for name in (old, new)]
    (failed,) = change(network, stream.id, "--replace", f"{old}={new}", "--migrate-state")
    assert failed["state"] == "failed"
    assert "no such luck" in failed["why"]
    assert f"host broken: session {stream.id}: {verb} of its state" in network.log()
    argv = [
        tool_path("dysco-ctl"),
        "--server",
        network.controller.url,
        "session",
        "show",
        stream.id,
    ]
    shown = network.topology.devices.run(list(map(str, argv)))
    assert re.search(f"change +failed: {verb} .*no such luck .client > {new} > server.", shown)
    stream.wait_more()
    assert stream.chain() == ["client", old, "server"]
    assert [network.dropped(name) for name in (old, new)] == before
    assert tracked(network, new, stream.port) == []
    stream.change("--replace", f"{old}=firewall2" if new == "broken" else f"{old}=firewall")
    stream.finish()


def test_a_server_that_does_not_take_it_leaves_the_session_where_it_was(network: Network) -> None:
    guest = Guest(network, APP)
    (failed,) = change(network, guest.id, "--move", "app=server")
    assert failed["state"] == "failed"
    assert "no such luck" in failed["why"]
    guest.wait_more()
    assert guest.chain() == ["client", "firewall", "app"]
    guest.end()
    network.wait_empty()


def test_what_can_t_be_moved_is_named_before_anything_begins(network: Network) -> None:
    stream = Stream(network, BARE)
    for words, why in (
        (("--replace", "counter=firewall", "--migrate-state"), "counter has no export command"),
        (("--move", "server=app2"), "server has no export command"),
        (("--move", "counter=app2"), "counter is no end of the session: that is server"),
        (("--move", "client=app2"), "client began the session: only the other end, server"),
    ):
        answer = network.controller.ctl("reconfigure", stream.id, *words, check=False)
        assert why in answer["refused"][0]["detail"]
    with network.controller.api() as client:
        assert client.get("v1", "reconfigurations", session=stream.id) == []
    stream.finish()


@pytest.mark.parametrize("when", ["moving", "switching"])
def test_kill_9_in_the_middle_of_a_move(network: Network, when: str) -> None:
    """The session is whole, here or there, and can be moved again."""
    guest = Guest(network, APP)
    move = ("--move", "app=app2")
    network.controller.ctl("reconfigure", guest.id, *move, "--no-wait")
    there = f"it to be {when}"
    wait_until(lambda: when in steps(network, guest.id, "firewall"), there, 20.0, every=0.001)
    network.controller.process.kill()
    network.controller.launch()
    network.controller.wait_ready()
    guest.wait_more(seconds=20.0)
    ends = (["client", "firewall", "app"], ["client", "firewall", "app2"])
    wait_until(lambda: guest.chain() in ends, "one end", 20.0, every=0.2)
    if guest.chain()[-1] == "app":
        (done,) = change(network, guest.id, *move)
        assert done["state"] == "finished", (done, network.log())
    guest.wait_more()
    guest.end()
    # A host that left, and was killed before it knew that all others know, waits for them for 30 s.
    network.wait_empty(45.0)
