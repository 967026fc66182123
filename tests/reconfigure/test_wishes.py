"""What the operator wants waits for its turn, and outlives the agent; real agents, one session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dysco.agent.events import CancelReconfiguration, CloseSession
from dysco.agent.reconfigure.turns import WAITING
from tests.reconfigure.agents.plane import Plane
from tests.reconfigure.agents.story import Change, Story
from tests.reconfigure.agents.world import World

CHANGE = Change(0.05, "client", "server", ("b",))


def waiting_world(*changes: Change) -> World:
    """Nothing may begin at the client: what is wanted waits."""
    story = Story({"a": "pass", "b": "firewall"}, ("a",), changes or (CHANGE,), (90_000, 90_000))
    world = World(3, story)
    turns = world.planes["client"].agent._reconfigurer._means.turns
    turns._patience = replace(turns._patience, at_once=0)
    return world


def run_until(world: World, done: Callable[[], bool]) -> None:
    until = world.clock.now + 20.0
    while not done():
        assert world.clock.step(), world.tale()
        assert world.clock.now < until, world.tale()


def steps(plane: Plane) -> list[tuple[str, str]]:
    return [(step.state, step.why) for _, step in plane.progress if step.role == "left anchor"]


def run_until_waiting(world: World) -> Plane:
    client = world.planes["client"]
    run_until(world, lambda: steps(client) == [(WAITING, "")])
    return client


def test_it_begins_after_a_restart() -> None:
    world = waiting_world()
    client = run_until_waiting(world)
    client.outage = 0.1
    client.crash()
    world.run()
    assert [state for state, _ in steps(client)] == [
        WAITING,
        *("locking", "connecting", "switching", "draining", "releasing", "finished"),
    ]


def test_it_begins_after_a_restart_while_the_registers_were_asked_for() -> None:
    world = World(3, Story({"a": "pass", "b": "firewall"}, ("a",), (CHANGE,), (90_000, 90_000)))
    client = world.planes["client"]
    run_until(world, lambda: world.apps[0].is_open)
    client.punt_loss = 1.0
    run_until(world, lambda: bool(client.journal))
    assert not steps(client), "it has begun"
    client.outage, client.punt_loss = 0.1, 0.0
    client.crash()
    world.run()
    assert steps(client)[-1] == ("finished", "")


def test_a_session_that_ended_meanwhile_is_told_as_failed() -> None:
    world = waiting_world()
    client = run_until_waiting(world)
    client.outage = 1.0
    client.crash()
    client.mappings.clear()
    client.legs.clear()
    run_until(world, lambda: client.alive)
    assert steps(client)[-1] == ("failed", "the session ended while no agent was there")
    assert not client.journal


def test_what_makes_no_sense_any_more_is_told_as_failed() -> None:
    world = waiting_world()
    client = run_until_waiting(world)
    client.outage = 0.1
    client.peers = tuple(peer for peer in client.peers if peer.name != "b")
    client.crash()
    run_until(world, lambda: client.alive)
    state, why = steps(client)[-1]
    assert state == "failed"
    assert "'b'" in why
    world.run()


def test_cancelled_before_its_turn() -> None:
    world = waiting_world()
    client = run_until_waiting(world)
    (number,) = client.agent.sessions
    told = client.tell(CancelReconfiguration(number))
    counted = [action.counter for action in told if hasattr(action, "counter")]
    assert counted == ["reconfiguration_cancelled"]
    assert steps(client)[-1] == ("failed", "cancelled by the operator")
    client.outage = 0.1
    client.crash()
    world.run()
    assert steps(client)[-1] == ("failed", "cancelled by the operator")


def test_cancelled_while_the_registers_are_asked_for() -> None:
    world = World(3, Story({"a": "pass"}, ("a",), (Change(0.05, "client", "server"),)))
    client = world.planes["client"]
    run_until(world, lambda: bool(client.journal))
    (number,) = client.agent.sessions
    client.tell(CancelReconfiguration(number))
    world.run()
    assert steps(client) == [("failed", "cancelled by the operator")]


def test_the_session_ends_before_its_turn() -> None:
    """Whoever waits for it is told; it does not wait for its time-out."""
    world = waiting_world()
    client = run_until_waiting(world)
    (number,) = client.agent.sessions
    client.tell(CloseSession(number))
    assert steps(client)[-1] == ("failed", "the session ended")
    assert not client.journal


def test_a_second_one_is_refused_while_one_waits() -> None:
    world = waiting_world(CHANGE, replace(CHANGE, at=0.06))
    run_until(world, lambda: len(world.answers) == 2)
    assert world.answers == ["reconfiguration_started", "request_refused"]


@pytest.mark.parametrize("outage", [0.1, 0.5])
def test_the_chain_is_known_after_a_restart(outage: float) -> None:
    """The device knows only the chain of the set-up."""
    world = World(3, Story({"a": "pass", "b": "pass"}, ("a",), (CHANGE,), (200_000, 200_000)))
    client = world.planes["client"]
    run_until(world, lambda: ("finished", "") in steps(client))
    (session,) = client.agent.sessions.values()
    assert session.chain == ("b",)
    client.outage = outage
    client.crash()
    run_until(world, lambda: client.alive)
    (session,) = client.agent.sessions.values()
    assert session.chain == ("b",)
    world.run()
