"""Reads what was captured: Ethernet, IPv4 and IPv6, TCP, and ICMP errors with what they quote."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address

from dysco.agent.model import Address, FiveTuple

_IPV4, _IPV6 = 0x0800, 0x86DD
_ICMP, _TCP, _ICMPV6 = 1, 6, 58
_ICMP_ERRORS = {3, 4, 5, 11, 12}
_ICMPV6_ERRORS = {1, 2, 3, 4}
_EXPERIMENTAL_OPTIONS = {253, 254}
_MAGIC = b"DySC"


class Flags(IntFlag):
    """TCP flags."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Network:
    """What an IP header says."""

    src: Address
    dst: Address
    protocol: int
    length: int
    """Of what follows the header, in bytes, whether all of it was captured or not."""
    payload: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment."""

    tuple: FiveTuple
    flags: Flags
    sequence: int
    checksum: int
    options: bytes
    length: int
    """Of its payload, in bytes, whether all of it was captured or not."""
    payload: bytes

    @property
    def is_first(self) -> bool:
        """True for a SYN without ACK."""
        return self.flags & (Flags.SYN | Flags.ACK) == Flags.SYN

    @property
    def has_dysco_header(self) -> bool:
        """True for a SYN whose payload starts with the magic."""
        return self.is_first and self.payload.startswith(_MAGIC)

    @property
    def has_tag(self) -> bool:
        """True if it carries an experimental option, which is where a tag is."""
        return any(kind in _EXPERIMENTAL_OPTIONS for kind in _option_kinds(self.options))


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a TCP segment."""

    src: Address
    dst: Address
    type: int
    code: int
    mtu: int
    """Of the next link, where the error is about a packet too big."""
    quoted: FiveTuple


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame, as far as it is understood."""

    dst_mac: bytes
    src_mac: bytes
    network: Network | None
    transport: Segment | IcmpError | None


def parse(frame: bytes) -> Packet:
    """Read a frame; what is cut off or unknown is None."""
    dst, src, ethertype = struct.unpack_from("!6s6sH", frame)
    network = _network(ethertype, frame[14:])
    return Packet(dst, src, network, _transport(network) if network is not None else None)


def _network(ethertype: int, data: bytes) -> Network | None:
    if ethertype == _IPV4 and len(data) >= 20:
        size = (data[0] & 0xF) * 4
        length = int.from_bytes(data[2:4], "big") - size
        addresses = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        return Network(*addresses, data[9], length, data[size:][:length])
    if ethertype == _IPV6 and len(data) >= 40:
        length = int.from_bytes(data[4:6], "big")
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        return Network(source, destination, data[6], length, data[40:][:length])
    return None


def _transport(network: Network) -> Segment | IcmpError | None:
    if network.protocol == _TCP:
        return _segment(network)
    if network.protocol in (_ICMP, _ICMPV6) and len(network.payload) >= 8:
        return _icmp_error(network)
    return None


def _segment(network: Network) -> Segment | None:
    data = network.payload
    if len(data) < 20:
        return None
    sport, dport, sequence, _, offset, flags, _, checksum, _ = struct.unpack_from(
        "!HHIIBBHHH", data
    )
    size = (offset >> 4) * 4
    return Segment(
        FiveTuple(network.src, sport, network.dst, dport),
        Flags(flags & 0x1F),
        sequence,
        checksum,
        data[20:size],
        network.length - size,
        data[size:],
    )


def _icmp_error(network: Network) -> IcmpError | None:
    data = network.payload
    is_v6 = network.protocol == _ICMPV6
    kind, code, _, rest = struct.unpack_from("!BBHI", data)
    if kind not in (_ICMPV6_ERRORS if is_v6 else _ICMP_ERRORS):
        return None
    quoted = _network(_IPV6 if is_v6 else _IPV4, data[8:])
    if quoted is None or quoted.protocol != _TCP or len(quoted.payload) < 4:
        return None
    sport, dport = struct.unpack_from("!HH", quoted.payload)
    mtu = rest if is_v6 else rest & 0xFFFF
    about = FiveTuple(quoted.src, sport, quoted.dst, dport)
    return IcmpError(network.src, network.dst, kind, code, mtu, about)


def _option_kinds(options: bytes) -> Iterator[int]:
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            return
        yield kind
        length = options[at + 1] if kind != 1 and at + 1 < len(options) else 1
        if kind != 1 and length < 2:
            return
        at += length
