"""Segments of every shape in a session: all but the five-tuple stays as it was."""

from __future__ import annotations

from typing import Any

from common.device import PacketIn
from common.frames import (
    ETHERNET,
    IP_OPTIONS,
    SYN_OPTIONS,
    ethernet,
    ip_header,
    set_high_nibble,
    tcp,
    tcp_offset,
)
from common.network import FAMILIES, FAR, UPLINK, A, FiveTuple, Reason, session
from common.sessions import SessionTest
from common.ways import all_ways, outward
from scapy.layers.inet import TCP

JUMBO = 8900


class Jumbo(SessionTest):
    """Frames far beyond 1500 bytes."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            fields = {"payload": bytes(range(256)) * (JUMBO // 256)}
            out = {way.out_port: way.expected(**fields)}
            self.check(way.in_port, way.frame(**fields), out, name=way.name)


class OtherFields(SessionTest):
    """DSCP, ECN, flow label, TTL, window, urgent pointer and reserved bits, with extreme values."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            is_v6 = way.before.family == "v6"
            for fields in (
                ({"fl": 0xABCDE}, {"hlim": 1}) if is_v6 else ({"ttl": 1}, {"flags": "DF"})
            ):
                frame, expected = (
                    ethernet(*macs, ip_header(ends.src, ends.dst, dscp=63, **fields) / odd(ends))
                    for macs, ends in ((way.in_macs, way.before), (way.out_macs, way.after))
                )
                out = {way.out_port: expected}
                self.check(way.in_port, frame, out, name=f"{fields} {way.name}")


class IpOptions(SessionTest):
    """IPv4 options of every length that there can be."""

    def runTest(self) -> None:
        self.install()
        way = outward("v4")
        for words in range(1, 11):
            fields: dict[str, Any] = {"ip_options": (IP_OPTIONS * 4)[: words * 4]}
            fields["payload"] = b"odd"
            out = {UPLINK: way.expected(**fields)}
            self.check(way.in_port, way.frame(**fields), out, name=f"{words} words")


class OptionsBeyondTheEnd(SessionTest):
    """TCP options that reach beyond the frame: the ports are there; what else, the host finds."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            at = ETHERNET + tcp_offset(way.before) + 12
            frame, expected = (
                set_high_nibble(built, at, 15) for built in (way.frame(), way.expected())
            )
            self.check(way.in_port, frame, {way.out_port: expected}, name=way.name)
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))
            syn = tcp(session(family, sport=1), A.mac, FAR.mac, flags="S", tcp_options=SYN_OPTIONS)
            punted = PacketIn(Reason.HOST_SYN, A.port, A.id, 4, syn[:-7])
            self.check(A.port, syn[:-7], {}, [punted], name=f"SYN {family}")


def odd(ends: FiveTuple) -> TCP:
    """A segment whose every other field is extreme."""
    return TCP(
        sport=ends.sport,
        dport=ends.dport,
        seq=0xFFFFFFFF,
        ack=0,
        flags="PAUEC",
        reserved=7,
        window=0,
        urgptr=0xFFFF,
    )
