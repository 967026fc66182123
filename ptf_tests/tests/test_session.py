"""Five-tuples rewritten both ways; checksums stay as right, or as wrong, as they were."""

from __future__ import annotations

import ipaddress
import random
import threading

from common.frames import ETHERNET, IP_OPTIONS, add_to_word, tcp, tcp_offset, word_at
from common.network import (
    FAMILIES,
    FAR,
    NEXT,
    OTHER,
    OTHER_PORT,
    UPLINK,
    A,
    B,
    Drop,
    FiveTuple,
    session,
    subsession,
)
from common.sessions import SessionTest
from common.ways import Way, all_ways, inward, outward

TCP_OPTIONS = [
    ("MSS", 1460),
    ("SAckOK", b""),
    ("Timestamp", (123456789, 987654321)),
    ("NOP", None),
    ("WScale", 7),
]
SEGMENTS = {
    "empty": {},
    "one byte": {"payload": b"x"},
    "odd": {"payload": bytes(range(101))},
    "even": {"payload": bytes(range(100))},
    "full": {"payload": bytes(1400)},
    "options": {"payload": b"GET / HTTP/1.1", "tcp_options": TCP_OPTIONS},
    "push": {"payload": b"now", "flags": "PA"},
    "congestion": {"flags": "ACE"},
    "dscp": {"dscp": 46},
}
V4_SEGMENTS = {"IP options": {"ip_options": IP_OPTIONS, "payload": b"odd"}}


class Rewrite(SessionTest):
    """Five-tuple and MACs, nothing else, with the checksums for it; counted at the entry."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            segments = SEGMENTS | (V4_SEGMENTS if way.before.family == "v4" else {})
            for name, fields in segments.items():
                expected = {way.out_port: way.expected(**fields)}
                self.check(way.in_port, way.frame(**fields), expected, name=f"{name} {way.name}")
            sizes = [len(way.frame(**fields)) for fields in segments.values()]
            self.counted(self.entry(way), len(sizes), sum(sizes))


class Padded(SessionTest):
    """The padding of a short Ethernet frame is no payload: it stays, and no checksum has it."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            frame, expected = (built.ljust(80, b"\xa5") for built in (way.frame(), way.expected()))
            self.check(way.in_port, frame, {way.out_port: expected}, name=way.name)


class OnlyTheFiveTuple(SessionTest):
    """An entry is for its host and all five of them: near misses pass untouched, uncounted."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            mine, way_back = session(family), subsession(family).reversed
            for field, value in subsession(family, src=B, sport=1)._asdict().items():
                miss = mine._replace(**{field: value})
                frame = tcp(miss, A.mac, FAR.mac)
                self.check(A.port, frame, {UPLINK: frame}, name=f"out: {miss}")
            for field, value in session(family, src=B, sport=1)._asdict().items():
                miss = way_back._replace(**{field: value})
                frame = tcp(miss, FAR.mac, A.mac)
                self.check(UPLINK, frame, {A.port: frame}, name=f"in: {miss}")
            frame = tcp(mine, B.mac, FAR.mac)
            self.check(B.port, frame, {UPLINK: frame}, name=f"out: another host {family}")
            frame = tcp(way_back, FAR.mac, B.mac)
            self.check(UPLINK, frame, {B.port: frame}, name=f"in: another host {family}")
            frame = tcp(mine, FAR.mac, A.mac)
            self.check(UPLINK, frame, {A.port: frame}, name=f"outbound's tuple, in {family}")
        for way in all_ways():
            self.counted(self.entry(way), 0, 0)


class AnyPartAlone(SessionTest):
    """Any part of the five-tuple may change alone, or none at all."""

    def runTest(self) -> None:
        for family in FAMILIES:
            changes = [{}, *({name: value} for name, value in subsession(family)._asdict().items())]
            for number, change in enumerate(changes):
                before = session(family, sport=40000 + number)
                way = outward(family)._replace(before=before, after=before._replace(**change))
                self.device.insert(self.entry(way))
                frame, expected = way.frame(payload=b"text"), way.expected(payload=b"text")
                self.check(way.in_port, frame, {way.out_port: expected}, name=f"{change} {family}")


class CorruptStaysCorrupt(SessionTest):
    """A wrong checksum is wrong by the same amount afterwards: the receiver must find it."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            is_v4 = way.before.family == "v4"
            offsets = {"TCP": _tcp_checksum(way.before)} | (
                {"IPv4": ETHERNET + 10} if is_v4 else {}
            )
            for name, offset in offsets.items():
                for amount in (1, 0x00FF, 0x1234, 0x8000, 0xFFFE):
                    frame, expected = (
                        add_to_word(built, offset, amount)
                        for built in (way.frame(payload=b"x"), way.expected(payload=b"x"))
                    )
                    case = f"{name} {way.name} +{amount:#x}"
                    self.check(way.in_port, frame, {way.out_port: expected}, name=case)


class ChecksumEdges(SessionTest):
    """Checksums of 0x0000, before or after, and 0xffff, which is as good as 0x0000."""

    def runTest(self) -> None:
        self.install()
        for way in all_ways():
            offset = _tcp_checksum(way.before)
            for name, tuple_ in (("before", way.before), ("after", way.after)):
                # The checksum of a packet, as its payload, makes that packet's checksum zero.
                payload = word_at(tcp(tuple_, A.mac, A.mac, payload=b"\0\0"), offset).to_bytes(
                    2, "big"
                )
                frame, expected = way.frame(payload=payload), way.expected(payload=payload)
                assert word_at(frame if name == "before" else expected, offset) == 0
                out = {way.out_port: expected}
                self.check(way.in_port, frame, out, name=f"0 {name} {way.name}")
                if name == "before":
                    frame = frame[:offset] + b"\xff\xff" + frame[offset + 2 :]
                    self.check(way.in_port, frame, out, name=f"0xffff {way.name}")


class RandomTuples(SessionTest):
    """Many five-tuples with extreme words: every carry of the incremental sums."""

    BURST = 15
    """Two frames each; no more at once: bmv2's queues hold 64."""

    def runTest(self) -> None:
        source = random.Random(42)
        # Whatever comes out, a route leads there.
        for prefix in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"):
            self.device.insert(self.next_hop(prefix, OTHER))
        for family in FAMILIES:
            # Keys of their own, in the same order at each run.
            befores = dict.fromkeys(_random_tuple(source, family) for _ in range(60))
            ways = [
                outward(family)._replace(before=before, after=_random_tuple(source, family))
                for before in befores
            ]
            self.device.insert(*map(self.entry, ways))
            for start in range(0, len(ways), self.BURST):
                out = []
                for way in ways[start : start + self.BURST]:
                    for payload in (source.randbytes(source.randrange(80)), _second_carry(way)):
                        self.send(A.port, way.frame(payload=payload))
                        out.append(tcp(way.after, A.mac, OTHER.mac, payload=payload))
                self.expect({OTHER_PORT: out}, name=family)


class NoRoute(SessionTest):
    """A subsession's packet without a route is dropped and counted, not bridged."""

    def runTest(self) -> None:
        nowhere = {"v4": "192.0.2.1", "v6": "3fff::1"}
        for family in FAMILIES:
            way = outward(family)
            way = way._replace(after=way.after._replace(dst=nowhere[family]))
            self.device.insert(self.entry(way))
            with self.dropped(Drop.NO_ROUTE):
                self.check(way.in_port, way.frame(payload=b"lost"), {}, name=family)


class LongestPrefix(SessionTest):
    """The most specific route counts; each has its own port and MAC."""

    def runTest(self) -> None:
        targets = {
            "v4": ("10.3.0.30", "10.2.255.1", "10.2.0.20"),
            "v6": ("2001:db8:3::30", "2001:db8:2:ffff::1", "2001:db8:2::20"),
        }
        for prefix in ("10.2.0.20/32", "2001:db8:2::20/128"):
            self.device.insert(self.next_hop(prefix, OTHER._replace(mac="02:00:00:00:ff:55")))
        hops = [(OTHER_PORT, OTHER.mac), (UPLINK, NEXT.mac), (OTHER_PORT, "02:00:00:00:ff:55")]
        for family in FAMILIES:
            for number, (target, (port, mac)) in enumerate(zip(targets[family], hops, strict=True)):
                before = session(family, sport=41000 + number)
                after = subsession(family)._replace(dst=target)
                self.device.insert(self.outbound(A, before, after))
                expected = tcp(after, A.mac, mac)
                self.check(A.port, tcp(before, A.mac, FAR.mac), {port: expected}, name=target)


class TwoHosts(SessionTest):
    """Both hosts of a subsession on this device: out of one and into the other in one pass."""

    def runTest(self) -> None:
        for family in FAMILIES:
            first, hop = session(family), subsession(family, dst=B)
            # What B sees of the session differs: as behind a NAT.
            second = session(family, src=OTHER, sport=50123)
            entries = [
                self.outbound(A, first, hop),
                self.inbound(B, hop, second),
                self.outbound(B, second.reversed, hop.reversed),
                self.inbound(A, hop.reversed, first.reversed),
            ]
            self.device.insert(*entries)
            frame = tcp(first, A.mac, FAR.mac, payload=b"there")
            expected = tcp(second, A.mac, B.mac, payload=b"there")
            self.check(A.port, frame, {B.port: expected}, name=f"A to B {family}")
            frame = tcp(second.reversed, B.mac, FAR.mac, payload=b"back!")
            expected = tcp(first.reversed, B.mac, A.mac, payload=b"back!")
            self.check(B.port, frame, {A.port: expected}, name=f"B to A {family}")
            for entry in entries:
                self.counted(entry, 1, len(frame))


class OnlyOneOfTwoHosts(SessionTest):
    """Out of a host and to another of the same device that has no entry: the subsession arrives."""

    def runTest(self) -> None:
        for family in FAMILIES:
            hop = subsession(family, dst=B)
            self.device.insert(self.outbound(A, session(family), hop))
            frame = tcp(session(family), A.mac, FAR.mac)
            self.check(A.port, frame, {B.port: tcp(hop, A.mac, B.mac)}, name=f"out {family}")
            # And unmapped traffic from A that an entry of B is for.
            self.device.insert(self.inbound(B, hop, session(family)))
            frame = tcp(hop, A.mac, B.mac)
            expected = tcp(session(family), A.mac, B.mac)
            self.check(A.port, frame, {B.port: expected}, name=f"bridged {family}")


class ModifyUnderTraffic(SessionTest):
    """An entry that is replaced while packets flow: each sees the old one or the new, none both."""

    BURSTS, FRAMES = 30, 10

    def runTest(self) -> None:
        way = outward("v4")
        moved = way._replace(after=subsession("v4", sport=62001))
        self.device.insert(self.entry(way))
        ended = threading.Event()
        writer = threading.Thread(target=self._modify, args=((moved, way), ended))
        writer.start()
        outcomes = {(UPLINK, built.expected(payload=b"flow")) for built in (way, moved)}
        try:
            for _ in range(self.BURSTS):
                for _ in range(self.FRAMES):  # no more at once: bmv2's queues hold 64
                    self.send(A.port, way.frame(payload=b"flow"))
                got = self.received(self.FRAMES)
                assert len(got) == self.FRAMES, f"{len(got)} of {self.FRAMES} came"
                assert set(got) <= outcomes, f"neither the old nor the new: {got}"
        finally:
            ended.set()
            writer.join()
        self.device.modify(self.entry(moved))
        self.check(way.in_port, way.frame(), {UPLINK: moved.expected()})

    def _modify(self, ways: tuple[Way, Way], ended: threading.Event) -> None:
        while not ended.is_set():
            for way in ways:
                self.device.modify(self.entry(way))


class DeletedEntry(SessionTest):
    """Once its entry has gone, a session's packets pass untouched again."""

    def runTest(self) -> None:
        for way in (outward("v4"), inward("v6")):
            self.device.insert(self.entry(way))
            self.check(way.in_port, way.frame(), {way.out_port: way.expected()}, name=way.name)
            self.device.delete(self.entry(way))
            self.check(way.in_port, way.frame(), {way.out_port: way.frame()}, name=way.name)


def _second_carry(way: Way) -> bytes:
    """A payload with which the checksum becomes 0xfffe: its sum is 1, often by a carry's carry."""
    offset = _tcp_checksum(way.after)
    without = tcp(way.after, A.mac, A.mac, payload=b"\0\0")
    payload = add_to_word(without[offset : offset + 2], 0, 1)
    assert word_at(tcp(way.after, A.mac, A.mac, payload=payload), offset) == 0xFFFE
    return payload


def _tcp_checksum(tuple_: FiveTuple) -> int:
    """Where it is in a frame without options."""
    return ETHERNET + tcp_offset(tuple_) + 16


def _random_tuple(source: random.Random, family: str) -> FiveTuple:
    def word() -> int:
        return source.choice((0, 1, 0xFFFE, 0xFFFF, source.randrange(0x10000)))

    def host() -> str:
        if family == "v4":
            return str(ipaddress.IPv4Address(word() << 16 | word()))
        return str(ipaddress.IPv6Address(b"".join(word().to_bytes(2, "big") for _ in range(8))))

    return FiveTuple(host(), host(), word(), word())
