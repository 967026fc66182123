"""After a restart: what the device and the journal have, and where to go on.

    legs in the device --> entries, places        (of no session: taken out)
    journal            --> members, spares        (of no session: taken out)
    registers read     --> the members go on where the journal ends
    wishes             --> Here.wish: the caller asks for them again

Until the registers are known, what comes for the session changes nothing: it comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, HeldLeg, Keep, Level, Progress, SetLeg, SetTimer
from dysco.agent.reconfigure import journal
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import LeftState
from dysco.agent.reconfigure.legs import linger
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.move_left import MoveState
from dysco.agent.reconfigure.move_right import JoinState
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.right import RightState
from dysco.agent.reconfigure.state import Gate
from dysco.agent.reconfigure.timers import BY_ROLE, Timer

_OPENING = frozenset[Enum](
    {
        LeftState.CONNECTING,
        RightState.LOCKED,
        RightState.PREPARED,
        MoveState.PREPARING,
        MoveState.HOLDING,
        MoveState.MOVING,
        JoinState.LOCKED,
        JoinState.JOINED,
        JoinState.HOLDING,
    }
)


class Restart:
    """Takes up the reconfigurations of the agent that was here before."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._places = means.places
        self._legs = means.legs
        self._patience = means.patience
        self._turns = means.turns
        self._holds = means.holds
        self._orders = orders

    def recover(
        self,
        legs: Sequence[HeldLeg],
        records: Sequence[tuple[int, bytes]],
        now: float,
    ) -> list[Action]:
        """When the sessions are known again; `records`: the journal, by session."""
        core = self._core
        actions: list[Action] = []
        for held in legs:
            leg = core.table.by_emitted.get(held.key.tuple)
            if leg is None:
                actions.append(SetLeg(held.key, None))
                continue
            here = self._registry.of(leg.session)
            here.entries[here.role_of(leg)] = held.entry
            self._places.restore(leg, held)
        for number, record in records:
            session = core.table.sessions.get(number)
            if session is None:
                actions += [*self._tell_ended(number, record), Keep(number, b"")]
                continue
            here = self._registry.of(session)
            try:
                kept = journal.read(record)
            except journal.JournalError as error:
                text = f"{session}: its journal can't be read: {error}"
                actions.append(core.tell(Level.WARNING, Count.JOURNAL_UNREADABLE, text))
                continue
            before = {role: leg.spare for role, leg in here.session_legs() if leg.spare}
            here.restore(kept, record)
            actions += self._places.forget(here, before, now)
            actions += self._resume(here, now)
            self._turns.resume(here)
        return actions + self._open(now)

    def _open(self, now: float) -> list[Action]:
        """Gates of moves that nobody knows of any more, or that are over."""
        actions: list[Action] = []
        for here in self._registry.sessions.values():
            if not here.member.is_idle or here.member.lock.state is LockState.GONE:
                continue
            for role, entry in list(here.entries.items()):
                if entry.gate is Gate.HELD:
                    actions += self._holds.let_go(here, role, now)
                elif entry.gate is not Gate.OPEN:
                    whole = replace(entry, gate=Gate.OPEN, hold=0)
                    actions += self._legs.set(here, role, whole, now, keep_spare=True)
        return actions

    def _tell_ended(self, number: int, record: bytes) -> list[Action]:
        """Of a session that is no more: what was wanted, or under way, has failed."""
        try:
            kept = journal.read(record)
        except journal.JournalError:
            return []
        left = kept.left
        if kept.wish is None and (left is None or left.is_over):
            return []
        about = left.id.number if kept.wish is None and left is not None else 0
        why = "the session ended while no agent was there"
        name, role = self._core.host.name, Role.LEFT.value
        return [Progress(number, name, about, role, LeftState.FAILED.value, why)]

    def _resume(self, here: Here, now: float) -> list[Action]:
        """Go on where the journal ends, as soon as the registers are known."""
        member = here.member
        self._places.resume(here)
        if member.is_idle and member.lock.state is not LockState.GONE:
            # What a move that is over asked of the host's state may not have been done.
            moved = member.source or member.target
            left_over = self._orders.do(here, member.recover(), now) if moved else []
            return [*self._let_linger(here), *left_over]
        actions: list[Action] = [SetTimer(Timer.LEASE.of(here.session.id), self._patience.lease)]
        waits: set[Role] = set()
        if member.left is not None and not member.left.is_over:
            waits.add(Role.LEFT)
        if member.right is not None and not member.right.is_over:
            waits.add(Role.RIGHT)
        if not waits:
            return actions + self._orders.do(here, member.recover(), now)

        here.resuming = set(waits)

        def go(now: float) -> list[Action]:
            here.resuming = {role for role in waits if role not in here.registers}
            return self._orders.do(here, member.recover(), now) if not here.resuming else []

        for role in waits:
            timer = BY_ROLE[role].of(here.session.id)
            actions.append(SetTimer(timer, self._patience.longest))
            actions += self._legs.with_registers(here, role, go, now)
        return actions + self._let_linger(here)

    @staticmethod
    def _let_linger(here: Here) -> list[Action]:
        """Spares of paths that are over: the next reconfiguration must not take one for its own."""
        for role, leg in here.session_legs():
            if leg.spare is not None and not _is_opening(here, role):
                here.lingering[role] = leg.spare
        return [linger(here)] if here.lingering else []


def _is_opening(here: Here, role: Role) -> bool:
    """True if the spare is, or may be, of a new path that a reconfiguration still works on."""
    entry, member = here.entries.get(role), here.member
    if entry is not None and (entry.new is not None or entry.gate is Gate.HELD):
        return True
    anchor = member.left if role is Role.LEFT else member.right
    return anchor is not None and anchor.state in _OPENING
