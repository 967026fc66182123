"""With entries for all of it, what is not whole, plain TCP still passes as it came.

Each frame here holds, where TCP would have them, the addresses and ports of a session.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.frames import (
    ETHERNET,
    ethernet,
    ip_header,
    set_high_nibble,
    tcp_offset,
    tcp_packet,
    tcp_start,
)
from common.network import FAMILIES, FiveTuple
from common.sessions import SessionTest
from common.ways import Way, all_ways
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

VLAN, QINQ = 0x8100, 0x88A8
TCP_HEADER = 20
DYSCO_PORT = 17529
JUMBO = 8900


class WithEntries(SessionTest):
    """Base: entries for both ways in both families, and a policy for every SYN."""

    def install(self) -> None:
        super().install()
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))

    def check_untouched(self, way: Way, frames: list[bytes], name: str) -> None:
        """All of them at once: each leaves as it came."""
        for frame in frames:
            self.send(way.in_port, frame)
        self.expect({way.out_port: frames}, name=f"{name} {way.name}")


def segment(tuple_: FiveTuple) -> bytes:
    """TCP alone, of that five-tuple."""
    packet = tcp_packet(tuple_, payload=bytes(range(100)))
    return packet[tcp_start(packet) :]


class OtherProtocols(WithEntries):
    """UDP of the same ports, and TCP behind another protocol number."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            tuple_ = way.before
            header = ip_header(tuple_.src, tuple_.dst)
            frames = [
                ethernet(
                    *way.in_macs, header / UDP(sport=tuple_.sport, dport=tuple_.dport) / Raw(b"x")
                )
            ]
            # The port of Dysco's own messages makes none.
            for payload in (b"", b"DyS", b"DyXX" + bytes(60)):
                own = UDP(sport=DYSCO_PORT, dport=DYSCO_PORT) / Raw(payload)
                frames.append(ethernet(*way.in_macs, header / own))
            for protocol in (0, 1, 4, 41, 50, 132, 255):
                numbered = ip_header(tuple_.src, tuple_.dst)
                setattr(numbered, "nh" if tuple_.family == "v6" else "proto", protocol)
                frames.append(ethernet(*way.in_macs, numbered / Raw(segment(tuple_))))
            self.check_untouched(way, frames, "protocols")


class Fragments(WithEntries):
    """First, middle and last, of IPv4 and of IPv6."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            self.check_untouched(way, list(self.fragments(way)), "fragments")

    def fragments(self, way: Way) -> Iterator[bytes]:
        tuple_ = way.before
        for offset, more in ((0, True), (10, True), (20, False), (8191, False)):
            if tuple_.family == "v4":
                flags = "MF" if more else 0
                header = ip_header(tuple_.src, tuple_.dst, flags=flags, frag=offset, proto=6)
            else:
                fragment = IPv6ExtHdrFragment(nh=6, offset=offset, m=int(more), id=7)
                header = ip_header(tuple_.src, tuple_.dst) / fragment
            yield ethernet(*way.in_macs, header / Raw(segment(tuple_)))


class ExtensionHeaders(WithEntries):
    """IPv6 with anything between its header and TCP."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            tuple_ = way.before
            if tuple_.family == "v4":
                continue
            extensions = [
                IPv6ExtHdrHopByHop(nh=6),
                IPv6ExtHdrDestOpt(nh=6),
                IPv6ExtHdrRouting(nh=6, addresses=["2001:db8::7"]),
                IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(nh=6),
            ]
            frames = [
                ethernet(
                    *way.in_macs,
                    ip_header(tuple_.src, tuple_.dst) / extension / Raw(segment(tuple_)),
                )
                for extension in extensions
            ]
            self.check_untouched(way, frames, "extension headers")


class Tagged(WithEntries):
    """VLANs are networks of their own, none of ours."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            plain = way.frame(payload=b"tagged")
            frames = [
                plain[:12] + tag.to_bytes(2, "big") + b"\x00\x65" + inner + plain[12:]
                for tag, inner in ((VLAN, b""), (QINQ, b""), (QINQ, b"\x81\x00\x00\x07"))
            ]
            self.check_untouched(way, frames, "tagged")


class Truncated(WithEntries):
    """Frames that end within a header, after each of its bytes."""

    BURST = 20
    """No more at once: bmv2's queues hold 64."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            whole = way.frame(payload=b"text")
            headers = ETHERNET + tcp_offset(way.before) + TCP_HEADER
            frames = [whole[:size] for size in range(ETHERNET, headers)]
            for start in range(0, len(frames), self.BURST):
                self.check_untouched(way, frames[start : start + self.BURST], "cut")


class BadHeaders(WithEntries):
    """Header lengths that can't be, and versions that don't fit the Ethernet type."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            whole = way.frame(payload=b"text")
            at = ETHERNET + tcp_offset(way.before) + 12
            frames = [set_high_nibble(whole, at, offset) for offset in range(5)]
            if way.before.family == "v6":
                frames += [
                    set_high_nibble(whole, ETHERNET, version) for version in (0, 4, 5, 7, 15)
                ]
            else:
                first = range(0x40, 0x45)
                # Lengths that reach beyond the frame, and other versions.
                first = [*first, 0x4F, 0x05, 0x35, 0x55, 0x65, 0xF5]
                short = whole[: ETHERNET + 20 + TCP_HEADER]
                frames += [
                    short[:ETHERNET] + bytes((value,)) + short[ETHERNET + 1 :] for value in first
                ]
            self.check_untouched(way, frames, "bad headers")


class Jumbo(WithEntries):
    """Frames far beyond 1500 bytes."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            header = ip_header(way.before.src, way.before.dst) / UDP(sport=1, dport=2)
            frame = ethernet(*way.in_macs, header / Raw(bytes(JUMBO)))
            self.check_untouched(way, [frame], "UDP")
