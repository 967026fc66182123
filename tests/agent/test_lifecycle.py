"""A session's life: SYNs again, Fast Open, RST, FIN, idle, restarts, many at once."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import Node, Setup, Weather, make_segment

from dysco.agent.events import (
    Answered,
    CloseSession,
    Idle,
    Recovered,
    SetRestOfChain,
    SetUpstream,
    Tag,
)
from dysco.agent.header import decode
from dysco.agent.model import FiveTuple, Mapping, MappingKey, OnFailure, Side
from dysco.agent.options import take_tag
from dysco.agent.packet import ACK, RST, SYN, Segment
from dysco.agent.session import State
from dysco.agent.settings import Settings


def dysco_syns(setup: Setup) -> list[Segment]:
    return [s for s in setup.world.wire if s.is_syn and s.payload[:4] == b"DySC"]


# SYNs that come again


@pytest.mark.parametrize("version", [4, 6])
def test_a_syn_again_is_as_the_first(version: int) -> None:
    """The original leaks the tag then: here it is on the middleboxes' links and nowhere else."""
    setup = Setup(version=version)
    for address in setup.server_node.interface.addresses:
        del setup.world.nodes[address]
    setup.connect()
    setup.world.run(8)  # tries at 0, 1, 3, 7 s
    by_hop: dict[int, list[Segment]] = {}
    for syn in dysco_syns(setup):
        by_hop.setdefault(decode(syn.payload)[0].hop, []).append(syn)
    assert {hop: len(syns) for hop, syns in by_hop.items()} == dict.fromkeys((1, 2, 3, 4), 4)
    for syns in by_hop.values():
        first, *again = syns
        for syn in again:
            assert (syn.tuple, syn.seq, syn.options) == (first.tuple, first.seq, first.options)
            assert take_tag(syn.options)[1] is None
            old, new = decode(first.payload)[0], decode(syn.payload)[0]
            assert new.nonce > old.nonce
            assert (new.session_id, new.chain, new.delivered) == (
                old.session_id,
                old.chain,
                old.delivered,
            )
    for name, node in setup.box_nodes.items():
        syns = [s for s in node.seen if s.is_syn]
        assert len({take_tag(s.options)[1] for s in syns}) == 1, name
        assert take_tag(syns[0].options)[1] is not None
    assert all(take_tag(s.options)[1] is None for s in setup.client_node.seen)


def test_a_syn_again_after_the_answer_was_lost() -> None:
    """The mapping of an open session stands; its SYN goes the same way once more."""
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect()
    setup.world.run(1)
    before = [dict(node.mappings) for node in setup.nodes]
    setup.client_node.from_host(make_segment(ends, SYN, 1000))
    setup.world.run(2)
    assert [dict(node.mappings) for node in setup.nodes] == before
    assert len({s.tuple for s in dysco_syns(setup)}) == 2, "one for each hop"
    assert setup.client_node.agent is not None
    assert setup.client_node.agent.counters["syn_retransmitted"] == 1


def test_a_new_connection_on_an_old_five_tuple() -> None:
    """Another sequence number: another session, with ports of its own; the old one is over."""
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect(isn=1000)
    setup.world.run(1)
    (old,) = setup.client_node.agent.sessions  # type: ignore[union-attr]
    setup.connect(isn=500_000)
    setup.world.run(2)
    (new,) = setup.client_node.agent.sessions  # type: ignore[union-attr]
    assert new != old
    for node in setup.nodes[::4]:
        assert node.agent is not None
        assert set(node.agent.sessions) == {new}
    assert setup.server.accepted[ends] == 500_000
    assert setup.client_node.agent.counters["session_replaced"] == 1  # type: ignore[union-attr]
    assert len({s.tuple for s in dysco_syns(setup)}) == 4


# TCP Fast Open


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_fast_open_data_is_kept_where_it_fits(size: int) -> None:
    setup = Setup()
    data = bytes(range(256)) * 4
    setup.connect(data=data[:size])
    setup.world.run(1)
    assert list(setup.server.data.values()) == [data[:size]]
    for node in setup.box_nodes.values():
        assert node.seen[0].payload == data[:size]


def test_fast_open_data_that_does_not_fit_is_left_to_tcp() -> None:
    setup = Setup(chain=("fw",))
    data = bytes(1440)
    setup.connect(data=data)
    setup.world.run(1)
    assert setup.client.outcomes == {"established": 1}
    assert list(setup.server.data.values()) == [b""]
    assert all(s.length <= 1500 for s in setup.world.wire)
    (told,) = [t for t in setup.client_node.told if t.counter == "open_data_dropped"]
    assert "1440 bytes of Fast Open data left to TCP" in told.text
    assert "session " in told.text


# Ends


def test_a_server_that_refuses() -> None:
    setup = Setup()
    ends = setup.connect(dport=81)
    setup.world.run(10)
    assert setup.client.connections[ends].state == "refused"
    setup.assert_nothing_left()
    assert all(n.agent.counters["session_reset"] == 1 for n in setup.nodes)  # type: ignore[union-attr]


@pytest.mark.parametrize("from_client", [True, False])
def test_a_reset_ends_it_at_every_hop(from_client: bool) -> None:
    setup = Setup(close=False)
    ends = setup.connect()
    setup.world.run(1)
    if from_client:
        setup.client_node.from_host(make_segment(ends, RST, 1001, options=b""))
    else:
        (at_server,) = setup.server.accepted
        back = make_segment(at_server.reversed, RST | ACK, 7001, 1001, options=b"")
        setup.server_node.from_host(back)
    setup.world.run(10)
    setup.assert_nothing_left()


def test_one_fin_ends_nothing() -> None:
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect()
    setup.world.run(1)
    setup.client_node.from_host(make_segment(ends, ACK | 1, 1001, 7001, options=b""))
    # The server's FIN is held back: half closed for as long as it wants.
    setup.world.run(1.0005)
    (session,) = setup.client_node.agent.sessions.values()  # type: ignore[union-attr]
    assert session.state is State.ESTABLISHED


def test_idle_ends_it_here_and_there() -> None:
    setup = Setup(close=False)
    setup.connect()
    setup.world.run(1)
    for node in setup.nodes:
        key = next(iter(node.mappings))
        node.tell(Idle(key))
        assert not node.mappings
        assert node.agent is not None
        assert node.agent.counters["session_idle"] == 1
        node.tell(Idle(key))
    setup.assert_nothing_left()


def test_an_operator_closes_it() -> None:
    setup = Setup(chain=("fw",), close=False)
    setup.connect()
    setup.world.run(1)
    (number,) = setup.client_node.agent.sessions  # type: ignore[union-attr]
    for node in (setup.client_node, setup.box_nodes["fw"], setup.server_node):
        node.tell(CloseSession(number))
        node.tell(CloseSession(number))
        assert [t.counter for t in node.told] == ["session_closed_by_operator", "request_refused"]
    setup.assert_nothing_left()


# A middlebox's wishes


def held(setup: Setup) -> tuple[Node, int, FiveTuple]:
    """The firewall holds a SYN: its node, the session's number, the five-tuple."""
    setup.boxes["fw"].swallow = True
    ends = setup.connect()
    setup.world.run(0.01)
    node = setup.box_nodes["fw"]
    (number,) = node.agent.sessions  # type: ignore[union-attr]
    return node, number, ends


def send_on(node: Node, setup: Setup, ends: FiveTuple) -> None:
    node.from_host(make_segment(ends, SYN, 1000))
    setup.world.run(setup.world.now + 0.5)


@pytest.mark.parametrize("by", ["number", "tag", "five-tuple"])
@pytest.mark.parametrize("chain", [(), ("nat",), ("count", "nat")])
def test_a_middlebox_changes_the_rest_of_the_chain(by: str, chain: tuple[str, ...]) -> None:
    setup = Setup(chain=("fw", "count"))
    node, number, ends = held(setup)
    tag = take_tag(node.seen[0].options)[1]
    assert tag is not None
    selector = {"number": number, "tag": Tag(tag), "five-tuple": ends}[by]
    node.tell(SetRestOfChain(selector, chain))  # type: ignore[arg-type]
    assert [t.counter for t in node.told] == ["chain_set"]
    send_on(node, setup, ends)
    crossed = [name for name, box in setup.boxes.items() if name != "fw" and box.syns]
    assert sorted(crossed) == sorted(chain)
    assert len(setup.server.accepted) == 1


def test_a_proxy_names_the_connection_that_goes_on() -> None:
    setup = Setup(chain=("fw", "count"))
    node, number, _ = held(setup)
    upstream = FiveTuple(ip_address("10.0.0.2"), 5555, ip_address("10.0.0.9"), 80)
    node.tell(SetUpstream(number, upstream))
    assert [t.counter for t in node.told] == ["upstream_set"]
    send_on(node, setup, upstream)
    assert setup.boxes["count"].syns == {upstream: 1}
    (session,) = setup.server_node.agent.sessions.values()  # type: ignore[union-attr]
    assert session.id == number
    assert session.received == upstream


def test_wishes_that_can_t_be() -> None:
    setup = Setup(chain=("fw", "count"))
    node, number, ends = held(setup)
    for wish, why in [
        (SetRestOfChain(number ^ 1, ()), "no SYN was delivered here for session"),
        (SetRestOfChain(Tag(1), ()), "no SYN was delivered here for tag 00000001"),
        (SetRestOfChain(number, ("nix",)), "'nix'"),
        (SetRestOfChain(number, ("fw",)), "names 'fw' where the session starts"),
        (SetUpstream(number ^ 1, ends), "no SYN was delivered here"),
    ]:
        node.tell(wish)
        told = node.told[-1]
        assert (told.counter, why in told.text) == ("request_refused", True), told.text
    send_on(node, setup, ends)
    node.tell(SetRestOfChain(number, ()))
    assert "its SYN was sent on already" in node.told[-1].text
    assert len(setup.server.accepted) == 1, "none of it did any harm"


# Restarts


@pytest.mark.parametrize("who", ["client", "fw", "nat", "count", "server", "all"])
@pytest.mark.parametrize("when", [0.0015, 0.003, 0.005, 0.007, 0.0095, 1.0])
def test_a_restart_at_any_moment_loses_nothing(who: str, when: float) -> None:
    setup = Setup(close=False)
    ends = setup.connect()
    setup.world.run(when)
    everyone = {n.host.name: n for n in setup.nodes}
    for node in setup.nodes if who == "all" else [everyone[who]]:
        node.restart()
    setup.world.run(30)
    assert setup.client.connections[ends].state == "established"
    agree(setup.nodes)
    setup.client.finish(setup.client_node, setup.client.connections[ends])
    setup.world.run(90)
    setup.assert_nothing_left()


def test_recovered_sessions_are_what_they_were() -> None:
    setup = Setup(close=False)
    for sport in range(33000, 33005):
        setup.connect(sport)
    setup.world.run(1)
    for node in setup.nodes:
        assert node.agent is not None
        before = {number: snapshot(s) for number, s in node.agent.sessions.items()}
        node.restart()
        assert {number: snapshot(s) for number, s in node.agent.sessions.items()} == before
        assert all(s.recovered for s in node.agent.sessions.values())
        assert node.agent.counters["session_recovered"] == 5


def snapshot(session) -> tuple[object, ...]:
    return (
        session.session,
        session.policy,
        session.on_failure,
        session.position,
        session.rest,
        session.chain,
        session.state,
        session.tag,
        session.sender,
        session.nonce,
        session.received,
        session.emitted,
        session.previous,
        session.next,
        [(leg.isn, leg.offered, leg.accepted) for leg in session.legs],
    )


def test_parts_of_mappings_after_a_restart() -> None:
    """A batch that was cut short is completed, what says nothing is taken out, the rest stays."""
    setup = Setup(chain=("fw",), close=False)
    setup.connect()
    setup.world.run(1)
    node = setup.client_node
    whole = dict(node.mappings)
    inbound = next(k for k in whole if k.side is Side.INBOUND)
    outbound = next(k for k in whole if k.side is Side.OUTBOUND)
    del node.mappings[inbound]
    node.restart()
    assert set(node.mappings) == set(whole), "completed"
    del node.mappings[outbound]
    node.restart()
    assert not node.mappings, "a session can't be told from its way back alone"
    assert node.agent is not None
    assert node.agent.counters["mapping_orphaned"] == 1
    foreign = Mapping(
        MappingKey(Side.OUTBOUND, 1, whole[outbound].mapped), whole[outbound].mapped, b"\xff"
    )
    node.mappings[foreign.key] = foreign
    node.restart()
    assert set(node.mappings) == {foreign.key}
    assert node.agent.counters["metadata_unknown"] == 1
    assert str(foreign.key.tuple) in node.told[-1].text
    node.tell(Idle(foreign.key))
    assert not node.mappings, "idle ends it"


def test_a_device_that_lost_everything() -> None:
    setup = Setup(chain=("fw",), close=False)
    setup.connect()
    setup.world.run(1)
    node = setup.client_node
    node.mappings.clear()
    node.tell(Recovered(()))
    assert node.agent is not None
    assert not node.agent.sessions
    assert node.agent.counters["session_lost"] == 1


# Many at once


def agree(nodes: Iterable[Node]) -> None:
    """Both ends of each subsession map it to each other, and each entry is some session's."""
    nodes = list(nodes)
    for node in nodes:
        assert node.agent is not None
        keys = {k for s in node.agent.sessions.values() for k in s.keys}
        assert set(node.mappings) == keys, node.host.name
        for key, mapping in node.mappings.items():
            back = MappingKey(
                Side.INBOUND if key.side is Side.OUTBOUND else Side.OUTBOUND,
                key.host,
                mapping.mapped.reversed,
            )
            assert node.mappings[back].mapped == key.tuple.reversed
    by_number: dict[int, list] = {}
    for node in nodes:
        for number, session in node.agent.sessions.items():  # type: ignore[union-attr]
            by_number.setdefault(number, []).append(session)
    for views in by_number.values():
        views.sort(key=lambda view: view.position)
        for left, right in pairwise(views):
            assert left.next == right.previous
            assert left.session == right.session


def test_many_at_once_keep_apart() -> None:
    setup = Setup(close=False)
    for sport in range(33000, 33100):
        setup.connect(sport)
    setup.world.run(5)
    assert setup.client.outcomes == {"established": 100}
    agree(setup.nodes)
    for node in setup.nodes:
        used = [s.next for s in node.agent.sessions.values() if s.next]  # type: ignore[union-attr]
        assert len(used) == len(set(used))
    for ends in setup.client.connections:
        setup.client.finish(setup.client_node, setup.client.connections[ends])
    setup.world.run(100)
    setup.assert_nothing_left()


QUICK = Settings(
    port_quarantine=1, pending_timeout=2, setup_timeout=8, closing_linger=1, reset_linger=0.5
)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    version=st.sampled_from([4, 6]),
    chain=st.permutations(["fw", "nat", "count"]).flatmap(
        lambda names: st.integers(0, 3).map(lambda n: tuple(names[:n]))
    ),
    on_failure=st.sampled_from(OnFailure),
    weather=st.builds(
        Weather, lose=st.floats(0, 0.3), repeat=st.floats(0, 0.3), delay=st.floats(0, 0.3)
    ),
    table=st.sampled_from([10_000, 10_000, 6]),
)
def test_whatever_happens_nothing_is_left(
    seed: int,
    version: int,
    chain: tuple[str, ...],
    on_failure: OnFailure,
    weather: Weather,
    table: int,
) -> None:
    """Bad weather, full tables, restarts, boxes that swallow, refusals, resets, in any mixture."""
    setup = Setup(
        chain=chain,
        on_failure=on_failure,
        weather=weather,
        seed=seed,
        version=version,
        settings=QUICK,
        close=seed % 2 == 0,
    )
    chance = Random(seed)
    chance.choice(setup.nodes).table_size = table
    for number in range(8):
        setup.connect(33000 + number, dport=chance.choice([80, 80, 81]))
        setup.world.run(setup.world.now + chance.uniform(0, 0.01))
        match chance.randrange(6):
            case 0:
                chance.choice(setup.nodes).restart()
            case 1:
                setup.boxes["fw"].swallow = chance.random() < 0.5
            case 2:
                setup.client_node.from_host(
                    make_segment(setup.ends(33000 + number), RST, 1001, options=b"")
                )
            case 3:
                setup.world.run(setup.world.now + chance.uniform(0, 5))
    # Good weather again; whatever is open is closed, what nobody closed idles out.
    setup.boxes["fw"].swallow = False
    setup.world.run(setup.world.now + 130)
    setup.world.weather = Weather()
    for connection in setup.client.connections.values():
        setup.client.finish(setup.client_node, connection)
    setup.world.run(setup.world.now + 130)
    for node in setup.nodes:
        for key in list(node.mappings):
            node.tell(Idle(key))
    setup.world.run(setup.world.now + 30)
    setup.assert_nothing_left()
    for node in setup.nodes:
        assert node.agent is not None
        assert node.agent.counters["header_forged"] == 0
        assert node.agent.counters["header_malformed"] == 0


def test_an_answer_that_only_the_counters_saw() -> None:
    """Instead of its time-out: the session is open, and closes as others do."""
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect()
    setup.world.run(1)
    node = setup.client_node
    assert node.agent is not None
    (session,) = node.agent.sessions.values()
    leg = session.right
    assert leg is not None
    # As if the copy of the SYN-ACK had been lost.
    session.state, leg.accepted = State.SENT, None
    node.agent._core.table.note_state(session)
    assert node.tell(Answered(session.id, (leg.inbound_key,))) == [], "one way is not enough"
    assert session.state is State.SENT
    node.tell(Answered(session.id, leg.keys))
    assert session.state is State.ESTABLISHED
    assert leg.accepted is None, "what was negotiated is not known, and not made up"
    assert node.agent.counters["answer_missed"] == 1
    assert str(ends) in node.told[-1].text
    assert node.tell(Answered(session.id, leg.keys)) == []
    assert node.tell(Answered(session.id ^ 1, leg.keys)) == []
    setup.client.finish(node, setup.client.connections[ends])
    setup.world.run(60)
    setup.assert_nothing_left()


def test_syns_that_waited_in_a_queue_together_are_one() -> None:
    """Else a queue that is longer than a second never gets short again."""
    setup = Setup(chain=("fw",), close=False)
    ends = setup.connect()
    for _ in range(5):
        setup.client_node.from_host(make_segment(ends, SYN, 1000))
    setup.world.run(0.4)
    assert setup.client.outcomes == {"established": 1}
    assert len(dysco_syns(setup)) == 2, "one for each hop"
    assert setup.client_node.agent is not None
    assert setup.client_node.agent.counters["syn_too_soon"] == 5
    # What TCP repeats goes on, and so does another connection's SYN at once.
    setup.world.run(1.1)
    setup.client_node.from_host(make_segment(ends, SYN, 1000))
    setup.world.run(1.2)
    assert len(dysco_syns(setup)) == 4
    setup.client_node.from_host(make_segment(ends, SYN, 77))
    setup.world.run(1.3)
    assert setup.server.accepted[ends] == 77
