"""A NAT of the network around the client: control messages find their way on the session itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dysco.agent.counters import Count
from tests.reconfigure.agents.stories import story
from tests.reconfigure.agents.story import Change, Nat, Story
from tests.reconfigure.agents.world import World

CHANGES = [
    # boxes, chain, change
    ({"a": "pass"}, ("a",), Change(0.02, "client", "server")),
    ({"a": "firewall"}, (), Change(0.02, "client", "server", ("a",))),
    ({"a": "firewall", "b": "firewall"}, ("a",), Change(0.02, "client", "server", ("b",))),
    ({"a": "pass", "b": "shift", "c": "nat"}, ("a", "b"), Change(0.02, "client", "b", ("c",))),
    ({"a": "pass", "b": "firewall"}, ("a",), Change(0.02, "a", "server", ("b",))),
]


@pytest.mark.parametrize("nat", [Nat.MASQUERADE, Nat.TCP_ONLY])
@pytest.mark.parametrize(("boxes", "chain", "change"), CHANGES)
def test_a_chain_changes_behind_a_nat(
    boxes: dict[str, str], chain: tuple[str, ...], change: Change, nat: Nat
) -> None:
    """Nothing that its conntrack does not believe; what no one asked for it refuses."""
    for seed in range(2):
        world = World(seed, Story(boxes, chain, (change,), nat=nat, sizes=(60_000, 60_000))).run()
        assert world.outcomes == [("finished", "")], world.tale()
        assert world.nat is not None
        # A box that is taken out gets a RST from both sides: the second finds it closed.
        assert all(why.startswith("reset out of window") for why in world.nat.invalid), (
            world.nat.invalid
        )
        client = world.planes["client"].agent.counters
        if change.left == "client":
            assert client[Count.CONTROL_IN_BAND] > 0, world.tale()
        for plane in world.planes.values():
            assert not plane.agent.counters[Count.CONTROL_FORGED]
            assert not plane.agent.counters[Count.CONTROL_MALFORMED]


@pytest.mark.parametrize("nat", [Nat.MASQUERADE, Nat.TCP_ONLY])
@pytest.mark.parametrize(
    "kind", ["delete", "insert", "replace", "contend", "row", "crash", "cancel", "dead"]
)
def test_bad_weather_behind_a_nat(kind: str, nat: Nat) -> None:
    """Whatever is lost, late or dies: every byte arrives, and nothing is left."""
    for seed in range(3):
        World(seed, replace(story(seed, kind), nat=nat)).run()
