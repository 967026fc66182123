"""ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861) frames: requests out, answers in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from dysco.agent.model import Address, MacAddress

_BROADCAST = b"\xff" * 6
_ETHERTYPE_ARP = b"\x08\x06"
_ETHERTYPE_IPV6 = b"\x86\xdd"
_ARP_FORMATS = b"\x00\x01\x08\x00\x06\x04"
_ARP_REQUEST, _ARP_REPLY = b"\x00\x01", b"\x00\x02"
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_HOPS = 255
_ETHERNET, _IPV6 = 14, 40


class Neighbour(NamedTuple):
    """What an answer says: this address has that MAC."""

    address: Address
    mac: MacAddress


def request(target: Address, source: Address, mac: MacAddress) -> bytes:
    """The frame that asks for the MAC of `target`, from `source` with `mac` (of its family)."""
    if isinstance(target, IPv4Address):
        header = _BROADCAST + mac + _ETHERTYPE_ARP + _ARP_FORMATS + _ARP_REQUEST
        return header + mac + source.packed + bytes(6) + target.packed
    group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + target.packed[13:])
    body = bytes((_SOLICITATION, 0, 0, 0, 0, 0, 0, 0)) + target.packed
    body += bytes((_SOURCE_LINK_LAYER, 1)) + mac
    pseudo = source.packed + group.packed + len(body).to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6))
    checksum = _checksum(pseudo + body)
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    ip = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((_ICMPV6, _HOPS))
    ethernet = b"\x33\x33" + group.packed[12:] + mac + _ETHERTYPE_IPV6
    return ethernet + ip + source.packed + group.packed + body


def answer(frame: bytes) -> Neighbour | None:
    """What an ARP reply or a neighbour advertisement says; None for anything else or damaged."""
    ethertype = frame[12:14]
    if ethertype == _ETHERTYPE_ARP:
        return _arp_answer(frame)
    if ethertype == _ETHERTYPE_IPV6:
        return _advertisement(frame)
    return None


def _arp_answer(frame: bytes) -> Neighbour | None:
    arp = frame[_ETHERNET : _ETHERNET + 28]
    if len(arp) < 28 or arp[:6] != _ARP_FORMATS or arp[6:8] != _ARP_REPLY:
        return None
    return _checked(IPv4Address(arp[14:18]), arp[8:14])


def _advertisement(frame: bytes) -> Neighbour | None:
    ip = frame[_ETHERNET : _ETHERNET + _IPV6]
    if len(ip) < _IPV6 or ip[6] != _ICMPV6 or ip[7] != _HOPS:
        return None
    length = int.from_bytes(ip[4:6], "big")
    body = frame[_ETHERNET + _IPV6 : _ETHERNET + _IPV6 + length]
    if len(body) < max(length, 24) or body[0] != _ADVERTISEMENT or body[1]:
        return None
    if _checksum(ip[8:40] + length.to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6)) + body):
        return None
    mac, options = None, body[24:]
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_LINK_LAYER and options[1] == 1:
            mac = options[2:8]
        options = options[options[1] * 8 :]
    # An answer to a unicast question may leave the option out: then it is the sender.
    return _checked(IPv6Address(body[8:24]), mac or frame[6:12])


def _checked(address: Address, mac: MacAddress) -> Neighbour | None:
    return None if mac[0] & 1 or not any(mac) else Neighbour(address, mac)


def _checksum(data: bytes) -> int:
    """The Internet checksum of `data`; 0 if `data` holds its own right one (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
