"""Real agents, frames and journals on a data plane that follows the reference's rules."""

from __future__ import annotations

import pytest

from dysco.agent.counters import Count
from tests.reconfigure.agents.stories import story
from tests.reconfigure.agents.story import Change, Story
from tests.reconfigure.agents.world import World
from tests.reconfigure.explore import try_all
from tests.reconfigure.simulation.boxes import Firewall
from tests.reconfigure.simulation.network import Weather

SEEDS = 5000
AT_ONCE = 100


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_bad_weather(first: int) -> None:
    """Every byte arrives, and nothing is left: no entry, no port, no lock, no journal."""
    counts = try_all((seed, story(seed)) for seed in range(first, first + AT_ONCE))
    assert counts["seeds"] == AT_ONCE
    assert counts["finished"] > AT_ONCE / 3


@pytest.mark.parametrize(
    ("boxes", "chain", "change"),
    [
        ({"a": "pass"}, ("a",), Change(0.02, "client", "server")),
        ({"a": "nat", "b": "firewall"}, ("a", "b"), Change(0.02, "client", "b")),
        ({"a": "shift", "b": "firewall"}, ("a", "b"), Change(0.02, "client", "server")),
        ({"a": "firewall"}, (), Change(0.02, "client", "server", ("a",))),
        ({"a": "nat", "b": "firewall"}, ("b",), Change(0.02, "client", "b", ("a",))),
        ({"a": "firewall", "b": "firewall"}, ("a",), Change(0.02, "client", "server", ("b",))),
        ({"a": "pass", "b": "nat", "c": "shift"}, ("a",), Change(0.02, "client", "a", ("b", "c"))),
    ],
)
def test_calm_without_a_single_retransmission(
    boxes: dict[str, str], chain: tuple[str, ...], change: Change
) -> None:
    for seed in range(3):
        world = World(seed, Story(boxes, chain, (change,))).run()
        assert world.outcomes == [("finished", "")], world.tale()
        for app in world.apps:
            assert app.endpoint is not None
            assert app.endpoint.retransmitted == app.endpoint.paws_drops == 0, world.tale()
        for box in world.boxes.values():
            invalid = box.box.invalid_because if isinstance(box.box, Firewall) else []
            # A box that is taken out gets a RST from both sides: the second finds it closed.
            assert all(why.startswith("reset out of window") for why in invalid), world.tale()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Change(0.02, "client", "nobody"), "no other host"),
        (Change(0.02, "client", "client"), "no other host"),
        (Change(0.02, "client", "server", ("server",)), "end host"),
        (Change(0.02, "client", "server", ("b", "b")), "twice"),
        (Change(0.02, "server", "client"), "not established on that side"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_happens(change: Change, why: str) -> None:
    world = World(1, Story({"a": "pass", "b": "pass"}, ("a",), (change,))).run()
    assert world.answers == ["request_refused"]
    told = [t.text for t in world.planes[change.left].told if t.counter == "request_refused"]
    assert why in told[0]
    assert not world.outcomes


def test_a_right_anchor_that_is_not_on_the_chain_is_said() -> None:
    world = World(1, Story({"a": "pass", "b": "pass"}, ("a",), (Change(0.02, "client", "b"),)))
    assert world.run().outcomes == [("failed", "the right anchor is not on the chain")]


def test_same_seed_same_run() -> None:
    one, other = (World(7, story(7, "contend")).run() for _ in range(2))
    assert one.tale() == other.tale()
    assert one.clock.steps == other.clock.steps


@pytest.mark.parametrize("seed", [12151, 13718, 15452, 18435, 43581, 61325])
def test_found_once(seed: int) -> None:
    """The end of a lock has to pass a hop that has left, and outlives the left anchor's session;
    a new path may be given up before its SYN has come."""
    World(seed, story(seed)).run()


@pytest.mark.parametrize("actions", range(16, 32))
def test_a_restart_does_not_take_an_old_path_for_the_next_new_one(actions: int) -> None:
    """The left anchor dies late in one change, or early in the next, which goes past box a."""
    changes = (Change(0.02, "client", "server", ("b",)), Change(0.25, "client", "server"))
    boxes = {"a": "firewall", "b": "firewall"}
    crash = ("client", actions, 0.02)
    tale = Story(boxes, ("a",), changes, sizes=(60_000, 60_000), crashes=(crash,))
    world = World(1, tale).run()
    assert world.planes["a"].agent.counters[Count.RECEIVED] == 1, world.tale()


def test_a_lock_is_over_only_when_its_hops_say_so_and_not_a_box_of_the_new_path() -> None:
    """Such a box, told twice that it is not needed, answers twice."""
    change = Change(0.02, "client", "server", ("b",))
    slow = Weather(delay=0.15)
    world = World(
        1, Story({"a": "pass", "b": "pass"}, ("a",), (change,), control=slow, linger=30.0)
    )
    client, server = world.planes["client"], world.planes["server"]

    def states() -> list[str]:
        return [step.state for _, step in client.progress]

    while "connecting" not in states():
        assert world.clock.step()
    server.outage = 20.0
    server.crash()
    while "failed" not in states():
        assert world.clock.step(), world.tale()
    assert server.alive, world.tale()
    assert not world.locked()
    world.run()
