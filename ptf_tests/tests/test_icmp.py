"""ICMP errors that quote a subsession's packet are translated on their way, as path MTU needs it.

router --about A's subsession--> device --about A's session--> A
A --about what it got in a session--> device --about the subsession--> who sent it
"""

from __future__ import annotations

from typing import Any, NamedTuple

from common.base import DyscoTest
from common.frames import (
    ETHERNET,
    ICMP_ERRORS,
    IP_OPTIONS,
    add_to_word,
    ethernet,
    icmp_error,
    ip_header,
    quote,
    tcp_packet,
    translated_quote,
)
from common.network import (
    FAMILIES,
    FAR,
    NEXT,
    OTHER,
    ROUTER,
    UPLINK,
    A,
    B,
    FiveTuple,
    M,
    address,
    session,
    subsession,
)
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Raw

KINDS = {"v4": "fragmentation needed", "v6": "too big"}
"""The one that path MTU discovery lives on."""

LEAST = 8
"""Bytes of TCP that an error quotes at least (RFC 792)."""


class Error(NamedTuple):
    """An ICMP error on its way through the device, before and after translation."""

    name: str
    in_port: int
    out_port: int
    macs: tuple[tuple[str, str], tuple[str, str]]
    addresses: tuple[tuple[str, str], tuple[str, str]]
    tuples: tuple[FiveTuple, FiveTuple]

    def frames(self, kind: str, size: int = LEAST, **fields: Any) -> tuple[bytes, bytes]:
        """The frame as it comes in and as it must leave; it quotes `size` bytes of TCP."""
        quoted = quote(self.tuples[0], size, **fields)
        translated = translated_quote(quoted, self.tuples[1], **fields)
        return (
            icmp_error(kind, self.addresses[0], quoted, self.macs[0]),
            icmp_error(kind, self.addresses[1], translated, self.macs[1]),
        )


def to_end_host(family: str) -> Error:
    """From a router in the network, about what A sent into a subsession."""
    router, own = address(ROUTER, family), address(A, family)
    macs = (ROUTER.mac, A.mac), (ROUTER.mac, A.mac)
    addresses = (router, own), (router, own)
    tuples = subsession(family), session(family)
    return Error(f"to A {family}", UPLINK, A.port, macs, addresses, tuples)


def to_middlebox(family: str) -> Error:
    """About what M forwarded of a session between others: addressed on to who sent that."""
    router = address(ROUTER, family)
    tuples = subsession(family, src=M), session(family, src=OTHER)
    macs = (ROUTER.mac, M.mac), (ROUTER.mac, M.mac)
    addresses = (router, address(M, family)), (router, address(OTHER, family))
    return Error(f"to M {family}", UPLINK, M.port, macs, addresses, tuples)


def from_end_host(family: str) -> Error:
    """From A, about what it received in a session."""
    macs = (A.mac, FAR.mac), (A.mac, NEXT.mac)
    own = address(A, family)
    addresses = (own, address(FAR, family)), (own, address(NEXT, family))
    tuples = session(family).reversed, subsession(family).reversed
    return Error(f"from A {family}", A.port, UPLINK, macs, addresses, tuples)


def from_middlebox(family: str) -> Error:
    """M sends on what a router said about a session between others: M's own error from there on."""
    macs = (M.mac, FAR.mac), (M.mac, NEXT.mac)
    sender = address(OTHER, family)
    addresses = (address(ROUTER, family), sender), (address(M, family), address(NEXT, family))
    # The session's data came from NEXT's side, and M's left subsession has it.
    tuples = session(family, src=OTHER), subsession(family, src=NEXT, dst=M)
    return Error(f"from M {family}", M.port, UPLINK, macs, addresses, tuples)


INWARD = (to_end_host, to_middlebox)
OUTWARD = (from_end_host, from_middlebox)


class IcmpTest(DyscoTest):
    """Base: entries for the errors above: those of the sessions that they are about."""

    def install(self) -> None:
        for family in FAMILIES:
            for error in (make(family) for make in INWARD):
                host = A if error.out_port == A.port else M
                sent, emitted = error.tuples
                self.device.insert(self.inbound(host, sent.reversed, emitted.reversed))
            for error in (make(family) for make in OUTWARD):
                host = A if error.in_port == A.port else M
                received, arrived = error.tuples
                self.device.insert(self.outbound(host, received.reversed, arrived.reversed))

    def check_error(self, error: Error, kind: str, name: str = "", **fields: Any) -> None:
        frame, expected = error.frames(kind, **fields)
        name = f"{name} {kind} {error.name}"
        self.check(error.in_port, frame, {error.out_port: expected}, name=name)


def all_errors() -> list[Error]:
    return [make(family) for make in INWARD + OUTWARD for family in FAMILIES]


def family_of(error: Error) -> str:
    return error.tuples[0].family


class EveryKind(IcmpTest):
    """Quoted five-tuple, addresses, MAC and checksums; MTU, pointer and code stay."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            for kind in ICMP_ERRORS[family_of(error)]:
                self.check_error(error, kind)


class QuotedLengths(IcmpTest):
    """From the 8 bytes that must be, over a whole TCP header, to all that fits; odd ones too."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            for size in (LEAST, 9, 17, 18, 20, 101, 200):
                self.check_error(error, KINDS[family_of(error)], f"{size} bytes", size=size)


class QuotedOptions(IcmpTest):
    """A quoted IPv4 header may have options; a quoted TCP header keeps its own."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            kind = KINDS[family_of(error)]
            if family_of(error) == "v4":
                for size in (LEAST, 60):
                    self.check_error(error, kind, "IP options", size=size, ip_options=IP_OPTIONS)
            stamps = {"tcp_options": [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]}
            self.check_error(error, kind, "TCP options", size=40, **stamps)


class ForwardedQuote(IcmpTest):
    """A router quotes the packet as it had it: less TTL, and the IPv4 checksum that fits."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            changed = {"hlim": 9} if family_of(error) == "v6" else {"ttl": 9}
            self.check_error(error, KINDS[family_of(error)], "TTL", **changed)


class CorruptStaysCorrupt(IcmpTest):
    """Wrong checksums, of the error or of its IP header, are as wrong afterwards."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            is_v4 = family_of(error) == "v4"
            icmp = ETHERNET + (20 if is_v4 else 40) + 2
            offsets = {"ICMP": icmp}
            if is_v4:
                offsets |= {"IPv4": ETHERNET + 10}
            frame, expected = error.frames(KINDS[family_of(error)])
            for name, offset in offsets.items():
                for amount in (1, 0x1234, 0xFFFE):
                    wrong, still = (add_to_word(f, offset, amount) for f in (frame, expected))
                    out = {error.out_port: still}
                    self.check(error.in_port, wrong, out, name=f"{name} {error.name} +{amount}")


class QuotedChecksumZero(IcmpTest):
    """Some quote the IPv4 header with its checksum cleared: the ICMP checksum is right anyway."""

    def runTest(self) -> None:
        self.install()
        for error in all_errors():
            if family_of(error) == "v6":
                continue
            kind = KINDS["v4"]
            quoted = _with_word(quote(error.tuples[0], LEAST), 10, 0)
            frame = icmp_error(kind, error.addresses[0], quoted, error.macs[0])
            self.send(error.in_port, frame)
            ((port, got),) = self.received(1)
            assert port == error.out_port, f"{error.name} left at {port}"
            translated = _with_word(translated_quote(quoted, error.tuples[1]), 10, 0)
            body = got[ETHERNET + 28 :]
            assert _with_word(body, 10, 0) == translated, f"{error.name}: {body.hex()}"
            expected = icmp_error(kind, error.addresses[1], body, error.macs[1])
            assert got == expected, f"{error.name}: {got.hex()} instead of {expected.hex()}"


class BetweenHosts(IcmpTest):
    """From one host of this device to another, through both of their entries."""

    def runTest(self) -> None:
        for family in FAMILIES:
            first, hop, second = session(family), subsession(family, dst=B), session(family, OTHER)
            self.device.insert(
                self.outbound(B, second.reversed, hop.reversed),
                self.inbound(A, hop.reversed, first.reversed),
            )
            quoted = quote(second)
            addresses = address(B, family), second.src
            frame = icmp_error(KINDS[family], addresses, quoted, (B.mac, FAR.mac))
            expected = icmp_error(
                KINDS[family],
                (address(B, family), first.src),
                translated_quote(quoted, first),
                (B.mac, A.mac),
            )
            self.check(B.port, frame, {A.port: expected}, name=family)


class Counted(IcmpTest):
    """An error counts at the entry that translated it, and is never copied."""

    def runTest(self) -> None:
        for family in FAMILIES:
            error = to_end_host(family)
            sent, emitted = error.tuples
            entry = self.inbound(A, sent.reversed, emitted.reversed)
            self.device.insert(entry)
            frame, expected = error.frames(KINDS[family])
            self.check(error.in_port, frame, {error.out_port: expected}, name=family)
            self.counted(entry, 1, len(frame))


class NotOurs(IcmpTest):
    """About other sessions, other protocols, and what is no error: passes as it came."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            error = to_end_host(family)
            sent = error.tuples[0]
            kind = KINDS[family]
            udp = ip_header(sent.src, sent.dst) / UDP(sport=sent.sport, dport=sent.dport)
            quotes = {
                "another session": quote(sent._replace(sport=sent.sport + 1)),
                "the other direction": quote(sent.reversed),
                "UDP of the same ports": bytes(udp / Raw(b"text")),
                "less than 8 bytes of TCP": quote(sent, 7),
                "a cut IP header": quote(sent, 0)[:-1],
                "nothing": b"",
            }
            if family == "v4":
                quotes["a later fragment"] = tcp_packet(sent, frag=100, payload=bytes(20))
                quotes["a header length below 5"] = b"\x44" + quote(sent)[1:]
                quotes["another IP version"] = b"\x65" + quote(sent)[1:]
            else:
                quotes["another IP version"] = b"\x40" + quote(sent)[1:]
            for name, quoted in quotes.items():
                frame = icmp_error(kind, error.addresses[0], quoted, error.macs[0])
                self.check(UPLINK, frame, {A.port: frame}, name=f"{name} {family}")
            # An echo request whose data look like a quote.
            echo = ICMPv6EchoRequest() if family == "v6" else ICMP(type=8)
            packet = ip_header(*error.addresses[0]) / echo / Raw(quote(sent))
            frame = ethernet(*error.macs[0], packet)
            self.check(UPLINK, frame, {A.port: frame}, name=f"echo {family}")


class FragmentedError(IcmpTest):
    """The first fragment of an error is no whole one: it passes as it came."""

    def runTest(self) -> None:
        self.install()
        error = to_end_host("v4")
        header = ip_header(*error.addresses[0], flags="MF")
        packet = header / ICMP_ERRORS["v4"]["time exceeded"].copy() / Raw(quote(error.tuples[0]))
        frame = ethernet(*error.macs[0], packet)
        self.check(UPLINK, frame, {A.port: frame})


def _with_word(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + value.to_bytes(2, "big") + data[offset + 2 :]
