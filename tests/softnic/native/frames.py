"""Frames for the tests, and checks of their checksums."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

MAC_A = bytes.fromhex("02000000000a")
MAC_B = bytes.fromhex("02000000000b")


def csum(data: bytes) -> int:
    """Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(payload: bytes, kind: int = 0x0800, dst: bytes = MAC_B, src: bytes = MAC_A) -> bytes:
    return dst + src + struct.pack(">H", kind) + payload


def ipv4(
    payload: bytes,
    *,
    proto: int = 17,
    src: str = "10.0.0.1",
    dst: str = "10.0.0.2",
    options: bytes = b"",
    ttl: int = 64,
) -> bytes:
    ihl = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | ihl,
        0,
        ihl * 4 + len(payload),
        1,
        0,
        ttl,
        proto,
        0,
        IPv4Address(src).packed,
        IPv4Address(dst).packed,
    )
    head += options
    return head[:10] + struct.pack(">H", csum(head)) + head[12:] + payload


def ipv6(payload: bytes, *, proto: int = 6, src: str = "fd00::1", dst: str = "fd00::2") -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), proto, 64)
    return head + IPv6Address(src).packed + IPv6Address(dst).packed + payload


def tcp(payload: bytes, *, sport: int = 1000, dport: int = 80, checksum: int = 0) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 2, 0x50, 0x18, 1000, checksum, 0) + payload


def udp(payload: bytes, *, sport: int = 1000, dport: int = 2000, checksum: int = 0) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), checksum) + payload


def pseudo4(packet: bytes) -> bytes:
    """The pseudo-header of an IPv4 packet (RFC 9293)."""
    ihl = (packet[0] & 15) * 4
    return packet[12:20] + struct.pack(">BBH", 0, packet[9], len(packet) - ihl)


def pseudo6(packet: bytes) -> bytes:
    """The pseudo-header of an IPv6 packet (RFC 8200)."""
    return packet[8:40] + struct.pack(">IHBB", len(packet) - 40, 0, 0, packet[6])


def transport_ok(packet: bytes) -> bool:
    """True if the TCP or UDP checksum of an IP packet is complete and right."""
    if packet[0] >> 4 == 4:
        return csum(pseudo4(packet) + packet[(packet[0] & 15) * 4 :]) == 0
    return csum(pseudo6(packet) + packet[40:]) == 0


def partial(packet: bytes) -> int:
    """What the checksum field holds when the checksum is offloaded."""
    pseudo = pseudo4(packet) if packet[0] >> 4 == 4 else pseudo6(packet)
    return ~csum(pseudo) & 0xFFFF
