"""Control messages as datagrams, both ways.

    message --> Letter, signed --> datagram to an address of that host --> Send
    PacketIn --> authentic? of our group? for the first time? --> Letter

They may be lost, repeated or late; what of them is forged, malformed or replayed is counted here.
"""

from __future__ import annotations

from dysco.agent.chain import Peers
from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, Level, PacketIn, Send, Submit, Tell
from dysco.agent.model import Address
from dysco.agent.reconfigure.control import (
    ControlError,
    ForgedError,
    Letter,
    datagram,
    decode,
    encode,
    host_number,
    payload_of,
)
from dysco.agent.reconfigure.messages import Message
from dysco.agent.session import Session
from dysco.agent.trust import ReplayGuard


class Mail:
    """Sends control messages, and opens those that come."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._guard = ReplayGuard(core.settings.replay_window, core.settings.max_senders)

    def open(self, event: PacketIn) -> Letter | Tell | None:
        """What came; Tell: why it is none. None: it came before."""
        core = self._core
        try:
            source, payload = payload_of(event.frame)
        except ControlError as error:
            return core.tell(Level.WARNING, Count.CONTROL_MALFORMED, f"control message: {error}")
        try:
            letter = decode(payload, core.group)
        except ControlError as error:
            forged = isinstance(error, ForgedError)
            count = Count.CONTROL_FORGED if forged else Count.CONTROL_MALFORMED
            return core.tell(Level.WARNING, count, f"control message from {source}: {error}")
        if not self._guard.admit(letter.sender, letter.nonce):
            core.counters[Count.CONTROL_REPLAYED] += 1
            return None
        return letter

    def post(
        self, session_id: int, to: int, message: Message, session: Session | None
    ) -> list[Action]:
        """A message to another agent; `session`: None if it is over here."""
        core = self._core
        peer = core.peers.numbered(to)
        legs = session.legs if session is not None else ()
        own = [leg.sent.src for leg in legs] or [
            a for i in core.host.interfaces for a in i.addresses if not a.is_link_local
        ]
        for src in own:
            address = address_of(core.peers, to, src.version)
            if address is not None:
                letter = Letter(session_id, host_number(core.host.name), core.next_nonce(), message)
                mac = core.interface_for(src, b"").mac
                frame = datagram(src, address, mac, encode(letter, core.group))
                return [Send(frame, Submit.ROUTE)]
        text = f"session {session_id:013x}: no way to tell {peer.name if peer else to} anything"
        return [core.tell(Level.WARNING, Count.NO_ADDRESS, text)]


def address_of(peers: Peers, number: int | None, version: int) -> Address | None:
    """A host's address of that IP version."""
    peer = peers.numbered(number) if number is not None else None
    if peer is None:
        return None
    try:
        return peers.reachable(peer, version)
    except SetupError:
        return None
