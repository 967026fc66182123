"""What this host sends on a new path: the handshake's segments as frames, and announcements.

    SYN, with a Dysco header and the opening: it sets up the hosts between, as any session's
    SYN-ACK, ACK, RST: bare, on the leg's spare subsession
    LATCH, REVOKE: to the own data plane, which announces to the other anchor's

What is said is the member's; here is only where it goes, and by which subsession.
"""

from __future__ import annotations

from dataclasses import replace

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, Announce, Send, SetLeg, Submit
from dysco.agent.header import Header
from dysco.agent.model import Address, FiveTuple, MappingKey, OnFailure
from dysco.agent.reconfigure.control import pack_opening
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.mail import address_of
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.messages import Cutoff, Opening, SendNew
from dysco.agent.reconfigure.places import Places
from dysco.agent.reconfigure.segment import SYN, Segment
from dysco.agent.session import Leg


class NewPath:
    """Sends on the new paths that begin or end here."""

    def __init__(self, core: Core, places: Places) -> None:
        self._core = core
        self._places = places

    def send(self, here: Here, role: Role, what: SendNew, now: float) -> list[Action]:
        """A segment of the handshake. Raises SetupError if the path can't be opened."""
        leg = here.session_leg(role)
        if leg is None:
            return []
        segment, opening = what.segment, what.opening
        if opening is not None:
            return self._open(here, leg, segment, opening, now)
        if leg.spare is None:
            return []
        offered = here.offer(role) if segment.flags & SYN else None
        mac = self._core.interface_for(leg.spare.src, b"").mac
        frame = to_frame(segment, leg.spare, mac, offered=offered)
        return [Send(frame.build(), Submit.ROUTE)]

    def _open(
        self, here: Here, leg: Leg, segment: Segment, opening: Opening, now: float
    ) -> list[Action]:
        """The new path's SYN. Raises SetupError."""
        core = self._core
        session, left = here.session, here.member.left
        if left is None:
            return []
        src = leg.sent.src
        right = address_of(core.peers, left.request.right, src.version)
        if right is None:
            raise SetupError(Count.NO_ADDRESS, f"the right anchor has no IPv{src.version} address")
        stops = (*here.through, right)
        remove = self.make_spare(here, leg, stops[0], now)
        spare = leg.spare
        assert spare is not None
        mac = core.interface_for(src, b"").mac
        frame = to_frame(segment, spare, mac, offered=here.offer(Role.LEFT))
        header = Header(
            group=core.group.id,
            session_id=session.id,
            policy=session.policy,
            hop=session.position + 1,
            refuse=session.on_failure is OnFailure.REFUSE,
            nonce=core.next_nonce(),
            session=session.session,
            delivered=leg.emitted,
            subsession=spare,
            chain=stops[1:],
            opening=pack_opening(opening),
        ).encode()
        frame.payload = header + core.group.sign(header, frame.seq, b"")
        if frame.length > core.settings.mtu:
            raise SetupError(
                Count.HEADER_TOO_LONG, f"the new path's SYN takes {frame.length} bytes"
            )
        send = Send(frame.build(), Submit.ROUTE)
        # Each time: of a restart in between, the journal may know more than the device.
        entry = here.leg(Role.LEFT).entry
        second, mappings = self._places.second(leg), self._places.mappings(leg)
        return [SetLeg(leg.outbound_key, entry, second, None, mappings, remove, then=(send,))]

    def take_cutoff(self, here: Here, role: Role, cutoff: Cutoff) -> list[Action]:
        """The other anchor's announcement, from its agent's hand: to the own data plane."""
        return [
            replace(
                announced,
                src=announced.dst,
                dst=announced.src,
                cutoff=cutoff.cutoff,
                edge=cutoff.edge,
                known=cutoff.known,
            )
            for announced in self.announce(here, role, Submit.ROUTE)
        ]

    def make_spare(self, here: Here, leg: Leg, to: Address, now: float) -> tuple[MappingKey, ...]:
        """A right leg gets a spare subsession to a host: what has to go for it.

        Raises SetupError.
        """
        remove: tuple[MappingKey, ...] = ()
        if leg.spare is not None and leg.spare.dst != to:
            # After a restart: an earlier path's, which the device still had in that place.
            remove = self._places.drop(here, Role.LEFT, now)
        if leg.spare is None:
            src = leg.sent.src
            pair = self._core.ports.allocate(src, to, now)
            self._places.fill(here, leg, FiveTuple(src, pair.sport, to, pair.dport))
        return remove

    def announce(self, here: Here, role: Role, submit: Submit) -> list[Announce]:
        """The own data plane latches or revokes, and says so."""
        leg, new = here.session_leg(role), here.leg(role).entry.new
        member = here.member
        if leg is None or new is None:
            return []
        other = None
        if role is Role.LEFT and member.left is not None:
            other = member.left.request.right
        elif member.right is not None:
            other = member.right.id.left
        src = leg.sent.src
        dst = address_of(self._core.peers, other, src.version)
        if dst is None:
            return []
        mac = self._core.interface_for(src, b"").mac
        return [Announce(submit, new.token, new.epoch, src, dst, mac)]
