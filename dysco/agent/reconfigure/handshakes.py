"""Segments of new paths' handshakes, as they come from the network, to the member.

    SYN with an opening --> the right anchor: its leg gets a spare subsession
    SYN-ACK, ACK, RST   --> the anchor whose spare subsession they come on

What belongs to no spare, or to a path that was given up, is counted and dropped.
"""

from __future__ import annotations

from dysco.agent import packet
from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, Level
from dysco.agent.header import Header
from dysco.agent.reconfigure.control import ControlError, read_opening
from dysco.agent.reconfigure.frames import to_segment
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.right import RightState


class Handshakes:
    """Takes what comes on new paths."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._places = means.places
        self._given_up = means.given_up
        self._orders = orders

    def syn(self, header: Header, arrived: packet.Segment, now: float) -> list[Action] | None:
        """The SYN of a new path that ends here; None: it is not for us."""
        here = self._registry.get(header.session_id)
        try:
            opening = read_opening(header.opening)
        except ControlError as error:
            return [self._core.tell(Level.WARNING, Count.HEADER_MALFORMED, str(error))]
        if self._given_up.knows(header.session_id, opening.id):
            return self._unknown()
        if here is not None and here.member.has_ended(opening.id):
            # It was sent again, and came late: its path is in use by now, or was given up.
            return self._unknown()
        right = here.member.right if here is not None else None
        if here is None or right is None or right.id != opening.id:
            return None
        if here.resuming:
            return []
        leg = here.session.left
        if leg is None:
            return None
        spare = arrived.tuple.reversed
        if leg.spare not in (None, spare) and right.state is RightState.PREPARED:
            return self._unknown()
        self._places.fill(here, leg, spare)
        here.session.note_sender(spare, header.subsession)
        orders = here.member.new_path(Role.RIGHT, to_segment(arrived), opening)
        return self._orders.do(here, orders, now)

    def segment(self, segment: packet.Segment, now: float) -> list[Action]:
        """A segment of a new path's handshake, as the network has it."""
        found = self._places.find(segment.tuple)
        if found is None:
            return self._unknown()
        here, role = found
        if here.resuming:
            return []
        return self._orders.do(here, here.member.new_path(role, to_segment(segment)), now)

    def _unknown(self) -> list[Action]:
        self._core.counters[Count.NEW_PATH_UNKNOWN] += 1
        return []
