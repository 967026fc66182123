"""Ports of a path that a chain has left: nobody is given them while a host has entries of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from dysco.agent.counters import SetupError
from dysco.agent.model import FiveTuple, Side
from dysco.agent.settings import Settings
from tests.reconfigure.agents.plane import Plane
from tests.reconfigure.agents.story import Change, Story
from tests.reconfigure.agents.world import World

NO_QUARANTINE = Settings(first_port=61000, last_port=61003, port_quarantine=0)
"""Four pairs for each neighbour: all that are free can be looked at."""
UNTIL = 45.0
"""Seconds: by then the host that lingers has waited long enough."""


def _free(plane: Plane, now: float) -> Iterator[FiveTuple]:
    """The subsessions that a host's next sessions might get."""
    ports = copy.deepcopy(plane.agent._core.ports)
    for src, dst in list(ports._pools):
        try:
            while True:
                pair = ports.allocate(src, dst, now)
                yield FiveTuple(src, pair.sport, dst, pair.dport)
        except SetupError:
            continue


@pytest.mark.parametrize("with_state", [False, True], ids=["path", "move"])
@pytest.mark.parametrize("actions", [9, 12, 17, 25])
def test_nobody_gets_ports_that_a_host_still_has_entries_of(
    actions: int, *, with_state: bool
) -> None:
    """The right anchor's agent is away: the old box, or the new one, waits for the end of it."""
    story = Story(
        {"a": "firewall", "c": "firewall"},
        ("a",),
        (Change(0.02, "client", "server", ("c",), with_state=with_state),),
        pause=0.001,
        linger=60.0,
        crashes=(("server", actions, 20.0),),
        settings=NO_QUARANTINE,
    )
    world = World(1, story)
    look, seen = 0.0, set[FiveTuple]()
    while world.clock.step() and world.clock.now < UNTIL:
        if world.clock.now < look:
            continue
        look = world.clock.now + 0.25
        planes = [plane for plane in world.planes.values() if plane.alive]
        free = {ends for plane in planes for ends in _free(plane, world.clock.now)}
        entries = {
            key.tuple
            for plane in world.planes.values()
            for key in plane.mappings
            if key.side is Side.INBOUND
        }
        assert not free & entries, world.tale()
        seen |= entries
    assert len(seen) > 2, "the old path's two subsessions, and some of the new one"
