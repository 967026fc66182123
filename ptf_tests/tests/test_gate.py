"""A leg's gate while its session's state moves: held, let go in order, shut; a leg that arrives."""

from __future__ import annotations

from dataclasses import replace

from common.legs import ISN_FAR, ISN_OWN, LegTest
from common.network import FAMILIES

from dysco.agent.reconfigure.segment import ACK, FIN, RST
from dysco.agent.reconfigure.state import Count, Entry, Gate, OldWay, Registers, To, Way

OUT, IN = ISN_OWN + 1, ISN_FAR + 1
"""The first byte of each direction."""
OLD_WAY = OldWay(seq_out=0x12345678, seq_in=0xFEDCBA98, ts_in=0x80000001, scale_in=7)
HOLD = 0x89ABCDEE


class GateTest(LegTest):
    """Base: a leg that has sent 5 bytes, and got 1,200."""

    def prepare(self, family: str) -> None:
        """Its gate is open."""
        self.start(family, Entry(OLD_WAY, scale_own=3, scale_heard=2))
        self.sends(self.segment(OUT, IN, b"hello"), To.OLD)
        self.gets(IN, OUT + 5, bytes(1200))

    def gets(self, seq: int, ack: int, data: bytes = b"", *to: To, flags: int = ACK) -> None:
        """A segment comes for A, given in A's numbers."""
        way = self.entry.old
        segment = self.segment(
            seq - way.seq_in, ack + way.seq_out, data, flags, tsval=5100, tsecr=6000
        )
        self.arrives(Way.OLD, segment, *to)

    def gate(self, gate: Gate, hold: int = 0) -> None:
        """The one write that closes or opens it."""
        self.set_entry(replace(self.entry, gate=gate, hold=hold))


class Holds(GateTest):
    """What the host sends goes to its agent, once let go it leaves, and what comes passes."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.prepare(family)
            self.gate(Gate.HELD, HOLD)
            first = self.segment(OUT + 5, IN + 1200, b"first")
            last = self.segment(OUT + 10, IN + 1200, b"last", ACK | FIN)
            for segment in (first, last):
                self.sends(segment)
            # Nothing was seen of it, and what comes goes on.
            self.query()
            self.gets(IN + 1200, OUT + 5, bytes(100), To.HOST)
            self.sends(first, To.OLD, released=True)
            self.end_hold(HOLD)
            self.sends(last, To.OLD, released=True)
            self.end_hold(HOLD)
            self.sends(self.segment(OUT + 15, IN + 1300), To.OLD)
            assert self.registers.counts[Count.HELD] == 2
            self.query()
            self.stop()


class EndsInOrder(GateTest):
    """A hold does not end while something is on its way to the agent."""

    def runTest(self) -> None:
        self.prepare("v4")
        self.gate(Gate.HELD, HOLD)
        for turn in range(3):
            self.sends(self.segment(OUT + 5 + turn, IN + 1200, b"x"))
            self.end_hold(HOLD)
        self.end_hold(HOLD)
        self.sends(self.segment(OUT + 8, IN + 1200, b"x"), To.OLD)
        # Another hold of the same leg is one of its own; one that nobody knows is over.
        self.gate(Gate.HELD, HOLD + 2)
        self.end_hold(HOLD)
        self.sends(self.segment(OUT + 9, IN + 1200, b"x"))
        self.gate(Gate.OPEN)
        self.sends(self.segment(OUT + 9, IN + 1200, b"x"), To.OLD)
        self.end_hold(HOLD + 2)
        self.stop()


class Shuts(GateTest):
    """Nothing passes, and nobody is told of a FIN or RST that did not."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.prepare(family)
            self.gate(Gate.SHUT)
            for flags in (ACK, ACK | FIN, RST):
                self.sends(self.segment(OUT + 5, IN + 1200, b"x", flags))
                self.gets(IN + 1200, OUT + 5, b"x", flags=flags)
            assert self.registers.counts[Count.SHUT] == 6
            self.query()
            self.gate(Gate.OPEN)
            self.sends(self.segment(OUT + 5, IN + 1200, b"x"), To.OLD)
            self.gets(IN + 1200, OUT + 6, b"x")
            self.stop()


class Seeds(GateTest):
    """A leg that came from another device goes on with that one's registers."""

    def runTest(self) -> None:
        self.prepare("v4")
        self.seed(
            Registers(
                snd_max=0xFFFFFFF0,
                fin_sent=True,
                snd_una=0xFFFFFF00,
                edge_out=0x1000,
                ts_sent=1,
                rcv_ack=0x80000000,
                edge_in=0x80001000,
                ts_given=0xFFFFFFFF,
            )
        )
        self.query()
        self.sends(self.segment(0xFFFFFFF0, 0x80000010, bytes(0x20)), To.OLD)
        self.gets(0x80000010, 0x10, b"x", To.HOST)
        self.query()
        self.stop()
