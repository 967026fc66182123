"""The two subsessions of a leg: the one in use, and the spare in the leg's other place.

    place 0    one path  --.
                            >-- leg.sent: in use    leg.spare: opened for a new path, or lingering
    place 1    the other --'

Which place is which never moves in the device; a switch changes only which of the two is in use.
Arrivals of the spare are found here, those of the subsession in use in the session table.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.events import Action, HeldLeg, Remove
from dysco.agent.model import FiveTuple, Mapping, MappingKey, Side
from dysco.agent.ports import PortPair, Rest
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.member import Role
from dysco.agent.record import short_record
from dysco.agent.session import Leg


class Places:
    """Which subsession is in which place, for all legs of this host; it decides nothing."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_spare: dict[FiveTuple, tuple[Here, Role]] = {}
        """By what arrives on a new path, or on an old one that lingers."""

    def find(self, arriving: FiveTuple) -> tuple[Here, Role] | None:
        """Whose spare subsession a segment from the network belongs to."""
        return self._by_spare.get(arriving)

    def fill(self, here: Here, leg: Leg, spare: FiveTuple) -> None:
        """A leg gets a spare subsession, in place of the one that it had."""
        if leg.spare is not None:
            self._by_spare.pop(leg.spare.reversed, None)
            here.forget(leg.spare)
        leg.spare = spare
        self._by_spare[spare.reversed] = (here, here.role_of(leg))

    def swap(self, here: Here, leg: Leg) -> None:
        """The new subsession becomes the leg's, the old one is what lingers."""
        table = self._core.table
        if leg.spare is None:
            return
        table.remove_leg(leg)
        self._by_spare.pop(leg.spare.reversed, None)
        leg.sent, leg.spare = leg.spare, leg.sent
        leg.path = 1 - leg.path
        table.add_leg(leg)
        self._by_spare[leg.spare.reversed] = (here, here.role_of(leg))

    def drop(self, here: Here, role: Role, now: float) -> tuple[MappingKey, ...]:
        """The spare subsession is no more: which mappings to take out."""
        leg = here.session_leg(role)
        if leg is None or leg.spare is None:
            return ()
        spare, leg.spare = leg.spare, None
        here.lingering.pop(role, None)
        here.forget(spare)
        return (self._release(leg, spare, now),)

    def _release(self, leg: Leg, spare: FiveTuple, now: float) -> MappingKey:
        self._by_spare.pop(spare.reversed, None)
        if leg.is_right:
            pair = PortPair(spare.sport, spare.dport)
            self._core.ports.release(spare.src, spare.dst, pair, now, Rest.LEFT)
        return MappingKey(Side.INBOUND, leg.host, spare.reversed)

    @staticmethod
    def second(leg: Leg) -> FiveTuple | None:
        """The subsession in place 1."""
        return leg.sent if leg.path else leg.spare

    def mappings(self, leg: Leg) -> tuple[Mapping, ...]:
        """Both ways of the spare subsession."""
        if leg.spare is None:
            return ()
        core = self._core
        key = MappingKey(Side.INBOUND, leg.host, leg.spare.reversed)
        ends = leg.emitted.reversed
        idle = core.settings.idle_timeout
        inbound = Mapping(key, ends, short_record(leg), idle, path=1 - leg.path)
        return (inbound, core.mappings(leg)[0]) if leg.path else (inbound,)

    # After a restart.

    def restore(self, leg: Leg, held: HeldLeg) -> None:
        """As the device has it."""
        table = self._core.table
        table.remove_leg(leg)
        leg.path = int(held.entry.path)
        if leg.path and held.second is not None:
            leg.sent, leg.spare = held.second, leg.sent
        elif held.second is not None:
            leg.spare = held.second
        if leg.spare == leg.sent:
            leg.spare = None
        table.add_leg(leg)
        if leg.is_right:
            self._reserve(leg.sent)

    def forget(self, here: Here, before: dict[Role, FiveTuple], now: float) -> list[Action]:
        """What the device still has where the journal knows of a later spare: taken out."""
        actions: list[Action] = []
        for role, leg in here.session_legs():
            spare = before.get(role)
            if spare is not None and spare not in (leg.spare, leg.sent):
                actions.append(Remove((self._release(leg, spare, now),)))
        return actions

    def resume(self, here: Here) -> None:
        """The spares that the journal and the device know of are found again."""
        for role in Role:
            leg = here.session_leg(role)
            if leg is not None and leg.spare is not None:
                self._by_spare[leg.spare.reversed] = (here, role)
                if leg.is_right:
                    self._reserve(leg.spare)

    def _reserve(self, ends: FiveTuple) -> None:
        self._core.ports.reserve(ends.src, ends.dst, PortPair(ends.sport, ends.dport))
