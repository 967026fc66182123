"""The legs' constants and registers in the device.

    with_registers --> SetLeg, QueryLeg --> LegReport --> what waited for it
    set            --> SetLeg, and what must follow the entry: SetLeg.then
    a switch       --> the old subsession lingers --> SetLeg without it

Registers are read before a lock is asked for or granted, and at each time-out: what is known of
them in between may be old, and is never ahead.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, QueryLeg, Send, SetLeg, SetTimer, Submit
from dysco.agent.model import FiveTuple, MappingKey
from dysco.agent.packet import abort
from dysco.agent.reconfigure.here import Here, Todo
from dysco.agent.reconfigure.in_band import last_numbers
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.places import Places
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Entry
from dysco.agent.reconfigure.timers import Timer

LINGER = 2.0
"""Seconds that an old path's entries stay, for what is still under way on it."""
MAX_LINGERS = 15
"""How often a host that left a chain waits for its neighbour's word, LINGER each."""
MAX_WAITING = 8
"""Things to be done at a leg's next report; of more, the oldest is dropped."""


class Legs:
    """Reads and writes what the device knows of legs."""

    def __init__(self, core: Core, places: Places) -> None:
        self._core = core
        self._places = places

    def with_registers(self, here: Here, role: Role, todo: Todo, now: float) -> list[Action]:
        """Do it when the leg's registers were read anew."""
        leg = here.session_leg(role)
        if leg is None:
            return todo(now)
        waiting = here.waiting.setdefault(role, [])
        del waiting[: max(0, len(waiting) - MAX_WAITING + 1)]
        waiting.append(todo)
        query = QueryLeg(leg.outbound_key)
        actions = self._end_linger(here, now) if role in here.lingering else []
        if role in here.entries:
            return [*actions, query]
        entry = here.entries[role] = here.fresh(role)
        return [*actions, SetLeg(leg.outbound_key, entry, then=(query,))]

    def set(
        self, here: Here, role: Role, entry: Entry, now: float, *, keep_spare: bool = False
    ) -> list[Action]:
        """A leg's constants change, and with them which of its subsessions is which.

        `keep_spare`: the subsession in the other place stays, though the entry has no new way.
        """
        leg = here.session_leg(role)
        if leg is None or here.is_over:
            return []
        before = here.entries.get(role)
        here.entries[role] = entry
        remove: tuple[MappingKey, ...] = ()
        actions: list[Action] = []
        if before is not None and entry.path != before.path and leg.spare is not None:
            here.last[leg.sent] = last_numbers(before, here.leg(role).registers)
            self._places.swap(here, leg)
            here.lingering[role] = leg.spare
            actions.append(linger(here))
            if role is Role.LEFT:
                here.session.chain = here.names
                self._core.counters[Count.RECONFIGURED] += 1
        elif entry.new is None and not keep_spare:
            remove = self._places.drop(here, role, now)
        token = entry.new.token if entry.new is not None else None
        second, mappings = self._places.second(leg), self._places.mappings(leg)
        return [SetLeg(leg.outbound_key, entry, second, token, mappings, remove), *actions]

    def lingered(self, here: Here, now: float) -> list[Action]:
        """What was still under way has come."""
        if here.member.lock.state is not LockState.GONE:
            return self._end_linger(here, now)
        if not here.is_released and here.tries < MAX_LINGERS:
            # The end of the lock must reach those on the right, and by way of here.
            here.tries += 1
            return [linger(here)]
        return self._core.release(here.session, Count.LEFT_CHAIN, now)

    def _end_linger(self, here: Here, now: float) -> list[Action]:
        actions: list[Action] = []
        for role in list(here.lingering):
            leg = here.session_leg(role)
            entry = here.entries.get(role)
            if role is Role.LEFT and leg is not None and leg.spare is not None:
                actions += self._close(here, leg.spare)
            remove = self._places.drop(here, role, now)
            if leg is not None and entry is not None:
                token = entry.new.token if entry.new is not None else None
                second = self._places.second(leg)
                actions.append(SetLeg(leg.outbound_key, entry, second, token, remove=remove))
        here.lingering.clear()
        return actions

    def _close(self, here: Here, old: FiveTuple) -> list[Action]:
        """An old path without boxes: nobody else tells the network that it is over."""
        left, at = here.member.left, here.last.get(old)
        if left is None or at is None or here.at(old) != left.request.right:
            return []
        mac = self._core.interface_for(old.src, b"").mac
        return [Send(abort(old, add(at.end, -1), mac).build(), Submit.ROUTE)]

    def remove(self, here: Here, now: float) -> list[Action]:
        """The session is over at this host."""
        actions: list[Action] = []
        for role in list(here.entries):
            leg = here.session_leg(role)
            if leg is not None:
                remove = self._places.drop(here, role, now)
                actions.append(SetLeg(leg.outbound_key, None, remove=remove))
        here.entries.clear()
        here.lingering.clear()
        return actions


def linger(here: Here) -> SetTimer:
    """Until nothing of the old path is under way any more."""
    return SetTimer(Timer.LINGER.of(here.session.id), LINGER)
