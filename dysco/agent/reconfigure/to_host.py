"""Segments to the host in its peer's name: a window update, and the RST when it leaves a chain."""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.events import Action, Send, Submit
from dysco.agent.reconfigure import departure
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.legs import Legs, linger
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.segment import RST, Segment
from dysco.agent.session import Leg


class ToHost:
    """Sends to the host, as if it came on one of its legs."""

    def __init__(self, core: Core, legs: Legs) -> None:
        self._core = core
        self._legs = legs

    def window_update(self, here: Here, role: Role) -> list[Action]:
        """The host may send as far as the other anchor's host takes it."""
        leg, view = here.session_leg(role), here.leg(role)
        if leg is None:
            return []
        stamps = here.ends(role).timestamps
        empty = Segment(0, 0, 0, 0, tsval=view.registers.ts_sent if stamps else None)
        return [self._send(leg, departure.answer(view.entry, view.registers, empty))]

    def leave(self, here: Here) -> list[Action]:
        """The box forgot its connections: their entries stay for what is late, and then go."""
        return [linger(here)]

    def close(self, here: Here, now: float) -> list[Action]:
        """Reset the box's connections: exactly where its last ACK was, which conntrack believes."""
        actions = self.leave(here)
        for role in Role:
            leg = here.session_leg(role)
            if leg is None:
                continue

            def close(now: float, role: Role = role, leg: Leg = leg) -> list[Action]:
                reset = Segment(here.leg(role).registers.rcv_ack, 0, RST, 0)
                return [self._send(leg, reset)]

            actions += self._legs.with_registers(here, role, close, now)
        return actions

    def _send(self, leg: Leg, segment: Segment) -> Send:
        interface = self._core.interface_for(leg.sent.src, b"")
        frame = to_frame(segment, leg.emitted.reversed, bytes(6), interface.mac)
        return Send(frame.build(), Submit.PORT, interface.port)
