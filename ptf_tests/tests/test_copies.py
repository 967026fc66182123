"""Copies to the controller of what opens or ends a session, and of neighbours' MACs."""

from __future__ import annotations

from common.device import PacketIn
from common.frames import ethernet, ip_header, tcp
from common.network import (
    BROADCAST,
    FAMILIES,
    FAR,
    NEXT,
    OTHER,
    PORTS,
    UPLINK,
    A,
    B,
    M,
    Reason,
    session,
    subsession,
)
from common.sessions import SessionTest
from common.ways import all_ways, inward, outward
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr
from scapy.layers.l2 import ARP

WATCHED = ("SA", "SAE", "FA", "F", "FPA", "R", "RA", "FR")
UNWATCHED = ("A", "PA", "UA", "ACE", "")
TCP_OPTIONS = [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]


class InSession(SessionTest):
    """SYN-ACK, FIN, RST: as the host sent it, or as the host gets it; the packet goes on."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            for flags in WATCHED:
                fields = {"flags": flags, "tcp_options": TCP_OPTIONS, "payload": b"rest"}
                way = outward(family)
                frame = way.frame(**fields)
                copy = PacketIn(Reason.SENT, A.port, A.id, 0, frame)
                out = {way.out_port: way.expected(**fields)}
                self.check(way.in_port, frame, out, [copy], name=f"{flags} {way.name}")
                way = inward(family)
                expected = way.expected(**fields)
                copy = PacketIn(Reason.RECEIVED, UPLINK, A.id, 0, expected)
                out = {way.out_port: expected}
                self.check(way.in_port, way.frame(**fields), out, [copy], name=f"{flags} {way}")


class LargeCopy(SessionTest):
    """The copy is whole: the payload counts for sequence numbers."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            fields = {"flags": "FPA", "payload": bytes(range(256)) * 5}
            way = outward(family)
            copy = PacketIn(Reason.SENT, A.port, A.id, 0, way.frame(**fields))
            out = {way.out_port: way.expected(**fields)}
            self.check(way.in_port, way.frame(**fields), out, [copy], name=way.name)
            way = inward(family)
            copy = PacketIn(Reason.RECEIVED, UPLINK, A.id, 0, way.expected(**fields))
            out = {way.out_port: way.expected(**fields)}
            self.check(way.in_port, way.frame(**fields), out, [copy], name=way.name)


class NoOtherSegments(SessionTest):
    """Data and ACKs never go to the controller."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            for flags in UNWATCHED:
                fields = {"flags": flags, "payload": b"x"}
                out = {way.out_port: way.expected(**fields)}
                self.check(way.in_port, way.frame(**fields), out, name=f"{flags} {way.name}")


class OutsideSessions(SessionTest):
    """What belongs to no session isn't copied, whatever its flags."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            for flags in WATCHED:
                frame = tcp(session(family, sport=1), A.mac, FAR.mac, flags=flags)
                self.check(A.port, frame, {UPLINK: frame}, name=f"out {flags} {family}")
                frame = tcp(session(family, FAR, A), FAR.mac, A.mac, flags=flags)
                self.check(UPLINK, frame, {A.port: frame}, name=f"in {flags} {family}")


class TwoHosts(SessionTest):
    """Between two hosts of this device each is told its own view of the same packet."""

    def runTest(self) -> None:
        for family in FAMILIES:
            first, hop, second = session(family), subsession(family, dst=B), session(family, OTHER)
            self.device.insert(self.outbound(A, first, hop), self.inbound(B, hop, second))
            fields = {"flags": "FA", "payload": b"bye"}
            frame = tcp(first, A.mac, FAR.mac, **fields)
            expected = tcp(second, A.mac, B.mac, **fields)
            copies = [
                PacketIn(Reason.SENT, A.port, A.id, 0, frame),
                PacketIn(Reason.RECEIVED, A.port, B.id, 0, expected),
            ]
            self.check(A.port, frame, {B.port: expected}, copies, name=family)


class WithoutRoute(SessionTest):
    """A FIN without a way on was sent all the same: its copy comes."""

    def runTest(self) -> None:
        nowhere = {"v4": "192.0.2.1", "v6": "3fff::1"}
        for family in FAMILIES:
            hop = subsession(family)._replace(dst=nowhere[family])
            self.device.insert(self.outbound(A, session(family), hop))
            frame = tcp(session(family), A.mac, FAR.mac, flags="FA")
            copy = PacketIn(Reason.SENT, A.port, A.id, 0, frame)
            self.check(A.port, frame, {}, [copy], name=family)


class Neighbours(SessionTest):
    """ARP replies and neighbour advertisements for a host of ours; the host gets them as well."""

    def runTest(self) -> None:
        macs = NEXT.mac, A.mac
        reply = ARP(op=2, psrc=NEXT.v4, pdst=A.v4, hwsrc=NEXT.mac, hwdst=A.mac)
        answer = ICMPv6ND_NA(tgt=NEXT.v6, S=1) / ICMPv6NDOptDstLLAddr(lladdr=NEXT.mac)
        advertised = ip_header(NEXT.v6, A.v6, hlim=255) / answer
        for name, frame in {
            "ARP": ethernet(*macs, reply),
            "padded ARP": ethernet(*macs, reply).ljust(60, b"\0"),
            "ND": ethernet(*macs, advertised),
        }.items():
            copy = PacketIn(Reason.NEIGHBOUR, UPLINK, A.id, 0, frame)
            self.check(UPLINK, frame, {A.port: frame}, [copy], name=name)


class NeighbourBetweenHosts(SessionTest):
    """One of our hosts tells another its MAC."""

    def runTest(self) -> None:
        reply = ARP(op=2, psrc=M.v4, pdst=B.v4, hwsrc=M.mac, hwdst=B.mac)
        frame = ethernet(M.mac, B.mac, reply)
        copy = PacketIn(Reason.NEIGHBOUR, M.port, B.id, 0, frame)
        self.check(M.port, frame, {B.port: frame}, [copy])


class NoOtherNeighbours(SessionTest):
    """Questions, what our hosts answer to others, and what is for all."""

    def runTest(self) -> None:
        question = ARP(op=1, psrc=NEXT.v4, pdst=A.v4, hwsrc=NEXT.mac)
        frame = ethernet(NEXT.mac, A.mac, question)
        self.check(UPLINK, frame, {A.port: frame}, name="ARP request")
        solicitation = ip_header(NEXT.v6, A.v6, hlim=255) / ICMPv6ND_NS(tgt=A.v6)
        frame = ethernet(NEXT.mac, A.mac, solicitation)
        self.check(UPLINK, frame, {A.port: frame}, name="neighbour solicitation")
        reply = ARP(op=2, psrc=A.v4, pdst=NEXT.v4, hwsrc=A.mac, hwdst=NEXT.mac)
        frame = ethernet(A.mac, NEXT.mac, reply)
        self.check(A.port, frame, {UPLINK: frame}, name="a host's own answer")
        gratuitous = ARP(op=2, psrc=NEXT.v4, pdst=NEXT.v4, hwsrc=NEXT.mac)
        frame = ethernet(NEXT.mac, BROADCAST, gratuitous)
        self.check(UPLINK, frame, {p: frame for p in PORTS if p != UPLINK}, name="gratuitous")
