"""A member's orders to actions.

    orders --> Keep: the journal, before anything that was decided is done
           --> SetLeg, and in its `then` what must wait until the device has the entry
           --> at once: timers, reports

An order to oneself, as a message to the own lock, is carried out in the same pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dysco.agent.core import Core
from dysco.agent.counters import SetupError
from dysco.agent.events import (
    Action,
    CancelTimer,
    Keep,
    Progress,
    QueryLeg,
    SetLeg,
    SetTimer,
    StateVerb,
    Submit,
)
from dysco.agent.reconfigure import messages
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import LeftState
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Order, Role
from dysco.agent.reconfigure.move_left import MoveState
from dysco.agent.reconfigure.right import RightState
from dysco.agent.reconfigure.state import Gate
from dysco.agent.reconfigure.timers import BY_ROLE, Timer
from dysco.agent.record import RecordError

_BEGUN = {
    state.value
    for state in (
        LeftState.DRAINING,
        LeftState.FINISHED,
        LeftState.FAILED,
        MoveState.RELEASING,
        MoveState.FINISHED,
        MoveState.FAILED,
    )
}
_ASKING = {
    state.value
    for state in (
        LeftState.LOCKING,
        LeftState.CONNECTING,
        LeftState.SWITCHING,
        LeftState.RELEASING,
        RightState.PREPARED,
    )
}
"""In these something is on its way that waits for nothing but agents and devices."""


class Orders:
    """Journals what members decided, and does it."""

    def __init__(self, core: Core, means: Means) -> None:
        self._core = core
        self._registry = means.registry
        self._legs = means.legs
        self._mail = means.mail
        self._turns = means.turns
        self._new_path = means.new_path
        self._given_up = means.given_up
        self._to_host = means.to_host
        self._pace = means.pace
        self._holds = means.holds
        self._moves = means.moves

    def do(self, here: Here, orders: Sequence[Order], now: float) -> list[Action]:
        """Journal what was decided, then do it; forget the session if it is over."""
        actions = self._carry_out(here, orders, now)
        left = here.member.left
        if here.is_over and (left is None or left.is_over) and not here.abandoned:
            if not self._registry.forget(here):
                return actions
            for role in Role:
                self._pace.answered((here.session.id, role), now)
            return [*actions, Keep(here.session.id, b"")]
        if not orders:
            return actions
        if self._registry.get(here.session.id) is None:
            return actions
        return [*here.keep(), *actions]

    def _carry_out(self, here: Here, orders: Sequence[Order], now: float) -> list[Action]:
        actions: list[Action] = []
        for index, order in enumerate(orders):
            role, what = order.role, order.what
            if isinstance(what, messages.SetEntry):
                entry = self._legs.set(here, role, what.entry, now, keep_spare=what.keep_spare)
                if what.entry.gate is Gate.HELD:
                    entry += self._holds.begin(here, role, now)
                rest = self._carry_out(here, orders[index + 1 :], now)
                return actions + _after(entry, rest)
            actions += self._one(here, role, what, now)
        return actions

    def _one(self, here: Here, role: Role, what: messages.Do, now: float) -> list[Action]:
        """What no entry has to come before."""
        match what:
            case messages.Post(to, message):
                if to == here.number:
                    return self._carry_out(here, here.member.message(to, message), now)
                return self._mail.post(here, to, message)
            case messages.Latch():
                return [*self._new_path.announce(here, role, Submit.LATCH)]
            case messages.Revoke():
                return [*self._new_path.announce(here, role, Submit.REVOKE)]
            case messages.TakeCutoff(cutoff):
                return [*self._new_path.take_cutoff(here, role, cutoff)]
            case messages.SendNew():
                try:
                    return self._new_path.send(here, role, what, now)
                except SetupError as error:
                    return self._carry_out(here, here.member.cancel(str(error)), now)
            case messages.WindowUpdate():
                return self._to_host.window_update(here, role)
            case messages.CloseHost(forgot):
                return self._close(here, forgot, now)
            case messages.Wake():
                return [self._wake(here, role, what)]
            case messages.Report():
                return self._report(here, role, what, now)
            case _:
                return self._of_move(here, role, what, now)

    def _of_move(self, here: Here, role: Role, what: messages.Do, now: float) -> list[Action]:
        """What a move alone needs."""
        member = here.member
        match what:
            case messages.LetGo(switched):
                return self._holds.let_go(here, role, now, switched=switched)
            case messages.OpenWay():
                try:
                    return self._moves.open_way(here, now)
                except SetupError as error:
                    return self._carry_out(here, member.cancel(str(error)), now)
            case messages.WakeMove(after):
                timer = Timer.MOVE.of(here.session.id)
                return [SetTimer(timer, after) if after else CancelTimer(timer)]
            case messages.Look():
                return [QueryLeg(leg.outbound_key) for _, leg in here.session_legs()]
            case messages.SendFacts() if member.source is not None:
                return self._moves.send_facts(here, member.source.id, what)
            case messages.SendState() if member.source is not None:
                return self._moves.send_state(here, member.source.id, what)
            case messages.CallState(StateVerb.IMPORT) if member.target is not None:
                try:
                    return self._moves.unload(here, member.target.whole)
                except RecordError as error:
                    return self._carry_out(here, member.state_failed(str(error)), now)
            case messages.CallState(verb):
                return self._moves.call(here, verb)
            case _:
                return []

    def _wake(self, here: Here, role: Role, wake: messages.Wake) -> Action:
        timer = BY_ROLE[role].of(here.session.id)
        if not wake.after:
            return CancelTimer(timer)
        return SetTimer(timer, wake.after if wake.exactly else self._pace.patient(wake.after))

    def _close(self, here: Here, forgot: bool, now: float) -> list[Action]:
        """This host is off the session's path."""
        if here.member.lock.state is not LockState.GONE or here.session.right is None:
            # It was its end, or it never became a part of it: nobody is to pass here any more.
            here.member.lock.state = LockState.GONE
            here.is_released = True
        return self._to_host.leave(here) if forgot else self._to_host.close(here, now)

    def _report(self, here: Here, role: Role, report: messages.Report, now: float) -> list[Action]:
        """An anchor's state changed."""
        self._pace.answered((here.session.id, role), now)
        if report.state in _ASKING:
            self._pace.asked((here.session.id, role), now)
        left = self._core.peers.numbered(report.id.left)
        name = left.name if left is not None else f"{report.id.left:016x}"
        number = here.session.id
        actions: list[Action] = [
            Progress(number, name, report.id.number, role.value, report.state, report.why)
        ]
        if report.state == LeftState.CANCELLING.value and here.through:
            actions += self._given_up.give_up(here, report.id)
        if role is Role.LEFT and report.state in _BEGUN:
            actions += self._turns.begun(here, now)
        return actions


def _after(entry: list[Action], rest: list[Action]) -> list[Action]:
    """What waits for an entry, and what does not: timers, reports, journal."""
    at_once = [a for a in rest if isinstance(a, SetTimer | CancelTimer | Progress | Keep)]
    later = [a for a in rest if not isinstance(a, SetTimer | CancelTimer | Progress | Keep)]
    for index, action in enumerate(entry):
        if isinstance(action, SetLeg):
            entry[index] = replace(action, then=(*action.then, *later))
            return [*entry, *at_once]
    return [*entry, *rest]
