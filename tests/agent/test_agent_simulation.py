"""Sessions through whole chains, in good weather and bad."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from simulation import Setup, Weather

from dysco.agent.model import FiveTuple
from dysco.agent.options import take_tag
from dysco.agent.session import State


@pytest.mark.parametrize("version", [4, 6])
def test_a_session_crosses_its_chain_in_order(version: int) -> None:
    setup = Setup(version=version)
    ends = setup.connect()
    setup.world.run(0.5)
    fw, nat, count = setup.boxes.values()
    assert dict(fw.syns) == {ends: 1}
    assert dict(nat.syns) == {ends: 1}
    behind_nat = FiveTuple(ip_address(nat.outside), 40001, ends.dst, ends.dport)
    assert dict(count.syns) == {behind_nat: 1}
    assert setup.server.accepted == {behind_nat: 1000}
    assert setup.client.outcomes == {"established": 1}
    # In the network, only addresses of neighbours and reserved ports.
    syns = [s for s in setup.world.wire if s.is_syn]
    hops = [1, 2, 3, 4, 9]
    assert [int(s.tuple.src) & 15 for s in syns] == hops[:-1]
    assert [int(s.tuple.dst) & 15 for s in syns] == hops[1:]
    assert all(s.tuple.sport >= 61000 and s.tuple.dport >= 61000 for s in syns)
    # The options come through whole, the tag only to middleboxes.
    for node in setup.nodes[1:]:
        options, tag = take_tag(node.seen[0].options)
        assert options == syns[0].options
        assert (tag is None) == (node is setup.server_node)


def test_all_hosts_list_the_session_under_one_number() -> None:
    setup = Setup(close=False)
    ends = setup.connect()
    setup.world.run(1)
    numbers = {tuple(node.agent.sessions) for node in setup.nodes}
    assert len(numbers) == 1
    (number,) = numbers.pop()
    views = [node.agent.sessions[number] for node in setup.nodes]
    assert [view.position for view in views] == [0, 1, 2, 3, 4]
    assert {view.session for view in views} == {ends}
    assert {view.state for view in views} == {State.ESTABLISHED}
    assert views[0].chain == ("fw", "nat", "count")
    assert views[3].chain == ()
    for left, right in pairwise(views):
        assert left.next == right.previous
        assert left.emitted == right.received
    assert views[0].received is None
    assert views[-1].emitted is None
    assert [len(view.keys) for view in views] == [2, 4, 4, 4, 2]


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_is_left_after_close(version: int) -> None:
    setup = Setup(version=version)
    setup.connect()
    setup.world.run(60)
    setup.assert_nothing_left()
    assert all(node.agent.counters["session_closed"] == 1 for node in setup.nodes)


@pytest.mark.parametrize("seed", range(12))
def test_bad_weather_breaks_no_session(seed: int) -> None:
    weather = Weather(lose=0.15, repeat=0.2, delay=0.3)
    setup = Setup(weather=weather, seed=seed)
    for sport in range(33000, 33020):
        setup.connect(sport)
    setup.world.run(300)
    outcomes = setup.client.outcomes
    # A path of four hops that loses 15 % per hop may exhaust the tries of a few.
    assert outcomes["established"] + outcomes["refused"] == 20
    assert outcomes["established"] >= 15
    for behind in setup.server.accepted:
        assert str(behind.src) == "10.0.0.3"
    # Each that came in for the client crossed every box.
    for node in setup.nodes:
        assert node.agent.counters["header_forged"] == 0
    assert len(set(setup.boxes["nat"].out.values())) <= 20
