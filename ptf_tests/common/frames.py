"""Frames as bytes, built by scapy with every checksum computed in full.

What the pipeline must make of a frame is built anew, with the other five-tuple: the tests share no
arithmetic with the P4 program, which updates its checksums incrementally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.network import FiveTuple
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

ETHERNET = 14
MAGIC = b"DySC"
IP_OPTIONS = bytes.fromhex("94040000") + bytes.fromhex("0101010101010100")
"""Router alert, then no-operations up to 12 bytes."""

SYN_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
"""What Linux offers in a SYN."""

ICMP_ERRORS: dict[str, dict[str, Packet]] = {
    "v4": {
        "unreachable": ICMP(type=3, code=1),
        "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=1400),
        "source quench": ICMP(type=4, code=0),
        "time exceeded": ICMP(type=11, code=0),
        "parameter problem": ICMP(type=12, code=0),
    },
    "v6": {
        "unreachable": ICMPv6DestUnreach(code=3),
        "too big": ICMPv6PacketTooBig(mtu=1400),
        "time exceeded": ICMPv6TimeExceeded(),
        "parameter problem": ICMPv6ParamProblem(ptr=40),
    },
}


def ethernet(src_mac: str, dst_mac: str, payload: Packet | bytes, ethertype: int = 0) -> bytes:
    """A frame; the type follows from the payload if none is given."""
    header = Ether(src=src_mac, dst=dst_mac)
    if ethertype:
        header.type = ethertype
    return bytes(header / (Raw(payload) if isinstance(payload, bytes) else payload))


def ip_header(src: str, dst: str, dscp: int = 0, ip_options: bytes = b"", **fields: Any) -> Packet:
    """An IP header of the addresses' family."""
    if ":" in src:
        return IPv6(src=src, dst=dst, tc=dscp << 2, **fields)
    header = IP(src=src, dst=dst, tos=dscp << 2, id=0x1234, **fields)
    if ip_options:
        # As raw bytes, so that scapy neither reorders nor pads them.
        header.ihl = 5 + len(ip_options) // 4
        header = IP(bytes(header / b"")[:20] + ip_options)
        del header.len, header.chksum, header.proto
    return header


def tcp_packet(
    tuple_: FiveTuple,
    flags: str = "A",
    payload: bytes = b"",
    tcp_options: Sequence[Any] = (),
    **ip_fields: Any,
) -> bytes:
    """An IP packet with a TCP segment of that five-tuple."""
    header = ip_header(tuple_.src, tuple_.dst, **ip_fields)
    segment = TCP(
        sport=tuple_.sport,
        dport=tuple_.dport,
        seq=0x01020304,
        ack=0x0A0B0C0D if "A" in flags else 0,
        flags=flags,
        window=4096,
        options=list(tcp_options),
    )
    return bytes(header / segment / Raw(payload))


def tcp(tuple_: FiveTuple, src_mac: str, dst_mac: str, **fields: Any) -> bytes:
    """A frame with a TCP segment; `fields` as for `tcp_packet`."""
    ethertype = 0x86DD if tuple_.family == "v6" else 0x0800
    return ethernet(src_mac, dst_mac, tcp_packet(tuple_, **fields), ethertype)


def quote(tuple_: FiveTuple, size: int = 8, **fields: Any) -> bytes:
    """What an ICMP error quotes of a TCP packet: the IP header and `size` bytes after it."""
    packet = tcp_packet(tuple_, payload=bytes(range(200)), **fields)
    return packet[: tcp_start(packet) + size]


def translated_quote(quoted: bytes, tuple_: FiveTuple, **fields: Any) -> bytes:
    """The same quote with another five-tuple; a quoted TCP checksum stays as it was."""
    size = len(quoted) - tcp_start(quoted)
    result = bytearray(quote(tuple_, size, **fields))
    checksum = slice(tcp_start(quoted) + 16, tcp_start(quoted) + 18)
    result[checksum] = quoted[checksum]
    return bytes(result)


def icmp_error(
    kind: str, addresses: tuple[str, str], quoted: bytes, macs: tuple[str, str]
) -> bytes:
    """A frame with an ICMP error of that kind (a key of ICMP_ERRORS); source first in pairs."""
    src, dst = addresses
    family = "v6" if ":" in src else "v4"
    error = ICMP_ERRORS[family][kind].copy()
    return ethernet(*macs, ip_header(src, dst) / error / Raw(quoted))


def tcp_start(packet: bytes) -> int:
    """Where TCP starts in an IP packet."""
    return 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4


def tcp_offset(tuple_: FiveTuple) -> int:
    """Where TCP starts in a packet of that family without options."""
    return 40 if tuple_.family == "v6" else 20


def set_high_nibble(data: bytes, offset: int, value: int) -> bytes:
    """The same with another value in the high half of the byte at `offset`."""
    return data[:offset] + bytes((value << 4 | data[offset] & 15,)) + data[offset + 1 :]


def add_to_word(data: bytes, offset: int, amount: int) -> bytes:
    """Ones' complement addition to the 16-bit word at `offset`; corrupts a checksum by `amount`."""
    word = int.from_bytes(data[offset : offset + 2], "big") + amount
    word = (word & 0xFFFF) + (word >> 16)
    return data[:offset] + word.to_bytes(2, "big") + data[offset + 2 :]


def word_at(data: bytes, offset: int) -> int:
    """The 16-bit word at `offset`."""
    return int.from_bytes(data[offset : offset + 2], "big")
