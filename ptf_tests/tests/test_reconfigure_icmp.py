"""ICMP errors quote a sequence number: whom they go to must know it as his own."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from common.frames import icmp_error, quote, tcp_start, translated_quote
from common.legs import ISN_FAR, ISN_OWN, NEW_WAY, LegTest
from common.network import (
    FAMILIES,
    FAR,
    NEXT,
    OTHER,
    OTHER_PORT,
    ROUTER,
    UPLINK,
    A,
    FiveTuple,
    Host,
    address,
    session,
)

from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Entry, OldWay, Path, To, Way

OUT, IN = ISN_OWN + 1, ISN_FAR + 1
OLD_WAY = OldWay(seq_out=0x12345678, seq_in=0xFEDCBA98)
KINDS = {"v4": "fragmentation needed", "v6": "too big"}
SIZES = (8, 20)
_PORTS = {Path.FIRST: UPLINK, Path.SECOND: OTHER_PORT}


def with_seq(quoted: bytes, seq: int) -> bytes:
    """The quote of a segment with that sequence number."""
    at = tcp_start(quoted) + 4
    return quoted[:at] + (seq % 2**32).to_bytes(4, "big") + quoted[at + 4 :]


class Side(NamedTuple):
    """An error on one side of the device."""

    port: int
    macs: tuple[str, str]
    ends: tuple[str, str]
    tuple: FiveTuple
    seq: int


class QuotedTest(LegTest):
    """A leg with two ways; C_out is OUT + 100, C_in is IN + 200."""

    def switch(self, family: str) -> None:
        """Both sides have latched."""
        self.start(family, Entry(OLD_WAY))
        self.set_entry(replace(self.entry, new=NEW_WAY))
        self.sends(self.segment(OUT, IN, bytes(100)), To.OLD)
        self.arrives(Way.OLD, self.segment(IN - OLD_WAY.seq_in, OUT + OLD_WAY.seq_out, bytes(200)))
        self.latch()
        self.announce(cutoff=IN + 200)

    def about_sent(self, path: Path, travelled: int, own: int) -> None:
        """An error about what A sent by that path reaches A."""
        ends = (address(ROUTER, self.family), address(A, self.family))
        macs = (ROUTER.mac, A.mac)
        self.check_error(
            Side(_PORTS[path], macs, ends, self.subsessions[path], travelled),
            Side(A.port, macs, ends, session(self.family), own),
        )

    def about_received(self, path: Path, own: int, travelled: int) -> None:
        """An error of A about what it got by that path goes where that came from."""
        far, near = (NEXT, OTHER)[path], A
        got = self.subsessions[path].reversed
        self.check_error(
            Side(
                A.port, (A.mac, FAR.mac), self.ends(near, FAR), session(self.family).reversed, own
            ),
            Side(_PORTS[path], (A.mac, far.mac), self.ends(near, far), got, travelled),
        )

    def ends(self, src: Host, dst: Host) -> tuple[str, str]:
        """Addresses of the family."""
        return address(src, self.family), address(dst, self.family)

    def check_error(self, before: Side, after: Side) -> None:
        """What comes in as the one leaves as the other."""
        kind = KINDS[self.family]
        for size in SIZES:
            quoted = quote(before.tuple, size)
            translated = translated_quote(quoted, after.tuple)
            frames = [
                icmp_error(kind, side.ends, with_seq(data, side.seq), side.macs)
                for side, data in ((before, quoted), (after, translated))
            ]
            self.check(before.port, frames[0], {after.port: frames[1]}, name=f"{size} bytes")


class AboutSent(QuotedTest):
    """By either path."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.about_sent(Path.FIRST, OUT + 10 + OLD_WAY.seq_out, OUT + 10)
            self.about_sent(Path.SECOND, NEW_WAY.isn_out + 1 + 5, OUT + 100 + 5)
            self.stop()


class AboutReceived(QuotedTest):
    """Goes where the packet came from."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.about_received(Path.FIRST, IN + 10, IN + 10 - OLD_WAY.seq_in)
            self.about_received(Path.SECOND, IN + 200, add(NEW_WAY.isn_in, 1))
            self.stop()
