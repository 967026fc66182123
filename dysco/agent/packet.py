"""TCP segments in Ethernet frames: parsed, changed, built again with right checksums.

    | Ethernet 14 | IPv4 20-60 or IPv6 40 | TCP 20 | options 0-40 | payload |

Only what an agent handles: plain TCP over IP, without tags, fragments or extension headers; the
P4 program punts nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from dysco.agent.model import Address, FiveTuple, MacAddress

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

MAX_OPTIONS = 40
"""Bytes of options that a TCP header can hold."""

_ETHERNET = 14
_IPV4 = b"\x08\x00"
_IPV6 = b"\x86\xdd"
_TCP = 6
_TCP_HEADER = struct.Struct("!HHIIHHHH")


class PacketError(Exception):
    """The frame isn't a TCP segment that can be understood; the text says what is wrong."""


class ChecksumError(PacketError):
    """The segment was damaged on its way."""


@lru_cache(maxsize=16384)
def address(packed: bytes) -> Address:
    """Four or sixteen bytes as an address."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def checksum(data: bytes, initial: int = 0) -> int:
    """The Internet checksum (RFC 1071) of some bytes; `initial` is added to their sum.

    A sum of 16-bit words with end-around carry is the number itself modulo 2**16 - 1.
    """
    if len(data) % 2:
        data += b"\0"
    return 0xFFFF - ((int.from_bytes(data, "big") + initial) % 0xFFFF or 0xFFFF)


@dataclass(slots=True)
class Segment:
    """One TCP segment. Change what must change, then `build()`."""

    dst_mac: MacAddress
    src_mac: MacAddress
    network: bytes
    """The IP header as it came; `build` writes lengths, addresses and checksum anew."""
    tuple: FiveTuple
    seq: int
    ack: int
    flags: int
    """The low 12 bits of TCP's flag word."""
    window: int
    urgent: int
    options: bytes
    """A multiple of four bytes."""
    payload: bytes

    @property
    def is_syn(self) -> bool:
        """True for the first SYN of a connection, not for a SYN-ACK."""
        return self.flags & (SYN | ACK | RST | FIN) == SYN

    @property
    def length(self) -> int:
        """Bytes of the whole IP packet."""
        return len(self.network) + 20 + len(self.options) + len(self.payload)

    def copy(self) -> Segment:
        """Another segment, equal to this one."""
        return Segment(
            self.dst_mac,
            self.src_mac,
            self.network,
            self.tuple,
            self.seq,
            self.ack,
            self.flags,
            self.window,
            self.urgent,
            self.options,
            self.payload,
        )

    def build(self) -> bytes:
        """The frame, with all lengths and checksums right."""
        ends = self.tuple
        src, dst = ends.src.packed, ends.dst.packed
        length = 20 + len(self.options) + len(self.payload)
        head = bytearray(self.network)
        if len(src) == 4:
            head[2:4] = (len(head) + length).to_bytes(2, "big")
            head[10:12] = b"\0\0"
            head[12:20] = src + dst
            head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
            ethertype = _IPV4
        else:
            head[4:6] = length.to_bytes(2, "big")
            head[8:40] = src + dst
            ethertype = _IPV6
        words = (5 + len(self.options) // 4) << 12 | self.flags
        tcp = bytearray(
            _TCP_HEADER.pack(
                ends.sport, ends.dport, self.seq, self.ack, words, self.window, 0, self.urgent
            )
        )
        tcp += self.options
        tcp += self.payload
        pseudo = int.from_bytes(src + dst, "big") + _TCP + length
        tcp[16:18] = checksum(bytes(tcp), pseudo).to_bytes(2, "big")
        return b"".join((self.dst_mac, self.src_mac, ethertype, head, tcp))


def parse(frame: bytes, *, verify: bool = True) -> Segment:
    """The segment in a frame.

    With `verify` a wrong TCP checksum or a cut packet is an error; without, as is right for copies
    (their payload may be cut off, their checksum is the hardware's affair), the payload is what is
    there. Raises PacketError.
    """
    ethertype = frame[12:14]
    if ethertype == _IPV4:
        network, end = _ipv4(frame)
        src, dst = network[12:16], network[16:20]
    elif ethertype == _IPV6:
        network, end = _ipv6(frame)
        src, dst = network[8:24], network[24:40]
    else:
        raise PacketError(f"ethertype 0x{ethertype.hex()} is not IP")
    start = _ETHERNET + len(network)
    if end > len(frame):
        if verify:
            raise PacketError(f"the packet ends at byte {end} of a {len(frame)}-byte frame")
        end = len(frame)
    if end - start < 20:
        raise PacketError(f"{end - start} bytes are too few for a TCP header")
    sport, dport, seq, ack, words, window, _, urgent = _TCP_HEADER.unpack_from(frame, start)
    options_end = start + (words >> 12) * 4
    if not start + 20 <= options_end <= end:
        raise PacketError(f"TCP data offset {words >> 12} in a segment of {end - start} bytes")
    if verify:
        pseudo = int.from_bytes(src + dst, "big") + _TCP + end - start
        if checksum(frame[start:end], pseudo) != 0:
            raise ChecksumError("the TCP checksum is wrong")
    return Segment(
        frame[:6],
        frame[6:12],
        network,
        FiveTuple(address(src), sport, address(dst), dport),
        seq,
        ack,
        words & 0xFFF,
        window,
        urgent,
        frame[start + 20 : options_end],
        frame[options_end:end],
    )


def _ipv4(frame: bytes) -> tuple[bytes, int]:
    """The IPv4 header, and where the packet ends in the frame."""
    if len(frame) < _ETHERNET + 20:
        raise PacketError(f"{len(frame)} bytes are too few for IPv4")
    size = (frame[14] & 0x0F) * 4
    length = int.from_bytes(frame[16:18], "big")
    if frame[14] >> 4 != 4 or size < 20 or length < size or len(frame) < _ETHERNET + size:
        raise PacketError(f"IPv4 header 0x{frame[14]:02x} with length {length}")
    if frame[23] != _TCP:
        raise PacketError(f"IPv4 protocol {frame[23]} is not TCP")
    if int.from_bytes(frame[20:22], "big") & 0x3FFF:
        raise PacketError("an IPv4 fragment")
    return frame[_ETHERNET : _ETHERNET + size], _ETHERNET + length


def _ipv6(frame: bytes) -> tuple[bytes, int]:
    """The IPv6 header, and where the packet ends in the frame."""
    if len(frame) < _ETHERNET + 40:
        raise PacketError(f"{len(frame)} bytes are too few for IPv6")
    if frame[14] >> 4 != 6:
        raise PacketError(f"IPv6 header that starts 0x{frame[14]:02x}")
    if frame[20] != _TCP:
        raise PacketError(f"IPv6 next header {frame[20]} is not TCP")
    return frame[_ETHERNET : _ETHERNET + 40], _ETHERNET + 40 + int.from_bytes(frame[18:20], "big")


def refusal(syn: Segment) -> Segment:
    """The RST that refuses a SYN (RFC 9293, 3.10.7.1), for who sent it.

    It acknowledges the SYN alone: right also where the SYN's data was left behind on the way.
    """
    ends = syn.tuple.reversed
    acknowledged = (syn.seq + 1) & 0xFFFFFFFF
    network = ip_header(ends)
    return Segment(
        syn.src_mac, syn.dst_mac, network, ends, 0, acknowledged, RST | ACK, 0, 0, b"", b""
    )


def abort(ends: FiveTuple, isn: int, src_mac: MacAddress) -> Segment:
    """The RST that takes a SYN back, from where it came: right behind it in its direction."""
    seq = (isn + 1) & 0xFFFFFFFF
    return Segment(bytes(6), src_mac, ip_header(ends), ends, seq, 0, RST, 0, 0, b"", b"")


def ip_header(ends: FiveTuple) -> bytes:
    """An IP header whose lengths, addresses and checksum are still to be written."""
    if ends.src.version == 4:
        return struct.pack("!BBHHHBBH8x", 0x45, 0, 0, 0, 0x4000, 64, _TCP, 0)
    return struct.pack("!IHBB32x", 6 << 28, 0, _TCP, 64)
