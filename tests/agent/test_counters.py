"""Counters of set-up that no other test looks at, each provoked."""

from __future__ import annotations

from simulation import Setup, make_segment

from dysco.agent.events import PacketIn, Reason
from dysco.agent.model import OnFailure
from dysco.agent.packet import ACK, SYN


def test_a_set_up_that_fails_and_the_syn_that_goes_directly_then() -> None:
    setup = Setup(("fw",), on_failure=OnFailure.DIRECT)
    for node in (setup.box_nodes["fw"], setup.server_node):
        for address in node.interface.addresses:
            del setup.world.nodes[address]
    setup.connect()
    setup.world.run(40)  # tries at 0, 1, 3, 7, 15, 31 s; it is given up after 20 s
    agent = setup.client_node.agent
    assert agent is not None
    assert agent.counters["session_unfinished"] == 1
    assert agent.counters["session_direct"] == 1
    assert agent.counters["syn_bypassed"] >= 1


def test_an_answer_to_another_syn() -> None:
    setup = Setup(("fw",), close=False)
    ends = setup.connect(isn=1000)
    setup.world.run(0.5)
    client = setup.client_node
    assert client.agent is not None
    for flags, ack in ((SYN | ACK, 99), (SYN, 0)):
        segment = make_segment(ends.reversed, flags=flags, ack=ack)
        port, host = client.interface.port, client.host.id
        client.tell(PacketIn(Reason.RECEIVED, port, host, 0, segment.build()))
    assert client.agent.counters["stale_answer"] == 2


def test_a_syn_of_the_host_that_a_session_came_to() -> None:
    setup = Setup(("fw",), close=False)
    ends = setup.connect()
    setup.world.run(0.5)
    server = setup.server_node
    assert server.agent is not None
    before = len(setup.world.wire)
    server.from_host(make_segment(ends.reversed, flags=SYN))
    setup.world.run(1.0)
    assert server.agent.counters["syn_against_session"] == 1
    assert not [s for s in setup.world.wire[before:] if s.is_syn]
