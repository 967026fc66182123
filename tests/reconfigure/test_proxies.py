"""Terminating proxies: for new sessions only, and off the path of those that have one."""

from __future__ import annotations

import pytest

from dysco.agent.counters import Count
from tests.reconfigure.agents.story import Change, Story
from tests.reconfigure.agents.world import World

BOXES = {"a": "proxy", "b": "firewall"}
SIZES = (60_000, 60_000)


@pytest.mark.parametrize("through", [("a",), ("b", "a")])
def test_one_that_is_known_is_refused_before_anything_is_locked(through: tuple[str, ...]) -> None:
    world = World(1, Story(BOXES, (), (Change(0.02, "client", "server", through),), SIZES)).run()
    assert world.answers == ["request_refused"]
    told = [t.text for t in world.planes["client"].told if t.counter == "request_refused"]
    assert told[0].endswith("'a' ends connections itself: for new sessions only")
    assert not world.outcomes


@pytest.mark.parametrize("through", [("a",), ("b", "a"), ("a", "b")])
def test_one_that_nobody_knew_gets_no_further_than_its_own_syn(through: tuple[str, ...]) -> None:
    """The session stays on its old path, whole, and nothing is left at any host."""
    change = Change(0.02, "client", "server", through)
    for seed in range(3):
        world = World(seed, Story(BOXES, (), (change,), SIZES, declared=False)).run()
        ((state, why),) = world.outcomes
        assert (state, why) == ("failed", "the new path refused"), world.tale()
        proxy = world.planes["a"]
        assert proxy.agent.counters[Count.NEW_PATH_ENDED] > 0
        told = [t.text for t in proxy.told if t.counter == Count.NEW_PATH_ENDED]
        assert told[0].endswith("'a' ends connections itself: for new sessions only")


def test_one_that_a_session_has_leaves() -> None:
    change = Change(0.05, "client", "server")
    for seed in range(3):
        world = World(seed, Story(BOXES, ("b", "a"), (change,), SIZES)).run()
        assert world.outcomes == [("finished", "")], world.tale()
