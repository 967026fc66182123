"""A NAT of the network around one host: as strict as conntrack, deaf to what nobody asked for."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from dysco.agent import packet
from dysco.agent.model import Address, FiveTuple
from dysco.agent.options import negotiated
from dysco.agent.packet import SYN
from dysco.agent.reconfigure.control import PORT, datagram, payload_of
from tests.reconfigure.agents.plane import Datagram, Packet
from tests.reconfigure.simulation.boxes import LEFT, RIGHT, Firewall

FIRST_PORT = 50_000

Sent = Packet | Datagram | bytes
Mapped = tuple[Sent, Address]


class NetworkNat:
    """Source NAT: what comes from outside without having been asked for is dropped and counted."""

    def __init__(self, inside: Address, address: IPv4Address, *, udp: bool) -> None:
        self.inside, self.address = inside, address
        self.udp = udp
        """Whether it lets any UDP through."""
        self.refused = 0
        self.tracked: dict[FiveTuple, Firewall] = {}
        self._shown: dict[FiveTuple, FiveTuple] = {}
        self._hidden: dict[FiveTuple, FiveTuple] = {}
        self._asked: set[Address] = set()

    @property
    def invalid(self) -> list[str]:
        """What conntrack does not believe."""
        return [why for firewall in self.tracked.values() for why in firewall.invalid_because]

    def through(self, what: Sent, to: Address, *, outwards: bool) -> Mapped | None:
        """A packet on the other side, and where it goes then; None: it is dropped."""
        if isinstance(what, Packet):
            return self._segment(what, outwards=outwards)
        return self._udp(what, to, outwards=outwards)

    def _udp(self, what: Datagram | bytes, to: Address, *, outwards: bool) -> Mapped | None:
        if not self.udp:
            self.refused += 1
            return None
        if outwards:
            self._asked.add(to)
            if isinstance(what, Datagram):
                return Datagram(self.address, what.dst, what.content), to
            _, payload = payload_of(what)
            return _from_port(datagram(self.address, to, bytes(6), payload), FIRST_PORT), to
        if to != self.address:
            self.refused += 1
            return None
        if isinstance(what, Datagram):
            return Datagram(what.src, self.inside, what.content), self.inside
        source, payload = payload_of(what)
        assert int.from_bytes(what[36:38], "big") == FIRST_PORT, "answered to another port"
        assert source.address in self._asked
        return datagram(source.address, self.inside, bytes(6), payload), self.inside

    def _segment(self, came: Packet, *, outwards: bool) -> Mapped | None:
        ends, segment = came.ends, came.segment
        if outwards:
            shown = self._shown.get(ends)
            if shown is None:
                if not came.is_syn:
                    self.refused += 1
                    return None
                port = FIRST_PORT + 1 + len(self._shown)
                shown = FiveTuple(self.address, port, ends.dst, ends.dport)
                self._shown[ends] = shown
                self._hidden[shown.reversed] = ends
                self.tracked[ends] = Firewall((0, 0), "network NAT")
            key, becomes = ends, shown
        else:
            hidden = self._hidden.get(ends)
            if hidden is None:
                self.refused += 1
                return None
            key, becomes = hidden, hidden.reversed
        firewall = self.tracked[key]
        side = LEFT if outwards else RIGHT
        if segment.flags & SYN and came.raw is not None:
            firewall.sides[side].scale = negotiated(came.raw.options).window_scale or 0
        why = firewall._why_invalid(firewall.sides[side], firewall.sides[1 - side], segment)
        if why:
            firewall.invalid_because.append(f"{why}: side {side} {segment}")
            return None
        return Packet(becomes, segment, came.raw), becomes.dst


def _from_port(frame: bytes, port: int) -> bytes:
    """A datagram from another port than the agents' own."""
    udp = struct.pack("!H", port) + frame[36:40] + b"\0\0" + frame[42:]
    pseudo = int.from_bytes(frame[26:34], "big") + 17 + len(udp)
    total = packet.checksum(udp, pseudo) or 0xFFFF
    assert frame[34:36] == PORT.to_bytes(2, "big")
    return frame[:34] + udp[:6] + total.to_bytes(2, "big") + udp[8:]
