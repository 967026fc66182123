"""What is none of Dysco's business passes as on a wire: bridged or flooded, byte for byte."""

from __future__ import annotations

from common.base import DyscoTest
from common.frames import IP_OPTIONS, ethernet, ip_header, tcp
from common.network import (
    BROADCAST,
    FAMILIES,
    FAR,
    OTHER,
    PORTS,
    ROUTER,
    UPLINK,
    A,
    B,
    Drop,
    Host,
    M,
    address,
    session,
)
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP
from scapy.packet import Raw


def assorted(src: Host, dst: Host) -> dict[str, bytes]:
    """Frames of every kind from `src` to `dst`, without a session or a policy for any."""
    macs = src.mac, dst.mac
    result = {
        "ARP request": ethernet(*macs, ARP(op=1, psrc=src.v4, pdst=dst.v4, hwsrc=src.mac)),
        "VLAN": ethernet(*macs, bytes.fromhex("0065") + b"\x08\x00" + bytes(46), 0x8100),
        "unknown ethertype": ethernet(*macs, b"anything at all", 0x88B5),
        "LLC": ethernet(*macs, b"\x42\x42\x03" + bytes(40), 43),
        "neighbour solicitation": ethernet(
            *macs, ip_header(src.v6, dst.v6, hlim=255) / ICMPv6ND_NS(tgt=dst.v6)
        ),
        "ICMP echo": ethernet(*macs, ip_header(src.v4, dst.v4) / ICMP(type=8) / Raw(b"ping")),
        "ICMPv6 echo": ethernet(*macs, ip_header(src.v6, dst.v6) / ICMPv6EchoRequest(data=b"ping")),
        "IPv6 hop-by-hop": ethernet(
            *macs, ip_header(src.v6, dst.v6) / IPv6ExtHdrHopByHop() / UDP() / Raw(b"x")
        ),
        "IPv6 fragment": ethernet(
            *macs, ip_header(src.v6, dst.v6) / IPv6ExtHdrFragment(m=1, nh=6) / Raw(bytes(64))
        ),
        "first fragment": ethernet(
            *macs, ip_header(src.v4, dst.v4, flags="MF", proto=6) / Raw(bytes(range(64)))
        ),
        "last fragment": ethernet(
            *macs, ip_header(src.v4, dst.v4, frag=8, proto=6) / Raw(bytes(range(33)))
        ),
        "padded UDP": ethernet(*macs, ip_header(src.v4, dst.v4) / UDP() / Raw(b"x")).ljust(
            60, b"p"
        ),
        "largest": ethernet(*macs, ip_header(src.v4, dst.v4) / UDP() / Raw(bytes(1472))),
    }
    for family in FAMILIES:
        tuple_ = session(family, src, dst)
        addresses = address(src, family), address(dst, family)
        udp = ip_header(*addresses) / UDP(sport=40000, dport=80) / Raw(b"to port 80")
        result[f"UDP {family}"] = ethernet(*macs, udp)
        for flags in ("A", "SA", "FA", "R", "PA"):
            result[f"TCP {flags} {family}"] = tcp(tuple_, *macs, flags=flags, payload=b"odd")
    result["TCP with IP options"] = tcp(
        session("v4", src, dst), *macs, ip_options=IP_OPTIONS, payload=b"text"
    )
    return result


class PassTest(DyscoTest):
    """Base: many frames, each to leave as it came."""

    def check_all(self, port: int, frames: dict[str, bytes], out: int) -> None:
        for frame in frames.values():
            self.send(port, frame)
        self.expect({out: list(frames.values())})


class FromHostToNetwork(PassTest):
    def runTest(self) -> None:
        self.check_all(A.port, assorted(A, FAR), UPLINK)


class FromNetworkToHost(PassTest):
    def runTest(self) -> None:
        self.check_all(UPLINK, assorted(FAR, A), A.port)


class FromHostToHost(PassTest):
    """Both on this device: never out to the network."""

    def runTest(self) -> None:
        self.check_all(A.port, assorted(A, B), B.port)


class FromMiddlebox(PassTest):
    """All but its SYNs."""

    def runTest(self) -> None:
        self.check_all(M.port, assorted(M, FAR), UPLINK)


class ToKnownPort(DyscoTest):
    """A MAC of the network that the table knows, from a host and from another network port."""

    def runTest(self) -> None:
        self.device.insert(
            self.device.table(
                "bridge", {"dst_mac": OTHER.mac}, "bridge_to_port", {"port": OTHER.port}
            )
        )
        frame = tcp(session("v4", A, OTHER), A.mac, OTHER.mac)
        self.check(A.port, frame, {OTHER.port: frame}, name="from a host")
        frame = tcp(session("v4", FAR, OTHER), FAR.mac, OTHER.mac)
        self.check(UPLINK, frame, {OTHER.port: frame}, name="from the network")


class Flood(DyscoTest):
    """Broadcast and multicast from anywhere, unknown unicast from the network; not back."""

    def runTest(self) -> None:
        for name, dst_mac in (("broadcast", BROADCAST), ("multicast", "33:33:00:00:00:01")):
            for port in PORTS:
                frame = ethernet(A.mac, dst_mac, b"hello to all of you", 0x88B5)
                out = {other: frame for other in PORTS if other != port}
                self.check(port, frame, out, name=f"{name} from port {port}")
        for port in (UPLINK, OTHER.port):
            frame = tcp(session("v4", FAR, ROUTER), FAR.mac, "02:00:00:00:99:99")
            out = {other: frame for other in PORTS if other != port}
            self.check(port, frame, out, name=f"unknown unicast from port {port}")


class Hairpin(DyscoTest):
    """What would leave where it came in is dropped, and counted."""

    def runTest(self) -> None:
        frame = ethernet(B.mac, A.mac, b"from behind the host's own port", 0x88B5)
        with self.dropped(Drop.HAIRPIN):
            self.check(A.port, frame, {})
        # With a session for it, too: no copy, no rewriting, no way out.
        self.device.insert(self.inbound(A, session("v4", FAR, A), session("v4", OTHER, A)))
        frame = tcp(session("v4", FAR, A), B.mac, A.mac, flags="FA")
        with self.dropped(Drop.HAIRPIN):
            self.check(A.port, frame, {})


class WithoutFloodGroup(DyscoTest):
    """Before the controller defined it, what would flood goes nowhere, and unicast still passes."""

    def network(self):
        for entity in super().network():
            if not entity.packet_replication_engine_entry.HasField("multicast_group_entry"):
                yield entity

    def runTest(self) -> None:
        self.check(A.port, ethernet(A.mac, BROADCAST, b"hello", 0x88B5), {})
        frame = ethernet(A.mac, FAR.mac, b"hello", 0x88B5)
        self.check(A.port, frame, {UPLINK: frame})
