"""Boxes that change the stream: they stay, until they say that they are done."""

from __future__ import annotations

import pytest

from dysco.agent.counters import Count
from dysco.agent.events import FixDeltas
from tests.reconfigure.agents.story import HEADER, Change, Story
from tests.reconfigure.agents.world import World

CHANGE = Change(0.05, "client", "server")
BOXES = {"a": "header", "b": "firewall", "c": "header"}
SIZES = (20_000, 20_000)
WHY = "'a' changes the stream, and has not said that it is done"


@pytest.mark.parametrize("chain", [("a",), ("a", "b"), ("a", "c"), ("b", "a")])
@pytest.mark.parametrize("through", [(), ("b",)])
def test_one_that_is_done_leaves(chain: tuple[str, ...], through: tuple[str, ...]) -> None:
    if set(chain) & set(through):
        chain = tuple(name for name in chain if name not in through)
    change = Change(0.05, "client", "server", through)
    for seed in range(2):
        story = Story(BOXES, chain, (change,), SIZES, fixed_at=0.04)
        world = World(seed, story).run()
        assert world.outcomes == [("finished", "")], world.tale()
        for app in world.apps:
            assert app.endpoint is not None
            assert app.endpoint.retransmitted == app.endpoint.paws_drops == 0, world.tale()


def test_one_that_is_not_stays_and_nothing_is_locked() -> None:
    world = World(1, Story(BOXES, ("b", "a"), (CHANGE,), SIZES)).run()
    assert world.outcomes == [("failed", WHY)]


def test_beside_it_the_chain_changes_all_the_same() -> None:
    """It is an anchor, and nobody asks it to leave."""
    changes = (Change(0.05, "client", "a"), Change(0.2, "a", "server", ("b",)))
    world = World(1, Story(BOXES, ("b", "a"), changes[:1], SIZES)).run()
    assert world.outcomes == [("finished", "")]
    world = World(1, Story(BOXES, ("a",), changes[1:], (60_000, 60_000))).run()
    assert world.outcomes == [("finished", "")]


def test_its_word_outlives_its_agent() -> None:
    story = Story(
        BOXES, ("a",), (Change(0.15, "client", "server"),), (60_000, 60_000), fixed_at=0.04
    )
    world = World(1, story)
    box = world.planes["a"]
    box.outage = 0.02
    world.clock.after(0.08, box.crash)
    assert world.run().outcomes == [("finished", "")], world.tale()


def test_words_that_make_no_sense_are_refused() -> None:
    world = World(1, Story(BOXES, ("a",), (), SIZES))
    answers: list[str] = []

    def say() -> None:
        box, server = world.planes["a"], world.planes["server"]
        (number,) = box.agent.sessions
        for plane, event in (
            (box, FixDeltas(number + 1, 1, 0)),
            (server, FixDeltas(number, 1, 0)),
            (box, FixDeltas(number, len(HEADER), 0)),
            (box, FixDeltas(number, len(HEADER), 0)),
            (box, FixDeltas(number, len(HEADER) + 1, 0)),
        ):
            told = plane.tell(event)[-1]
            answers.append(getattr(told, "counter", ""))

    world.clock.after(0.05, say)
    world.run()
    refused, fixed = Count.REQUEST_REFUSED, Count.DELTAS_FIXED
    assert answers == [refused, refused, fixed, fixed, refused]
