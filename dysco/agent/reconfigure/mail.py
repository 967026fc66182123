"""Control messages both ways: as datagrams, or on the session's own subsession.

    message --> Letter, signed --> datagram to an address of that host             --> Send
                               --> segment of the subsession that leads there      --> Send
    PacketIn --> authentic? of our group? for the first time? --> Letter, and how it came

A datagram is tried first, unless a NAT of the network hides the other host; where two questions
were not answered, both ways are tried. Each agent learns from how the other writes. All may be
lost, repeated or late; what of it is forged, malformed or replayed is counted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from dysco.agent import packet
from dysco.agent.chain import Peers
from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, Level, PacketIn, Send, Submit, Tell
from dysco.agent.model import Address, FiveTuple
from dysco.agent.reconfigure import in_band
from dysco.agent.reconfigure.control import (
    ControlError,
    Correspondent,
    ForgedError,
    Letter,
    datagram,
    decode,
    encode,
    host_number,
    payload_of,
)
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.messages import (
    AskRevoke,
    CancelLock,
    Drained,
    Message,
    Release,
    RequestLock,
)
from dysco.agent.trust import ReplayGuard

_QUESTIONS = (RequestLock, CancelLock, Release, Drained, AskRevoke)
"""They are answered, or said again."""
PATIENT = 2
"""So many questions may be without an answer before they take both ways."""
MAX_ASKED = 4096
"""Hosts that are asked something; of more, the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A letter, and how it came."""

    letter: Letter
    source: Correspondent | None
    """Of a datagram; None: it came in band."""


class Mail:
    """Sends control messages, and opens those that come."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._guard = ReplayGuard(core.settings.replay_window, core.settings.max_senders)
        self._asked: dict[tuple[int, int], int] = {}
        """Questions without an answer, by session and host."""

    # What comes.

    def open(self, event: PacketIn) -> Arrived | Tell | None:
        """What came; Tell: why it is none. None: it came before."""
        core = self._core
        try:
            segment = _segment_of(event.frame)
            source, payload = (None, segment.payload) if segment else payload_of(event.frame)
        except ControlError as error:
            return core.tell(Level.WARNING, Count.CONTROL_MALFORMED, f"control message: {error}")
        try:
            letter = decode(payload, core.group)
        except ControlError as error:
            forged = isinstance(error, ForgedError)
            count = Count.CONTROL_FORGED if forged else Count.CONTROL_MALFORMED
            where = segment.tuple if segment is not None else source
            return core.tell(Level.WARNING, count, f"control message from {where}: {error}")
        if not self._guard.admit(letter.sender, letter.nonce):
            core.counters[Count.CONTROL_REPLAYED] += 1
            return None
        self._asked.pop((letter.session, letter.sender), None)
        if segment is not None:
            core.counters[Count.CONTROL_IN_BAND] += 1
            leg = core.table.by_arriving.get(segment.tuple)
            if leg is not None and leg.session.id == letter.session:
                leg.session.in_band.add(leg.sent)
        return Arrived(letter, source)

    # What goes.

    def post(self, here: Here, to: int, message: Message) -> list[Action]:
        """A message about a session that lives here, to another agent."""
        number = here.session.id
        if here.is_over:
            return self.post_stranger(number, to, message)
        lost = self._lost(number, to, message)
        ends, only = self._subsession(here, to)
        actions: list[Action] = []
        if ends is not None and (only or lost):
            actions.append(self._in_band(here, ends, self._sign(number, message)))
        if not only or lost or not actions:
            own = tuple(leg.sent.src for leg in here.session.legs)
            actions += self._directly(number, to, message, own)
        return actions

    def post_stranger(self, number: int, to: int, message: Message) -> list[Action]:
        """Likewise, about a session that is over here."""
        self._lost(number, to, message)
        interfaces = self._core.host.interfaces
        own = tuple(a for i in interfaces for a in i.addresses if not a.is_link_local)
        return self._directly(number, to, message, own)

    def answer(self, to: Arrived, message: Message) -> list[Action]:
        """Likewise, to who has just written: back to where that came from."""
        letter, source = to.letter, to.source
        if source is None or self._core.peers.at(source.address) is not None:
            return self.post_stranger(letter.session, letter.sender, message)
        payload = self._sign(letter.session, message)
        for interface in self._core.host.interfaces:
            for own in interface.addresses:
                if own.version == source.address.version and not own.is_link_local:
                    frame = datagram(own, source.address, interface.mac, payload, source.port)
                    return [Send(frame, Submit.ROUTE)]
        return []

    def _sign(self, session: int, message: Message) -> bytes:
        core = self._core
        own = host_number(core.host.name)
        return encode(Letter(session, own, core.next_nonce(), message), core.group)

    def _lost(self, session: int, to: int, message: Message) -> bool:
        """True if earlier questions were not answered; counts this one."""
        if not isinstance(message, _QUESTIONS):
            return False
        asked = self._asked.pop((session, to), 0)
        self._asked[session, to] = asked + 1
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        return asked >= PATIENT

    def _subsession(self, here: Here, to: int) -> tuple[FiveTuple | None, bool]:
        """The one that leads to that host, and whether it is the only way there."""
        session = here.session
        legs = session.legs
        ends = next((leg.sent for leg in legs if here.at(leg.sent) == to), None)
        if ends is None:
            ends = next((old for old in here.last if here.at(old) == to), None)
        return ends, ends in session.hidden or ends in session.in_band

    def _in_band(self, here: Here, ends: FiveTuple, payload: bytes) -> Send:
        interface = self._core.interface_for(ends.src, b"")
        at = here.last.get(ends)
        if at is not None:
            frame = in_band.segment(ends, interface.mac, payload, at)
            return Send(frame.build(), Submit.ROUTE)
        emitted = next(leg.emitted for leg in here.session.legs if leg.sent == ends)
        frame = in_band.segment(emitted, interface.mac, payload)
        return Send(frame.build(), Submit.IN_BAND, interface.port)

    def _directly(
        self, session: int, to: int, message: Message, own: tuple[Address, ...]
    ) -> list[Action]:
        core = self._core
        for src in own:
            address = address_of(core.peers, to, src.version)
            if address is not None:
                mac = core.interface_for(src, b"").mac
                frame = datagram(src, address, mac, self._sign(session, message))
                return [Send(frame, Submit.ROUTE)]
        peer = core.peers.numbered(to)
        text = f"session {session:013x}: no way to tell {peer.name if peer else to} anything"
        return [core.tell(Level.WARNING, Count.NO_ADDRESS, text)]


def _segment_of(frame: bytes) -> packet.Segment | None:
    """The segment that bears a message in band; None: it is no TCP. Raises ControlError."""
    if frame[12:14] == b"\x08\x00" and frame[23:24] != b"\x06":
        return None
    if frame[12:14] == b"\x86\xdd" and frame[20:21] != b"\x06":
        return None
    try:
        segment = packet.parse(frame)
    except packet.PacketError as error:
        raise ControlError(str(error)) from error
    if not in_band.is_in_band(segment):
        raise ControlError("a segment without our option")
    return segment


def address_of(peers: Peers, number: int | None, version: int) -> Address | None:
    """A host's address of that IP version."""
    peer = peers.numbered(number) if number is not None else None
    if peer is None:
        return None
    try:
        return peers.reachable(peer, version)
    except SetupError:
        return None
