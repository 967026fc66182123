"""What the device says of legs: their registers and news, refusals, segments across a cutoff.

    LegReport  --> registers --> what waited for them --> the member: news, or a look at the leg
    LegRefused --> the reconfiguration goes back
    SPLIT      --> SplitAt: the agent knows the cutoff, the device can't cut

Of legs that no reconfiguration has to do with, nothing is expected; it is counted.
"""

from __future__ import annotations

from dysco.agent import packet
from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import (
    Action,
    LegNews,
    LegRefused,
    LegReport,
    Level,
    PacketIn,
    SplitAt,
)
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Member, Order, Role
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.state import Registers, switching


class Reports:
    """Takes what the device says."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._turns = means.turns
        self._holds = means.holds
        self._orders = orders

    def report(self, event: LegReport, now: float) -> list[Action]:
        """The registers of a leg."""
        leg = self._core.table.leg_of(event.key)
        here = self._registry.at(leg)
        if leg is None or here is None:
            self._core.counters[Count.UNEXPECTED] += 1
            return []
        role = here.role_of(leg)
        here.registers[role] = event.registers
        actions: list[Action] = []
        for todo in here.waiting.pop(role, []):
            actions += todo(now)
        actions += self._holds.news(here, role, event.news, now)
        if here.resuming:
            return actions
        actions += self._orders.do(here, here.member.looked(_all(here)), now)
        orders = _news(here.member, role, event.news) or here.member.refresh(role)
        return actions + self._orders.do(here, orders, now)

    def refused(self, event: LegRefused, now: float) -> list[Action]:
        """The device refused a leg's constants."""
        core = self._core
        leg = core.table.leg_of(event.key)
        here = self._registry.at(leg)
        if leg is None or here is None:
            return []
        text = f"{leg.session}: the device refused a leg's constants: {event.why}"
        told = core.tell(Level.WARNING, Count.LEG_REFUSED, text)
        role = here.role_of(leg)
        here.waiting.pop(role, None)
        why, left = f"the device refused: {event.why}", here.member.left
        if moved := here.member.state_failed(why):
            return [told, *self._orders.do(here, moved, now)]
        if role is Role.RIGHT:
            # The left anchor hears nothing, and gives up.
            return [told]
        if self._turns.is_beginning(here) and (left is None or left.is_over):
            return [told, *self._turns.not_begun(here, why, now)]
        return [told, *self._orders.do(here, here.member.cancel(why), now)]

    def held(self, event: PacketIn, segment: packet.Segment, now: float) -> list[Action]:
        """A host's segment on a leg whose gate holds."""
        leg = self._core.table.by_emitted.get(segment.tuple)
        here = self._registry.at(leg)
        if leg is None or here is None:
            self._core.counters[Count.UNEXPECTED] += 1
            return []
        return self._holds.add(here, here.role_of(leg), segment, event.port, now)

    def split(self, event: PacketIn, segment: packet.Segment) -> list[Action]:
        """A host's segment that lies across a cutoff."""
        leg = self._core.table.by_emitted.get(segment.tuple)
        here = self._registry.at(leg)
        if leg is None or here is None:
            self._core.counters[Count.UNEXPECTED] += 1
            return []
        view = here.leg(here.role_of(leg))
        cutoff = view.entry.old.floor
        if switching(view.entry, view.registers) is not None or cutoff is None:
            cutoff = view.registers.cutoff_out
        return [SplitAt(event.frame, cutoff, event.port)]


def _all(here: Here) -> tuple[Registers, ...]:
    """What is known of all legs: a report replaces it and changes nothing."""
    return tuple(here.registers[role] for role in Role if role in here.registers)


def _news(member: Member, role: Role, news: LegNews) -> list[Order]:
    orders: list[Order] = []
    if news & LegNews.CLOSING:
        orders += member.closing(role)
    if news & LegNews.REVOKED and role is Role.RIGHT:
        orders += member.revoked()
    if news & LegNews.ANNOUNCED:
        orders += member.announced(role)
    if news & LegNews.DRAINED:
        orders += member.drained(role)
    return orders
