"""The rules of a reconfiguration, each led up to by packets: departure, arrival, handover."""

from __future__ import annotations

from dataclasses import replace

from common.legs import EPOCH, ISN_FAR, ISN_OWN, NEW_WAY, LegTest
from common.network import FAMILIES

from dysco.agent.reconfigure import handover
from dysco.agent.reconfigure.segment import ACK, FIN, PSH, RST, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Count, Entry, NewWay, OldWay, To, Way

OUT, IN = ISN_OWN + 1, ISN_FAR + 1
"""The first byte of each direction."""
OLD_WAY = OldWay(seq_out=0x12345678, seq_in=0xFEDCBA98, ts_in=0x80000001, scale_in=7)
SACK = ((OUT + 100, OUT + 300), (OUT + 500, OUT + 900))


class Steady(LegTest):
    """Outside of a reconfiguration: constants are added, both ways, and everything is tracked."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for old in (OldWay(), OLD_WAY):
                self.start(family, Entry(old, scale_own=3, scale_heard=2))
                self.sends(self.segment(OUT, IN, b"hello"), To.OLD)
                way = self.entry.old
                answer = self.segment(
                    IN - way.seq_in, OUT + 5 + way.seq_out, bytes(1200), tsval=5100, tsecr=6000
                )
                self.arrives(Way.OLD, answer, To.HOST)
                self.sends(self.segment(OUT + 5, IN + 1200), To.OLD)
                self.query()
                self.stop()


class OptionsInAnyOrder(LegTest):
    """Timestamps and SACK blocks are found, and translated, wherever they are."""

    def runTest(self) -> None:
        self.start("v4", Entry(OLD_WAY))
        self.sends(self.segment(OUT, IN, bytes(1000)), To.OLD)
        blocks = tuple((a + OLD_WAY.seq_out, b + OLD_WAY.seq_out) for a, b in SACK)
        sack = tuple((a % 2**32, b % 2**32) for a, b in blocks)
        segment = self.segment(IN - OLD_WAY.seq_in, OUT + OLD_WAY.seq_out, b"x", sack=sack)
        stamp = ("Timestamp", (segment.tsval, segment.tsecr))
        blocks = ("SAck", tuple(edge for block in sack for edge in block))
        nop, other = ("NOP", None), (253, b"\xa5\xa5\xa5")
        for options in (
            [nop, nop, stamp, nop, nop, blocks],
            [nop, nop, blocks, nop, nop, stamp],
            [stamp, blocks],
            [nop, stamp, blocks],
            [blocks, nop, stamp],
            [nop, blocks, stamp],
            [other, stamp, nop, blocks],
            [stamp, other, blocks],
            [blocks, other, nop, stamp],
            [nop, nop, nop, stamp, nop, nop, nop, nop, blocks],
        ):
            self.arrives(Way.OLD, segment, To.HOST, options=options)
        self.stop()


class SynAckAgain(LegTest):
    """A SYN-ACK that is sent again begins nothing."""

    def runTest(self) -> None:
        for from_far in (True, False):
            self.start("v4", from_far=from_far)
            self.sends(self.segment(OUT, IN, b"some data"), To.OLD)
            numbers = (ISN_FAR, OUT) if from_far else (ISN_OWN, IN)
            again = Segment(*numbers, 0x12, 60000, tsval=5000, tsecr=4000)
            if from_far:
                self.arrives(Way.OLD, again, To.HOST)
            else:
                self.sends(again, To.OLD)
            self.query()
            self.stop()


class SlotTakenOver(LegTest):
    """The SYN-ACK of another connection begins anew, whatever the last one left."""

    def runTest(self) -> None:
        self.start("v4")
        self.sends(self.segment(OUT, IN, b"some data", ACK | FIN), To.OLD)
        self.stop()
        self.start("v4", slot=self.slot, isn=ISN_FAR + (1 << 30))
        self.query()
        self.stop()


class Jumps(LegTest):
    """An absurd number moves nothing."""

    def runTest(self) -> None:
        self.start("v4", Entry(jump=1 << 20))
        self.sends(self.segment(OUT, IN, b"12345"), To.OLD)
        for far in (1 << 21, 1 << 31, -(1 << 21)):
            self.sends(self.segment(OUT + far, IN, b"12345"), To.OLD)
            self.sends(self.segment(OUT + 5, IN + far), To.OLD)
            self.arrives(Way.OLD, self.segment(IN, OUT + far), To.HOST)
        assert self.registers.counts[Count.JUMP] >= 9
        self.query()
        self.stop()


class SwitchTest(LegTest):
    """Base: a leg that has sent 1,000 bytes and got 2,000, and a new way."""

    def prepare(self, family: str = "v4", new: NewWay = NEW_WAY, old: OldWay = OLD_WAY) -> None:
        """Everything is still on the old path."""
        self.start(family, Entry(old, scale_own=3, scale_heard=2))
        self.set_entry(replace(self.entry, new=new))
        self.sends(self.segment(OUT, IN, bytes(600)), To.OLD)
        self.sends(self.segment(OUT + 600, IN, bytes(400)), To.OLD)
        self.old(IN, OUT, bytes(1400), tsval=5100)
        self.old(IN + 1400, OUT + 600, bytes(600), tsval=5100)
        self.sends(self.segment(OUT + 1000, IN + 1400), To.OLD)

    def switch(self, family: str = "v4", new: NewWay = NEW_WAY, old: OldWay = OLD_WAY) -> None:
        """Both sides have latched: C_out is OUT + 1000, C_in is IN + 2000."""
        self.prepare(family, new, old)
        self.latch()
        self.announce(
            cutoff=(IN + 2000 - new.delta_in) % 2**32,
            edge=(OUT + 60000 + new.delta_out) % 2**32,
        )

    def old(self, seq: int, ack: int, data: bytes = b"", *to: To, **fields: object) -> None:
        """A segment arrives by the old path; numbers as A will see them."""
        way = self.entry.old
        self.arrives(
            Way.OLD, self.segment(seq - way.seq_in, ack + way.seq_out, data, **fields), *to
        )

    def new(self, sent: int, acked: int | None, data: bytes = b"", *to: To, **fields: int) -> None:
        """By the new path; numbers as bytes from the cutoffs on. `acked` None: a stale ACK."""
        start_in, start_out = NEW_WAY.isn_in + 1, NEW_WAY.isn_out + 1
        segment = self.segment(start_in + sent, start_out + (acked or 0), data, **fields)
        self.arrives(Way.NEW, segment, *to)


class Handshake(SwitchTest):
    """The new path's handshake goes to the agent; data on it before the switch is dropped."""

    def runTest(self) -> None:
        self.prepare()
        for flags in (0x12, ACK, RST | ACK, RST):
            self.handshakes(Segment(NEW_WAY.isn_in, NEW_WAY.isn_out + 1, flags, 1000))
        self.new(0, 0, b"too early")
        self.latch()
        self.new(0, 0, b"still")
        assert self.registers.counts[Count.EARLY_NEW] == 2
        self.stop()


class LatchTwice(SwitchTest):
    """The first packet-out fixes the cutoff; from then on it only says it again."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.prepare(family)
            self.latch()
            self.sends(self.segment(OUT + 1000, IN + 1400, b"new"), To.NEW)
            self.latch()
            self.query()
            self.stop()


class Announcements(SwitchTest):
    """Stored and turned round once; repeated ones are answered; foreign ones are counted."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.prepare(family)
            where = {"cutoff": IN + 2000, "edge": (OUT + 60000) % 2**32}
            self.announce(**where, epoch=EPOCH + 1)
            self.announce(**where, token=1)
            self.announce(**where)
            self.announce(**where)
            self.announce(known=True, **where)
            self.announce(known=True, **where)
            assert self.registers.counts[Count.ANNOUNCEMENT] == 2
            self.query()
            self.stop()


class Closing(SwitchTest):
    """After a FIN or a RST nothing is latched."""

    def runTest(self) -> None:
        for flags in (ACK | FIN, RST):
            self.prepare()
            self.sends(self.segment(OUT + 1000, IN + 1400, flags=flags), To.OLD)
            self.latch()
            self.announce()
            self.query()
            self.stop()


class Revoked(SwitchTest):
    """A leg that is revoked ignores announcements; one that has latched can't be."""

    def runTest(self) -> None:
        self.prepare()
        self.revoke()
        self.announce(cutoff=IN + 2000)
        assert self.registers.counts[Count.ANNOUNCEMENT] == 1
        self.stop()
        self.switch()
        self.revoke()
        self.stop()


class DepartureSplit(SwitchTest):
    """Data and ACK go to the path that each belongs to."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            old, new = OUT + 600, OUT + 1000
            # The ACK is of old data.
            self.sends(self.segment(old, IN + 1400, bytes(400)), To.OLD)
            self.sends(self.segment(new, IN + 1400, bytes(300), ACK | PSH), To.NEW)
            self.sends(self.segment(new + 300, IN + 1900, bytes(300)), To.NEW, To.OLD)
            self.sends(self.segment(new + 600, IN + 1950, window=3000), To.OLD, To.NEW)
            # And of new data.
            self.new(0, 0, bytes(500), To.HOST)
            self.sends(self.segment(new + 600, IN + 2500, bytes(300)), To.NEW, To.OLD)
            self.sends(self.segment(new + 900, IN + 2500, bytes(300)), To.NEW)
            self.sends(self.segment(new + 1200, IN + 2500), To.NEW)
            self.sends(self.segment(old, IN + 2500, bytes(400)), To.OLD)
            self.sends(self.segment(old, IN + 2500, bytes(400), window=9000), To.OLD, To.NEW)
            self.query()
            self.stop()


class FirstAcksOfNewData(SwitchTest):
    """The old path hears of its own last byte when the host gets there, in each case once."""

    def runTest(self) -> None:
        for data in (b"", b"new data"):
            self.switch()
            self.new(0, None, b"from the other side", To.HOST)
            self.sends(self.segment(OUT + 1000, IN + 2010, data), To.NEW, To.OLD)
            self.sends(self.segment(OUT + 1000, IN + 2019, data), To.NEW)
            self.stop()


class PureAcks(SwitchTest):
    """Empty segments: news to the path that it is for, duplicates not to both."""

    def runTest(self) -> None:
        self.switch()
        end = OUT + 1000
        self.sends(self.segment(end, IN + 1500), To.OLD, To.NEW)  # its window reaches new data
        self.sends(self.segment(end, IN + 1500), To.OLD)  # a duplicate, for old data
        below = ((IN + 1600, IN + 1900),)
        across = ((IN + 1600, IN + 2100),)
        above = ((IN + 2100, IN + 2200),)
        self.new(100, None, bytes(100), To.HOST)
        self.sends(self.segment(end, IN + 1500), To.NEW)  # a duplicate, for new data
        self.sends(self.segment(end, IN + 1500, sack=below), To.NEW, To.OLD)
        self.sends(self.segment(end, IN + 1500, sack=across), To.NEW, To.OLD)
        self.sends(self.segment(end, IN + 1500, sack=above), To.NEW)
        self.sends(self.segment(end, IN + 1500, sack=above + across), To.NEW, To.OLD)
        assert self.registers.counts[Count.DUPLICATE_ACK] == 2
        self.stop()


class SackWithData(SwitchTest):
    """Blocks are clipped at the cutoff on segments with data too, which get shorter."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for stamps in (True, False):
                self.stamps = stamps
                self.switch(family)
                self.stamps = stamps
                sack = ((IN + 2100, IN + 2200), (IN + 1500, IN + 2050), (IN + 1450, IN + 1460))
                for blocks in (sack, sack[:1], sack[1:], sack[:2]):
                    for seq in (OUT + 600, OUT + 1000):
                        self.sends(self.segment(seq, IN + 1400, bytes(400), sack=blocks))
                self.stop()


class Straddling(SwitchTest):
    """A segment across the cutoff goes to the agent, and nowhere else."""

    def runTest(self) -> None:
        self.switch()
        for size, flags in ((401, ACK), (1400, ACK | PSH), (400, ACK | FIN)):
            self.sends(self.segment(OUT + 600, IN + 1400, bytes(size), flags))
        assert self.registers.counts[Count.STRADDLES] == 3
        self.stop()


class Resets(SwitchTest):
    """A host's RST goes on both paths; one by the old path is its end, once nothing needs it."""

    def runTest(self) -> None:
        for flags in (RST, RST | ACK):
            for ack in (IN + 1400, IN + 2100):
                self.switch()
                self.sends(self.segment(OUT + 1000, ack, flags=flags), To.OLD, To.NEW)
                self.stop()
        self.switch()
        self.old(IN + 2000, OUT + 1000, b"", To.HOST, flags=RST)
        self.old(IN + 2000, OUT + 1000, b"", To.HOST)
        self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
        self.old(IN + 2000, OUT + 1000, flags=RST)
        assert self.registers.counts[Count.OLD_RESET] == 1
        self.new(0, 0, b"", To.HOST, flags=RST)
        self.new(0, 0, b"a RST with data", To.HOST, flags=RST)  # which its copy has not either
        self.stop()


class Probes(SwitchTest):
    """Keep-alives and window probes: below what is acknowledged, on the path that is left."""

    def runTest(self) -> None:
        self.switch()
        self.old(IN + 2000, OUT + 1000, b"", To.HOST)
        self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
        self.sends(self.segment(OUT + 999, IN + 2000), To.NEW)
        self.sends(self.segment(OUT + 998, IN + 2000), To.NEW)
        self.stop()


class ArrivalByOld(SwitchTest):
    """Old data for the host; what is beyond the cutoff is not; what it has is answered."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.old(IN + 1400, OUT + 600, bytes(600), To.HOST)
            self.old(IN + 1400, OUT + 2000, bytes(600), To.HOST)  # an ACK of at most C_out
            self.old(IN + 1400, OUT + 1000, bytes(601))
            self.old(IN + 2000, OUT + 1000, bytes(1), To.OLD)
            self.old(IN + 1400, OUT + 1000, bytes(600), To.HOST, flags=ACK | FIN)
            assert self.registers.counts[Count.OLD_BEYOND] == 3
            self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
            self.old(IN + 1400, OUT + 1000, bytes(600), To.OLD)
            self.old(IN + 2000, OUT + 1000, b"", To.HOST)
            assert self.registers.counts[Count.OLD_REPEATED] == 1
            self.query()
            self.stop()


class AnswerAndAck(SwitchTest):
    """Old data that the host has, with an ACK that it has not: an answer, and the ACK alone."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
            sack = tuple((add(a, OLD_WAY.seq_out), add(b, OLD_WAY.seq_out)) for a, b in SACK)
            self.old(IN + 1400, OUT + 900, bytes(600), To.OLD, To.HOST, sack=sack[1:])
            self.stop()


class ArrivalByNew(SwitchTest):
    """New data for the host with what it was told last, until it is told more."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.new(0, None, bytes(500), To.HOST)
            self.new(500, None)  # says nothing
            assert self.registers.counts[Count.STALE_ACK] == 1
            self.sends(self.segment(OUT + 1000, IN + 1400, bytes(500)))
            self.new(500, 500, b"", To.HOST)
            self.new(500, 500, b"", To.HOST, window=0xFFFF)
            self.new(500, 500)
            self.new(500, 300, bytes(10), To.HOST, flags=ACK | FIN)
            self.query()
            self.stop()


class Windows(SwitchTest):
    """What the host is told ends at max(what the other host offered, C_out), by either way."""

    def runTest(self) -> None:
        relay = NewWay(
            TOKEN := NEW_WAY.token,
            EPOCH,
            NEW_WAY.isn_out,
            NEW_WAY.isn_in,
            delta_in=77,
            delta_out=-55,
            ts_in=7000,
            ts_shift=None,
            scale_in=2,
            edge=(OUT + 1200) % 2**32,
        )
        assert TOKEN
        self.switch("v4", relay)
        self.old(IN + 1400, OUT + 700, b"", To.HOST, window=0xFFFF)
        self.old(IN + 1400, OUT + 1000, b"", To.HOST, window=0)
        self.new(0, None, b"wider", To.HOST, window=0xFFFF)
        self.new(5, None, b"zero", To.HOST, window=0)
        self.query()
        self.stop()


class Timestamps(SwitchTest):
    """Never backwards for the host, whichever way comes first; echoes of each path's own."""

    def runTest(self) -> None:
        for shift in (None, -1500):
            self.switch(new=NewWay(**{**_fields(NEW_WAY), "ts_shift": shift}))
            self.new(0, None, b"a", To.HOST, tsval=7100)
            self.old(IN + 1400, OUT + 600, bytes(600), To.HOST, tsval=5050)
            self.new(1, None, b"b", To.HOST, tsval=7050)
            self.sends(self.segment(OUT + 1000, IN + 1400, b"c", tsval=6100, tsecr=5200))
            self.sends(self.segment(OUT + 600, IN + 2002, bytes(400), tsval=6100, tsecr=9000))
            self.stop()


class Drained(SwitchTest):
    """Told once, whichever side comes last; also when both are before the announcement."""

    def runTest(self) -> None:
        self.switch()
        self.old(IN + 2000, OUT + 1000, b"", To.HOST)
        self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
        assert self.told == EPOCH
        self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW)
        self.stop()
        self.switch()
        self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
        self.old(IN + 2000, OUT + 1000, b"", To.HOST)
        assert self.told == EPOCH
        self.stop()
        self.prepare()
        self.old(IN + 2000, OUT + 1000, b"", To.HOST)
        self.sends(self.segment(OUT + 1000, IN + 2000), To.OLD)
        self.announce(cutoff=IN + 2000, edge=(OUT + 60000) % 2**32)
        assert self.told == EPOCH
        self.stop()


class Settled(SwitchTest):
    """The new way is the only one: its constants, its path, and nothing below its floor."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.switch(family)
            self.old(IN + 2000, OUT + 1000, b"", To.HOST)
            self.sends(self.segment(OUT + 1000, IN + 2000), To.NEW, To.OLD)
            self.set_entry(handover.settled(self.entry, self.registers))
            self.sends(self.segment(OUT + 1000, IN + 2000, b"on"), To.OLD)
            way = self.entry.old
            self.arrives(
                Way.OLD,
                self.segment(IN + 2000 - way.seq_in, OUT + 1002 + way.seq_out, b"on"),
                To.HOST,
            )
            self.sends(self.segment(OUT + 600, IN + 2002, bytes(400)), To.HOST)
            self.sends(self.segment(OUT + 600, IN + 2002, bytes(401)))
            self.sends(self.segment(OUT + 999, IN + 2002), To.OLD)
            self.sends(self.segment(OUT + 900, IN + 2002), To.OLD)
            assert self.registers.counts[Count.LATE_OLD] == 1
            assert self.registers.counts[Count.STRADDLES] == 1
            # The old path's packets are nobody's any more.
            self.arrives(Way.NEW, self.segment(1, 2, b"late"))
            self.query()
            self.stop()


def _fields(new: NewWay) -> dict[str, object]:
    return {name: getattr(new, name) for name in new.__dataclass_fields__}
