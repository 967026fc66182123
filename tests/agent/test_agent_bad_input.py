"""Set-ups that fail: each has an outcome as its policy says, a counter, and a line that names it.

REFUSE: a RST to the initiator, and nothing stays.
DIRECT: the session goes on unchained, and nothing stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from simulation import (
    Box,
    Client,
    Node,
    Server,
    Setup,
    World,
    make_host,
    make_segment,
    peer_of,
)

from dysco.agent.agent import Agent
from dysco.agent.events import InstallFailed, Level, PacketIn, Reason, Send, Submit
from dysco.agent.header import Header, decode
from dysco.agent.model import FiveTuple, OnFailure, Policy
from dysco.agent.options import add_tag
from dysco.agent.packet import ACK, RST, SYN, Segment, parse
from dysco.agent.session import State
from dysco.agent.settings import Settings
from dysco.agent.trust import Nonce, TrustGroup


@dataclass
class Fault:
    """What is wrong, and what counts it."""

    counter: str
    make: Callable[[OnFailure], Setup]
    why: str
    version: int = 4


def with_chain(*chain: str, **settings: float) -> Callable[[OnFailure], Setup]:
    made = Settings(**settings)  # type: ignore[arg-type]
    return lambda on_failure: Setup(chain=chain, on_failure=on_failure, settings=made)


def one_too_many(**settings: int) -> Callable[[OnFailure], Setup]:
    """A first session takes all that there is."""

    def make(on_failure: OnFailure) -> Setup:
        setup = Setup(chain=("fw",), on_failure=on_failure, settings=Settings(**settings))
        setup.client.close_at_once = False
        if "max_pending" in settings:
            setup.boxes["fw"].swallow = True
        setup.connect(32000)
        setup.world.run(0.5)
        return setup

    return make


def full_table(on_failure: OnFailure) -> Setup:
    setup = Setup(chain=("fw",), on_failure=on_failure)
    setup.client_node.table_size = 1
    return setup


def server_of_another_group(on_failure: OnFailure) -> Setup:
    setup = Setup(chain=("fw",), on_failure=on_failure)
    for node in setup.nodes:
        assert node.agent is not None
        node.agent.set_peers([peer_of(n.host) for n in setup.nodes[:-1]])
    return setup


def box_is_down(on_failure: OnFailure) -> Setup:
    setup = Setup(chain=("fw",), on_failure=on_failure)
    for address in setup.box_nodes["fw"].interface.addresses:
        del setup.world.nodes[address]
    return setup


def box_swallows(on_failure: OnFailure) -> Setup:
    setup = Setup(chain=("fw",), on_failure=on_failure)
    setup.boxes["fw"].swallow = True
    return setup


def box_without_ipv6(on_failure: OnFailure) -> Setup:
    setup = Setup(chain=("fw",), on_failure=on_failure, version=6)
    peers = [peer_of(n.host) for n in setup.nodes]
    only = make_host(2, "fw", "firewall", "10.0.0.2")
    peers[1] = peer_of(only)
    assert setup.client_node.agent is not None
    setup.client_node.agent.set_peers(peers)
    return setup


FAULTS = {
    "unknown host": Fault("unknown_peer", with_chain("nix"), "is named or is a 'nix'"),
    "unknown address": Fault("unknown_peer", with_chain("10.9.9.9"), "is '10.9.9.9'"),
    "an end host": Fault("unknown_peer", with_chain("server"), "is an end host, not a middlebox"),
    "itself": Fault("unknown_peer", with_chain("client"), "'client' in the chain is an end host"),
    "a loop": Fault("policy_loop", with_chain("fw", "nat", "fw"), "names 'fw' twice"),
    "a loop of kinds": Fault("policy_loop", with_chain("firewall", "firewall"), "names 'fw' twice"),
    "a foreign server": Fault("destination_outside_group", server_of_another_group, "10.0.0.9"),
    "too long a header": Fault(
        "header_too_long", with_chain("fw", "nat", mtu=143), "takes 144 bytes of 143"
    ),
    "no such address": Fault("no_address_of_family", box_without_ipv6, "'fw' has no IPv6", 6),
    "ports": Fault(
        "ports_exhausted", one_too_many(first_port=61000, last_port=61001), "all 1 port pairs"
    ),
    "sessions": Fault("too_many_sessions", one_too_many(max_sessions=1), "1 sessions are open"),
    "set-ups": Fault("too_many_pending", one_too_many(max_pending=1), "1 sessions are being"),
    "a full table": Fault("install_failed", full_table, "the device refused its mappings: table"),
    "a box that is down": Fault("setup_timeout", box_is_down, "is 10.0.0.2 up?"),
    "a box that swallows": Fault("setup_timeout", box_swallows, "no SYN-ACK within 20 s"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("on_failure", OnFailure)
def test_a_fault_has_its_outcome_its_counter_and_its_line(name: str, on_failure: OnFailure) -> None:
    fault = FAULTS[name]
    setup = fault.make(on_failure)
    already = len(setup.client.outcomes)
    before = sum(setup.client.outcomes.values())
    ends = setup.connect(33000)
    setup.world.run(100)
    assert setup.client_node.agent is not None
    counters = setup.client_node.agent.counters
    (line,) = [t for t in setup.client_node.told if t.counter == fault.counter][:1]
    assert str(ends) in line.text
    assert line.text.startswith("session ")
    assert fault.why in line.text
    assert line.level is Level.WARNING
    assert counters[fault.counter] == len(
        [t for t in setup.client_node.told if t.counter == fault.counter]
    )
    if on_failure is OnFailure.REFUSE:
        assert setup.client.connections[ends].state == "refused"
        assert counters["session_refused"] >= 1
        assert ends not in setup.server.accepted
    else:
        assert setup.client.connections[ends].state == "established"
        assert counters["session_direct"] >= 1
        assert ends in setup.server.accepted, "unchained: with the session's own five-tuple"
    assert sum(setup.client.outcomes.values()) >= before + 1 or already
    # Nothing of it stays, whatever else goes on.
    for node in setup.nodes:
        assert node.agent is not None
        assert all(s.session != ends for s in node.agent.sessions.values())
        assert all(m.mapped != ends for m in node.mappings.values())


EVERYBODY_S = {
    *("ports", "sessions", "set-ups", "too long a header"),
    *("a box that is down", "a box that swallows", "a foreign server"),
}
"""What another session would meet as well."""


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - EVERYBODY_S))
def test_a_fault_harms_no_other_session(name: str) -> None:
    """Another host's session, through the same boxes, at the same time."""
    fault = FAULTS[name]
    setup = fault.make(OnFailure.REFUSE)
    other = Client()
    node = Node(
        setup.world,
        make_host(8, "other"),
        other,
        policies=[Policy(6, ("nat",))],
        match=lambda ends: 6,
    )
    setup.nodes.append(node)
    setup.world.introduce()
    setup.connect(33000)
    prefix = "10.0.0." if fault.version == 4 else "fd00::"
    other.connect(node, FiveTuple(ip_address(f"{prefix}8"), 5, ip_address(f"{prefix}9"), 80))
    setup.world.run(60)
    assert other.outcomes == {"established": 1}
    setup.assert_nothing_left()


def test_a_middlebox_s_policy_that_names_itself() -> None:
    world = World()
    client = Client()
    node = Node(
        world, make_host(2, "fw", "firewall"), client, policies=[Policy(5, ("fw",))], match=_all
    )
    Node(world, make_host(9, "server"), Server())
    world.introduce()
    client.connect(node, FiveTuple(ip_address("10.0.0.2"), 5, ip_address("10.0.0.9"), 80))
    world.run(10)
    assert client.outcomes == {"refused": 1}
    assert "the chain names 'fw' where the session starts" in node.told[0].text
    assert node.told[0].counter == "policy_loop"


def test_a_session_to_the_host_itself_is_a_loop() -> None:
    world = World()
    client = Client()
    host = make_host(1, "client", None, "10.0.0.1", "10.0.0.7")
    node = Node(world, host, client, policies=[Policy(5, ())], match=_all)
    world.introduce()
    client.connect(node, FiveTuple(ip_address("10.0.0.1"), 5, ip_address("10.0.0.7"), 80))
    world.run(10)
    assert client.outcomes == {"refused": 1}
    assert "the next host, 10.0.0.7, is this one" in node.told[0].text


def _all(_: FiveTuple) -> int:
    return 5


def test_a_policy_that_the_agent_does_not_know_yet() -> None:
    """The device was told earlier: that SYN is dropped, its next try finds both."""
    setup = Setup(chain=("fw",))
    assert setup.client_node.agent is not None
    setup.client_node.agent.set_policies({})
    ends = setup.connect()
    setup.world.run(0.5)
    assert setup.client_node.agent.counters["unknown_policy"] == 1
    assert str(ends) in setup.client_node.told[0].text
    setup.client_node.agent.set_policies({5: Policy(5, ("fw",))})
    setup.world.run(3)
    assert setup.client.outcomes == {"established": 1}
    assert setup.boxes["fw"].syns == {ends: 1}


def test_the_next_host_in_the_middle_is_down() -> None:
    """The box's agent, then the client's, give up; the box is told by a RST, and so is the host."""
    setup = Setup(chain=("fw", "count"))
    for address in setup.box_nodes["count"].interface.addresses:
        del setup.world.nodes[address]
    ends = setup.connect()
    setup.world.run(100)
    assert setup.client.connections[ends].state == "refused"
    client, fw = setup.client_node, setup.box_nodes["fw"].agent
    assert client.agent is not None
    assert fw is not None
    assert client.agent.counters["setup_timeout"] == 1
    assert any(str(ends) in t.text and t.counter == "setup_timeout" for t in client.told)
    # Whoever gave up first took its SYN back: the others' sessions end by that RST.
    assert fw.counters["session_reset"] == 1
    setup.assert_nothing_left()


def test_a_box_that_never_sends_on_is_given_up() -> None:
    setup = Setup(chain=("fw",))
    setup.boxes["fw"].swallow = True
    ends = setup.connect()
    setup.world.run(100)
    fw = setup.box_nodes["fw"]
    assert fw.agent is not None
    assert fw.agent.counters["pending_timeout"] >= 1
    told = [t for t in fw.told if t.counter == "pending_timeout"]
    assert str(ends) in told[0].text
    assert "neither answered the SYN nor sent it on" in told[0].text
    setup.assert_nothing_left()


def test_going_round_is_noticed() -> None:
    """A box that sends on through another's policy, back to a host that the session crossed."""
    setup = Setup(chain=("fw",))
    assert setup.box_nodes["fw"].agent is not None
    ends = setup.connect()
    setup.world.run(0.002)
    (number,) = setup.client_node.agent.sessions  # type: ignore[union-attr]
    # The same session comes to the client's agent as if it were one of its middleboxes.
    syn = setup.world.wire[0]
    header, _ = decode(syn.payload)
    again = Header(
        header.group,
        number,
        5,
        3,
        True,
        Nonce(9, 9),
        ends,
        ends,
        FiveTuple(ip_address("10.0.0.3"), 61000, ip_address("10.0.0.1"), 61001),
        (),
    )
    answers = deliver(setup.client_node.agent, again)
    assert [a.counter for a in tells(answers)] == ["session_loop"]
    assert "this host is number 0 of its chain and now number 3" in tells(answers)[0].text
    (reset,) = sends(answers)
    assert reset.flags == RST | ACK
    assert reset.tuple == again.subsession.reversed


def tells(actions):
    return [a for a in actions if hasattr(a, "counter")]


def sends(actions) -> list[Segment]:
    return [parse(a.frame) for a in actions if isinstance(a, Send)]


GROUP = TrustGroup("test", b"k" * 32)


def deliver(
    agent: Agent | None,
    header: Header,
    *,
    group: TrustGroup = GROUP,
    payload: bytes | None = None,
    arrived: FiveTuple | None = None,
    now: float = 1.0,
):
    """A SYN with that header comes to an agent."""
    assert agent is not None
    encoded = header.encode()
    syn = make_segment(arrived or header.subsession, SYN)
    syn.payload = payload if payload is not None else encoded + group.sign(encoded, syn.seq, b"")
    return agent.handle(PacketIn(Reason.DYSCO_SYN, 9, agent.host.id, 0, syn.build()), now)


def a_header(number: int = 1, **changes: object) -> Header:
    ends = FiveTuple(ip_address("10.0.0.1"), 33000, ip_address("10.0.0.9"), 80)
    fields = {
        "group": GROUP.id,
        "session_id": 0xABC,
        "policy": 5,
        "hop": 1,
        "refuse": True,
        "nonce": Nonce(1, number),
        "session": ends,
        "delivered": ends,
        "subsession": FiveTuple(ip_address("10.0.0.1"), 61000, ip_address("10.0.0.2"), 61001),
        "chain": (),
    }
    return Header(**{**fields, **changes})  # type: ignore[arg-type]


def a_box() -> Node:
    world = World()
    node = Node(world, make_host(2, "fw", "firewall"), Box())
    Node(world, make_host(1, "client"), Client())
    Node(world, make_host(9, "server"), Server())
    world.introduce()
    return node


def test_headers_that_are_refused_change_nothing() -> None:
    node = a_box()
    agent = node.agent
    assert agent is not None
    good = a_header()
    whole = good.encode() + GROUP.sign(good.encode(), 1000, b"")
    cases = [
        ("header_malformed", {"payload": whole[:79]}),
        ("header_malformed", {"payload": whole[:-1]}),
        ("header_malformed", {"payload": whole[:5] + b"\xff" + whole[6:]}),
        ("header_wrong_version", {"payload": b"DySC\x02" + whole[5:]}),
        ("header_forged", {"payload": whole[:-1] + bytes((whole[-1] ^ 1,))}),
        ("header_forged", {"payload": whole + b"data that was not there"}),
        ("header_forged", {"group": TrustGroup("test", b"x" * 32)}),
    ]
    for counter, how in cases:
        before = agent.counters[counter]
        answers = deliver(agent, good, **how)  # type: ignore[arg-type]
        assert [t.counter for t in tells(answers)] == [counter]
        assert str(good.subsession) in tells(answers)[0].text
        assert agent.counters[counter] == before + 1
        assert not sends(answers), "nothing is delivered, and a forger gets no answer"
    for counter, header in [
        ("header_unknown_group", a_header(group=b"none")),
        ("header_misdirected", a_header(subsession=a_header().subsession.reversed)),
        ("session_loop", a_header(2, hop=33)),
    ]:
        answers = deliver(agent, header)
        assert [t.counter for t in tells(answers)] == [counter]
        assert "session 0000000000abc (10.0.0.1:33000 > 10.0.0.9:80)" in tells(answers)[0].text
        assert not sends(answers)
    assert not agent.sessions
    # A replay is known only after the first was accepted.
    assert deliver(agent, good)
    assert len(agent.sessions) == 1
    answers = deliver(agent, good)
    assert [t.counter for t in tells(answers)] == ["header_replayed"]
    assert len(agent.sessions) == 1


def test_an_end_host_takes_only_what_is_for_it() -> None:
    world = World()
    node = Node(world, make_host(2, "host"), Server())
    Node(world, make_host(1, "client"), Client())
    world.introduce()
    answers = deliver(node.agent, a_header())
    assert [t.counter for t in tells(answers)] == ["wrong_host"]
    assert [s.flags for s in sends(answers)] == [RST | ACK], "the host before is told"
    assert node.agent is not None
    assert not node.agent.sessions


def test_a_network_nat_is_revealed_and_harmless() -> None:
    node = a_box()
    arrived = FiveTuple(ip_address("10.0.7.7"), 1234, ip_address("10.0.0.2"), 61001)
    deliver(node.agent, a_header(), arrived=arrived)
    assert node.agent is not None
    assert node.agent.counters["network_nat"] == 1
    (session,) = node.agent.sessions.values()
    assert session.previous == arrived, "answers go back the way it came"


def test_a_session_s_number_taken_twice() -> None:
    node = a_box()
    deliver(node.agent, a_header(1))
    other = a_header(2, session=a_header().session.reversed, delivered=a_header().session.reversed)
    answers = deliver(node.agent, other)
    assert [t.counter for t in tells(answers)] == ["session_loop"]
    assert "its number belongs to 10.0.0.1:33000 > 10.0.0.9:80 here" in tells(answers)[0].text


def test_too_many_sessions_at_a_middlebox_refuses_the_newcomer() -> None:
    world = World()
    limit = Settings(max_sessions=1)
    node = Node(world, make_host(2, "fw", "firewall"), Box(), settings=limit)
    Node(world, make_host(1, "client"), Client())
    world.introduce()
    deliver(node.agent, a_header(1))
    ends = FiveTuple(ip_address("10.0.0.1"), 33001, ip_address("10.0.0.9"), 80)
    later = a_header(2, session_id=0xDEF, session=ends, delivered=ends)
    answers = deliver(node.agent, later)
    assert [t.counter for t in tells(answers)] == ["too_many_sessions"]
    assert [s.flags for s in sends(answers)] == [RST | ACK]
    assert node.agent is not None
    assert set(node.agent.sessions) == {0xABC}


def test_a_middlebox_s_table_is_full() -> None:
    """The set-up is taken back hop by hop; the initiator hears of it."""
    for on_failure in OnFailure:
        setup = Setup(chain=("fw", "count"), on_failure=on_failure)
        setup.box_nodes["count"].table_size = 0
        ends = setup.connect()
        setup.world.run(100)
        count = setup.box_nodes["count"].agent
        assert count is not None
        assert count.counters["install_failed"] >= 1
        assert setup.client.connections[ends].state == "refused"
        setup.assert_nothing_left()


def test_a_late_failure_of_a_write_does_not_end_a_session() -> None:
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect()
    setup.world.run(1)
    agent = setup.client_node.agent
    assert agent is not None
    (session,) = agent.sessions.values()
    assert agent.handle(InstallFailed(session.token, "late"), 1.0) == []
    assert agent.handle(InstallFailed(10**9, "never was"), 1.0) == []
    assert setup.client.connections[ends].state == "established"
    assert session.state is State.ESTABLISHED


def test_packets_that_make_no_sense_are_counted() -> None:
    node = a_box()
    agent = node.agent
    assert agent is not None
    ends = a_header().session
    syn_ack = make_segment(ends, SYN | ACK).build()
    damaged = bytearray(make_segment(ends, SYN).build())
    damaged[-1] ^= 1
    for reason, frame, host, counter in [
        (Reason.HOST_SYN, syn_ack, 1, "unexpected_packet"),
        (Reason.DYSCO_SYN, syn_ack, 1, "unexpected_packet"),
        (Reason.HOST_SYN, make_segment(ends, SYN).build(), 2, "unexpected_packet"),
        (Reason.NEIGHBOUR, b"", 1, "unexpected_packet"),
        (Reason.HOST_SYN, b"short", 1, "bad_packet"),
        (Reason.HOST_SYN, bytes(damaged), 1, "bad_checksum"),
        (Reason.SENT, syn_ack, 1, "copy_without_session"),
    ]:
        before = agent.counters[counter]
        answers = agent.handle(PacketIn(reason, 1, host, 0, frame), 1.0)
        assert not sends(answers)
        assert agent.counters[counter] == before + 1, (reason, counter)
    assert not agent.sessions


def test_a_tag_of_a_session_that_is_over() -> None:
    node = a_box()
    agent = node.agent
    assert agent is not None
    options = add_tag(b"", 0xDEADBEEF)
    assert options is not None
    syn = make_segment(a_header().session, SYN, options=options)
    answers = agent.handle(PacketIn(Reason.HOST_SYN, 1, 1, 0, syn.build()), 1.0)
    assert [t.counter for t in tells(answers)] == ["tag_unknown"]
    assert not sends(answers), "it must not leave its link"


def test_a_middlebox_without_a_record_is_let_through() -> None:
    node = a_box()
    agent = node.agent
    assert agent is not None
    frame = make_segment(a_header().session, SYN).build()
    answers = agent.handle(PacketIn(Reason.HOST_SYN, 1, 1, 0, frame), 1.0)
    assert answers == [Send(frame, Submit.BRIDGE, 1)]
    assert agent.counters["syn_bridged"] == 1
