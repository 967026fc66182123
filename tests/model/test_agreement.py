"""The code takes the steps of `model.table`, all of them, and no others.

That the model does so too is checked by its exhaustive search (`make verify`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from dysco.agent.events import Sides
from dysco.agent.model import FiveTuple
from dysco.agent.reconfigure.left import LeftAnchor, LeftState, Patience
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.member import Role as AnchorRole
from dysco.agent.reconfigure.messages import (
    AckRelease,
    CancelLock,
    DoMove,
    Ends,
    Join,
    Leg,
    MoveFailed,
    MoveStep,
    NackLock,
    ReconfigurationId,
    Release,
    RequestLock,
)
from dysco.agent.reconfigure.move_left import LeftMove, MoveState, Parties
from dysco.agent.reconfigure.move_right import JoinState, RightMove
from dysco.agent.reconfigure.right import RightAnchor, RightState
from dysco.agent.reconfigure.segment import RST, Segment
from dysco.agent.reconfigure.source import Source, SourceState
from dysco.agent.reconfigure.state import Entry, Registers
from dysco.agent.reconfigure.target import Between, Target, TargetState
from model.table import (
    JOIN,
    LEFT,
    LOCK,
    MODEL,
    MOVE,
    MOVES,
    RIGHT,
    SOURCE,
    TARGET,
    TIMED,
    TIMED_MOVES,
)
from tests.model.steps import MOVE_CALLS, traced
from tests.reconfigure.agents.stories import MOVES as STORIES
from tests.reconfigure.agents.stories import move
from tests.reconfigure.agents.world import World as AgentWorld
from tests.reconfigure.simulation.network import Weather
from tests.reconfigure.simulation.node import Node
from tests.reconfigure.simulation.scenarios import KINDS, scenario
from tests.reconfigure.simulation.world import Scenario, Step, World

LEAST, MOST = 20, 60
"""Seeds of each kind: as many as it takes to see all steps."""
LEAST_MOVES = 5
POLL = 0.0001


def _nodes(world: World) -> tuple[Node, Node]:
    return world.chain[0], world.chain[-1]


def _when(world: World, holds: Callable[[], bool], act: Callable[[], None]) -> None:
    """Do it once, as soon as it holds, and look a few thousand times."""

    def look(left: int) -> None:
        if holds():
            act()
        elif left:
            world.clock.after(POLL, look, left - 1)

    look(20_000)


def _lease(times: int, at: LeftState) -> World:
    """The right anchor hears nothing of the left one for too long; then the left one is back."""
    slow = Weather(delay=0.004)
    world = World(1, Scenario(("pass",), (Step(0.01, 0, 2),), control=slow, pause=0.01, linger=1.0))
    left, right = _nodes(world)

    def reached() -> bool:
        anchor, other = left.member.left, right.member.right
        return anchor is not None and anchor.state is at and other is not None

    def give_up() -> None:
        left.alive = False
        for turn in range(times):
            world.clock.after(turn * 0.01, lambda: right.do(right.member.lease_over()))
        world.clock.after(0.1, left.come_back)

    _when(world, reached, give_up)
    return world


@pytest.mark.parametrize("at", [LeftState.LOCKING, LeftState.CONNECTING, LeftState.SWITCHING])
@pytest.mark.parametrize("times", [1, 2])
def test_after_a_lease_that_ended_the_session_is_whole(times: int, at: LeftState) -> None:
    """The first time the right anchor revokes, or is over, then it is over at least."""
    world = _lease(times, at)
    world.run()
    assert world.outcomes == [LeftState.FAILED]


def _refused() -> World:
    world = World(1, Scenario(("pass",), (Step(0.01, 0, 2, ("pass",)),), linger=1.0))
    node, _ = _nodes(world)

    def connecting() -> bool:
        anchor = node.member.left
        return anchor is not None and anchor.state is LeftState.CONNECTING

    reset = Segment(0, 0, RST, 0)
    _when(world, connecting, lambda: node.do(node.member.new_path(AnchorRole.LEFT, reset)))
    return world


def _reset(holds: Callable[[LeftAnchor, RightAnchor], bool]) -> World:
    """The client aborts, as soon as it holds; the proxy to be removed is full for long."""
    world = World(1, Scenario(("proxy",), (Step(0.01, 0, 2),), stalled=(0.3, 0.3), linger=1.0))
    _abort_when(world, holds)
    return world


def _abort_when(world: World, holds: Callable[[LeftAnchor, RightAnchor], bool]) -> None:
    left, right = _nodes(world)

    def reached() -> bool:
        one, other = left.member.left, right.member.right
        return one is not None and other is not None and holds(one, other)

    _when(world, reached, world._abort)


def _left_hears_first() -> World:
    """The session ends, and of the anchors only the left one knows."""
    world = World(1, Scenario(("proxy",), (Step(0.01, 0, 2),), stalled=(0.3, 0.3), linger=1.0))
    left, right = _nodes(world)

    def draining() -> bool:
        other = right.member.right
        return other is not None and other.state is RightState.DRAINING

    def end() -> None:
        world.ended_by_reset = True
        left.session_over()

    _when(world, draining, end)
    return world


def _out_of_patience(state: LeftState) -> None:
    ends = Ends(0, 0, timestamps=True, sack=True)
    request = RequestLock(ReconfigurationId(0, 1), 2, 1, 1, ends)
    anchor = LeftAnchor(request, Patience(), random.Random(0))
    anchor.state = state
    leg = Leg(Entry(), Registers())
    while not anchor.is_over:
        anchor.wake(leg)


def test_the_code_takes_the_steps_of_the_table() -> None:
    with traced() as steps:
        for state in (LeftState.RELEASING, LeftState.CANCELLING):
            _out_of_patience(state)
        _refused().run()
        for at in (LeftState.LOCKING, LeftState.SWITCHING):
            _lease(2, at).run()
        for left in (LeftState.CONNECTING, LeftState.SWITCHING, LeftState.DRAINING):
            _reset(lambda one, _, at=left: one.state is at).run()
        for right in (RightState.PREPARED, RightState.DRAINING, RightState.DRAINED):
            _reset(lambda _, other, at=right: other.state is at).run()
        _left_hears_first().run()
        world = _lease(1, LeftState.SWITCHING)
        _abort_when(world, lambda _, other: other.state is RightState.REVOKED)
        world.run()
        for seed in range(MOST):
            for kind in KINDS:
                World(seed, scenario(seed, kind)).run()
            if seed >= LEAST and steps >= MODEL | TIMED:
                break
    extra, missing = sorted(steps - MODEL - TIMED), sorted((MODEL | TIMED) - steps)
    assert not extra, f"steps of the code that are not in the table: {extra}"
    assert not missing, f"rows of the table that the code never takes: {missing}"


def _rare_in_moves() -> None:
    """What random runs hardly ever hit: put into a state, and told of what ends it."""
    ends = Ends(0, 0, timestamps=True, sack=True)
    about = ReconfigurationId(0, 1)
    request = RequestLock(about, 2, 1, 1, ends)
    leg, patience = Leg(Entry(), Registers()), Patience()
    for state in (MoveState.PREPARING, MoveState.HOLDING):
        _left_move(request, state).message(MoveFailed(about, "no room"), leg)
    for state in (MoveState.PREPARING, MoveState.HOLDING, MoveState.SWITCHING):
        _left_move(request, state).session_over(leg)
    for at in (JoinState.LOCKED, JoinState.JOINED, JoinState.HOLDING, JoinState.SWITCHED):
        right = RightMove(request, patience)
        right.state = at
        right.session_over()
    right = RightMove(request, patience)
    right.state = JoinState.HOLDING
    right.wake(leg)
    nowhere = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    for told in (DoMove(about, MoveStep.SWITCH), Release(about, 2), CancelLock(about, 2)):
        _joined(request, nowhere, leg).message(told, leg)
        RightMove(request, patience).message(told, leg)
    right = _joined(request, nowhere, leg)
    right.message(DoMove(about, MoveStep.HOLD), leg)
    right.recover(leg)
    for begun in (MoveState.LOCKING, MoveState.PREPARING, MoveState.HOLDING, MoveState.MOVING):
        _left_move(request, begun).cancel(leg, "given up")
    _left_move(request, MoveState.LOCKING).session_over(leg)
    _left_move(request, MoveState.LOCKING).message(NackLock(about, "no"), leg)
    _left_move(request, MoveState.CANCELLING).message(AckRelease(about), leg)
    for left_state in SourceState:
        for end in (Source.gone, Source.back):
            source = Source(about, patience)
            source.state = left_state
            end(source)
    for target_state in (TargetState.ARRIVING, TargetState.IMPORTING, TargetState.IMPORTED):
        for event in (Target.wake, Target.session_over, Target.drop):
            target = Target(about, Between(1, Sides(nowhere, None), 3, nowhere), patience)
            target.state = target_state
            event(target)


def _joined(request: RequestLock, subsession: FiveTuple, leg: Leg) -> RightMove:
    right = RightMove(request, Patience())
    right.message(Join(request.id, subsession), leg)
    return right


def _left_move(request: RequestLock, state: MoveState) -> LeftMove:
    move = LeftMove(request, Parties(1, 3, 2), Patience())
    move.state = state
    return move


def test_moves_take_the_steps_of_the_table() -> None:
    with traced(MOVE_CALLS) as steps:
        _rare_in_moves()
        for seed in range(MOST):
            for kind in STORIES:
                AgentWorld(seed, move(seed, kind)).run()
            if seed >= LEAST_MOVES and steps >= MOVES:
                break
    extra, missing = sorted(steps - MOVES - TIMED_MOVES), sorted(MOVES - steps)
    assert not extra, f"steps of the code that are not in the table: {extra}"
    assert not missing, f"rows of the table that the code never takes: {missing}"


def test_states_are_the_code_s() -> None:
    assert set(LOCK) == {state.value for state in LockState}
    assert set(LEFT) - {"none"} == {state.value for state in LeftState}
    assert set(RIGHT) - {"none"} == {state.value for state in RightState}
    assert set(MOVE) - {"none"} == {state.value for state in MoveState}
    assert set(JOIN) - {"none"} == {state.value for state in JoinState}
    assert set(SOURCE) - {"none"} == {state.value for state in SourceState}
    assert set(TARGET) - {"none"} == {state.value for state in TargetState}
