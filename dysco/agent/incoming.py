"""A SYN with a Dysco header, for the host: checked, stripped, delivered.

    header whole? --> of our group, authentic? --> for us, first time? --> session new or known
        --> mappings of the left leg --> SYN with the session's five-tuple to the host

What fails before "known" is dropped; after that, the previous host is told by a RST.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, Level, PacketIn, Send, Submit
from dysco.agent.header import Header, HeaderError, decode
from dysco.agent.model import OnFailure
from dysco.agent.options import add_tag, negotiated, take_tag
from dysco.agent.packet import Segment, refusal
from dysco.agent.reconfigure.reconfigurer import Reconfigurer
from dysco.agent.session import SETTING_UP, Leg, Session, State
from dysco.agent.trust import TAG_SIZE


class Incoming:
    """What becomes of the SYNs that other agents send."""

    def __init__(self, core: Core, reconfigurer: Reconfigurer) -> None:
        self._core = core
        self._reconfigurer = reconfigurer

    def syn(self, packet: PacketIn, segment: Segment, now: float) -> list[Action]:
        """A SYN as it came from the network."""
        core = self._core
        try:
            header, length = self._open(segment)
        except HeaderError as error:
            text = f"header in {segment.tuple} from port {packet.port}: {error}"
            return [core.tell(Level.WARNING, error.count, text)]
        actions: list[Action] = []
        if header.subsession != segment.tuple:
            core.counters[Count.NETWORK_NAT] += 1
        arrived = segment.copy()
        arrived.payload = b""
        segment.payload = segment.payload[length:]
        segment.tuple = header.delivered
        segment.options, _ = take_tag(segment.options)
        if header.opening:
            done = self._reconfigurer.syn(header, arrived, now)
            if done is not None:
                return done
        try:
            known = self._known(header)
            if known is None:
                core.check_room()
                self._check_end(header)
        except SetupError as error:
            text = f"session {header.session_id:013x} ({header.session}): {error}"
            return [core.tell(Level.WARNING, error.count, text), *self.refuse(arrived)]
        if known is not None and self._same(known, header, arrived):
            session = known
            if self._is_too_soon(session.left, segment, now):
                core.counters[Count.TOO_SOON] += 1
                return []
            core.counters[Count.RETRANSMITTED] += 1
        else:
            if known is not None:
                actions += core.release(known, Count.REPLACED, now)
            session, more = self._accept(header, arrived, now)
            actions += more
        session.nonce = header.nonce
        return actions + self._hand_over(session, arrived, segment, now)

    def _hand_over(
        self, session: Session, arrived: Segment, segment: Segment, now: float
    ) -> list[Action]:
        """The SYN to the host, once its mappings are there."""
        core = self._core
        left = session.left
        if left is None:
            return []
        if left.isn != segment.seq:
            left.start(segment.seq, negotiated(segment.options, segment.flags))
        left.syn_at = now
        if session.state in SETTING_UP and session.right is None:
            session.syn = arrived
        delivered, told = self._deliver(session, arrived, segment)
        setting_up = session.state in SETTING_UP
        return [*told, core.install(left, delivered) if setting_up else delivered]

    def _is_too_soon(self, left: Leg | None, segment: Segment, now: float) -> bool:
        return (
            left is not None
            and left.isn == segment.seq
            and now - left.syn_at < self._core.settings.syn_spacing
        )

    def _open(self, segment: Segment) -> tuple[Header, int]:
        """The header of a SYN, once it is known to be genuine, ours and fresh.

        Raises HeaderError.
        """
        core = self._core
        payload = segment.payload
        header, length = decode(payload)
        named = f"session {header.session_id:013x} ({header.session})"
        if header.group != core.group.id:
            raise HeaderError(
                Count.HEADER_GROUP, f"{named} is of group {header.group.hex()}, unknown here"
            )
        signed = length - TAG_SIZE
        if not core.group.verify(
            payload[:signed], segment.seq, payload[length:], payload[signed:length]
        ):
            raise HeaderError(Count.HEADER_FORGED, f"{named} is not authentic")
        if not core.owns(header.subsession.dst):
            raise HeaderError(
                Count.HEADER_MISDIRECTED, f"{named} was sent to {header.subsession.dst}"
            )
        if not core.guard.admit(header.subsession.src, header.nonce):
            raise HeaderError(
                Count.HEADER_REPLAYED,
                f"{named}: number {header.nonce.epoch}/{header.nonce.number} came before",
            )
        if header.hop > core.settings.max_hops:
            raise HeaderError(Count.SESSION_LOOP, f"{named} crossed {header.hop} hosts")
        return header, length

    def _known(self, header: Header) -> Session | None:
        """The session, if it was here before; raises SetupError if it comes round."""
        session = self._core.table.sessions.get(header.session_id)
        if session is None:
            return None
        if header.opening and session.opening != header.opening:
            # The new path of a session that lives here: to end it is not ours.
            if self._reconfigurer.takes_again(session):
                return session
            raise SetupError(Count.SESSION_LOOP, "no new path of it is expected here")
        if session.session != header.session:
            raise SetupError(Count.SESSION_LOOP, f"its number belongs to {session.session} here")
        if session.position != header.hop:
            raise SetupError(
                Count.SESSION_LOOP,
                f"this host is number {session.position} of its chain and now number {header.hop}",
            )
        return session

    def _check_end(self, header: Header) -> None:
        """Raises SetupError if an end host gets what is not for it."""
        host = self._core.host
        if not host.is_middlebox and not self._core.owns(header.delivered.dst):
            raise SetupError(
                Count.WRONG_HOST, f"{header.delivered.dst} is not {host.name!r}, an end host"
            )

    @staticmethod
    def _same(session: Session, header: Header, arrived: Segment) -> bool:
        """True if a known session comes the way that it came before."""
        return (
            session.received == header.delivered
            and session.previous == arrived.tuple
            and session.opening == header.opening
        )

    def _accept(self, header: Header, arrived: Segment, now: float) -> tuple[Session, list[Action]]:
        """The record of a new session."""
        core = self._core
        host = core.host
        ends_here = not header.chain and core.owns(header.delivered.dst)
        session = Session(
            id=header.session_id,
            session=header.session,
            policy=header.policy,
            on_failure=OnFailure.REFUSE if header.refuse else OnFailure.DIRECT,
            position=header.hop,
            rest=header.chain,
            created=now,
            state=State.RECEIVED,
            chain=tuple(map(core.peers.name_of, header.chain)),
            opening=header.opening,
            tag=core.new_tag() if host.is_middlebox and not ends_here else None,
            sender=header.subsession.src,
            nonce=header.nonce,
        )
        session.left = Leg(
            session,
            host.id,
            header.delivered.reversed,
            arrived.tuple.reversed,
            arrived.seq,
            is_right=False,
            offered=negotiated(arrived.options, arrived.flags),
        )
        session.note_sender(session.left.sent, header.subsession)
        actions = core.clear_conflicts(session.left, now)
        core.table.add(session)
        if session.tag is not None:
            core.table.await_emission(header.delivered, session)
        core.counters[Count.RECEIVED] += 1
        actions.append(core.timer(session, core.settings.pending_timeout))
        return session, actions

    def _deliver(
        self, session: Session, arrived: Segment, segment: Segment
    ) -> tuple[Send, list[Action]]:
        """The SYN as the host gets it."""
        core = self._core
        told: list[Action] = []
        if session.tag is not None:
            tagged = add_tag(segment.options, session.tag)
            if tagged is None:
                text = f"{session}: no room for the tag beside {len(segment.options)} option bytes"
                told.append(core.tell(Level.DEBUG, Count.TAG_NO_ROOM, text))
            else:
                segment.options = tagged
        interface = core.interface_for(arrived.tuple.dst, segment.dst_mac)
        segment.dst_mac = interface.mac
        return Send(segment.build(), Submit.PORT, interface.port), told

    @staticmethod
    def refuse(arrived: Segment) -> list[Action]:
        """A RST to the host before: its agent hands it on as the session's."""
        return [Send(refusal(arrived).build(), Submit.ROUTE)]
