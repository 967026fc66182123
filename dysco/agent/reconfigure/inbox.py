"""Control messages of other agents, and whom each is for.

PacketIn --> Letter --> the session lives here  --> its member
                    --> over here, or never was --> what must reach both anchors goes on or back
                    --> a new path was given up --> nobody waits for it any more
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, PacketIn, SetTimer
from dysco.agent.reconfigure.control import ControlError, Letter, host_number, read_opening
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.mail import Arrived
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Role, answer_to
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckRelease,
    CancelLock,
    DoMove,
    Join,
    Message,
    MoveDone,
    MoveFailed,
    MoveIn,
    MoveOut,
    MoveStep,
    NackLock,
    ReconfigurationId,
    Release,
    RequestLock,
)
from dysco.agent.reconfigure.move_right import RightMove
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.timers import Timer
from dysco.agent.session import Session, State


class Inbox:
    """Hands control messages to the sessions that they are about."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._legs = means.legs
        self._mail = means.mail
        self._given_up = means.given_up
        self._to_host = means.to_host
        self._places = means.places
        self._moves = means.moves
        self._patience = means.patience
        self._orders = orders

    def control(self, event: PacketIn, now: float) -> list[Action]:
        """A control message, as a datagram or in band."""
        core = self._core
        arrived = self._mail.open(event)
        if not isinstance(arrived, Arrived):
            return [arrived] if arrived is not None else []
        letter = arrived.letter
        session = core.table.sessions.get(letter.session)
        here = self._registry.get(letter.session)
        message = letter.message
        if isinstance(message, MoveIn):
            return self._move_in(letter, message, now)
        if (
            isinstance(message, CancelLock)
            and here is not None
            and (dropped := here.member.drop(message.id))
        ):
            # The move by which it came is off: it leaves when its state is dropped.
            return [*self._pass(arrived), *self._orders.do(here, dropped, now)]
        if (
            isinstance(message, CancelLock)
            and session is not None
            and _came_by(session, message.id)
            and (here is None or here.member.is_idle)
        ):
            # The new path that this session came here by was given up.
            return [*self._pass(arrived), *self._leave(self._registry.of(session), now)]
        if here is not None and self._given_up.is_answer(here, letter):
            return self._orders.do(here, (), now)
        if here is None and session is not None:
            here = self._registry.of(session)
        if here is None:
            core.counters[Count.CONTROL_UNKNOWN] += 1
            return self._pass(arrived)
        return self._message(here, letter.sender, message, now)

    def _pass(self, arrived: Arrived) -> list[Action]:
        """For a session that is over here: the end of a lock must still reach both anchors."""
        letter = arrived.letter
        message = letter.message
        if isinstance(message, CancelLock):
            self._given_up.note(letter.session, message.id)
        own = host_number(self._core.host.name)
        to, answer = letter.sender, message
        match message:
            case RequestLock():
                answer = NackLock(message.id, "the session is over at a hop")
            case CancelLock() | Release() if message.right != own:
                to = message.right
            case CancelLock() | Release():
                answer = answer_to(message).message
            case AckCancel() | AckRelease() if message.id.left != own:
                to = message.id.left
            case MoveDone(step=MoveStep.EXPORT) if message.id.left == own:
                answer = CancelLock(message.id, letter.sender)
            case DoMove(step=MoveStep.SETTLE):
                answer = MoveDone(message.id, MoveStep.SETTLE)
            case MoveOut() | DoMove():
                answer = MoveFailed(message.id, "the session is over there")
            case _:
                return []
        if to == letter.sender:
            return self._mail.answer(arrived, answer)
        return self._mail.post_stranger(letter.session, to, answer)

    def _message(self, here: Here, sender: int, message: Message, now: float) -> list[Action]:
        member = here.member
        if here.resuming:
            # It comes again.
            return []

        if isinstance(message, Join) and not self._joins(here, message):
            return []

        def go(now: float) -> list[Action]:
            return self._orders.do(here, member.message(sender, message), now)

        if isinstance(message, AckRelease) and member.lock.state is LockState.GONE:
            here.is_released = True
        if not isinstance(message, RequestLock):
            return go(now)
        if here.session.state is not State.ESTABLISHED:
            why = f"the session is {here.session.state.value} at {self._core.host.name}"
            nack = NackLock(message.id, why)
            return self._mail.post(here, sender, nack)
        lease = SetTimer(Timer.LEASE.of(here.session.id), self._patience.lease)
        if message.right == here.number:
            return [lease, *self._legs.with_registers(here, Role.RIGHT, go, now)]
        return [lease, *go(now)]

    def _move_in(self, letter: Letter, message: MoveIn, now: float) -> list[Action]:
        """A session comes from another host with its state."""
        before = self._core.table.sessions.get(letter.session)
        here, actions = self._moves.arrive(letter, message, now)
        if here is None:
            return actions
        if before is here.session:
            return actions
        # What was decided is journalled before anything of it is done.
        return [*self._orders.do(here, here.member.arrived(), now), *actions]

    def _joins(self, here: Here, message: Join) -> bool:
        """True if the subsession of a move's new host has, or gets, its place here."""
        leg, right = here.session.left, here.member.right
        if leg is None or not isinstance(right, RightMove) or right.id != message.id:
            return False
        if right.may_join:
            self._places.fill(here, leg, message.subsession.reversed)
        return True

    def _leave(self, here: Here, now: float) -> list[Action]:
        """This host is off the session's path: its connections are reset, then all is released."""
        here.member.lock.state = LockState.GONE
        here.is_released = True
        return self._to_host.close(here, now)


def _came_by(session: Session, about: ReconfigurationId) -> bool:
    """True if a session is here only because of that reconfiguration."""
    try:
        return bool(session.opening) and read_opening(session.opening).id == about
    except ControlError:
        return False
