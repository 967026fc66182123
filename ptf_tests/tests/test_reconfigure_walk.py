"""A leg led at random through a reconfiguration and out of it, beside the executable reference.

Every step near what matters then: cutoffs, windows, the wrap of the sequence numbers.
"""

from __future__ import annotations

import random
from dataclasses import replace

from common.legs import NEW_WAY, LegTest, options_of
from common.network import FAMILIES

from dysco.agent.reconfigure import handover
from dysco.agent.reconfigure.segment import ACK, FIN, PSH, RST, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Entry, OldWay, Way, switching

STEPS = 90
OLD_WAY = OldWay(seq_out=0x80000001, seq_in=0x7FFF0000, ts_in=0xFFFFFFF0, scale_in=4)


class Walk(LegTest):
    """From the SYN-ACK to the settled new way."""

    def runTest(self) -> None:
        for number, family in enumerate(FAMILIES):
            self.source = random.Random(number)
            self.start(family, Entry(OLD_WAY, scale_own=2, scale_heard=3))
            for step in range(STEPS):
                if step == STEPS // 6:
                    self.set_entry(replace(self.entry, new=NEW_WAY))
                elif step == 2 * STEPS // 6:
                    self.latch()
                elif step == 3 * STEPS // 6:
                    self.announce(cutoff=self.registers.rcv_ack, edge=self.registers.edge_out)
                elif step == 5 * STEPS // 6:
                    self.set_entry(handover.settled(self.entry, self.registers))
                self.step()
            assert self.entry.old.floor is not None
            self.query()
            self.stop()

    def step(self) -> None:
        """One segment, one way or the other."""
        way = self.source.choice((None, None, Way.OLD, Way.NEW))
        r, old, new = self.registers, self.entry.old, self.entry.new
        if way is None:
            segment = self.near(r.snd_max, r.rcv_ack, r.ts_sent, r.ts_given)
            self.sends(segment, options=self.arranged(segment))
        elif way is Way.NEW and new is not None and switching(self.entry, r):
            start = add(new.isn_in, 1), add(new.isn_out, 1)
            segment = self.near(*start, new.ts_in, r.ts_sent)
            self.arrives(way, segment, options=self.arranged(segment))
        elif way is Way.NEW:
            self.handshakes(replace(self.near(0, 0, 0, 0), data=b"", sack=(), flags=ACK))
        else:
            numbers = add(r.rcv_ack, -old.seq_in), add(r.snd_max, old.seq_out)
            segment = self.near(*numbers, add(r.ts_given, -old.ts_in), r.ts_sent)
            self.arrives(Way.OLD, segment, options=self.arranged(segment))

    def near(self, seq: int, ack: int, tsval: int, tsecr: int) -> Segment:
        """A segment near these numbers."""
        choose, some = self.source.choice, self.source.randint
        stamped = self.source.random() < 0.7
        size = choose((0, 0, 1, 101, 1400))
        blocks = []
        for _ in range(some(0, 3 if stamped else 4)):
            left = add(ack, some(-1500, 3000))
            blocks.append((left, add(left, some(1, 1400))))
        flags = choose((ACK, ACK, ACK, ACK | PSH))
        if self.source.random() < 0.04 and switching(self.entry, self.registers):
            flags = choose((ACK | FIN, RST, RST | ACK))
        return Segment(
            add(seq, choose((0, 0, -size, some(-1500, 1500)))),
            add(ack, choose((0, 0, some(-1500, 1500)))),
            flags,
            choose((0, 500, 0xFFFF)),
            self.source.randbytes(size),
            tuple(blocks),
            add(tsval, some(-2, 20)) if stamped else None,
            add(tsecr, some(-2, 20)) if stamped else 0,
        )

    def arranged(self, segment: Segment) -> list[object]:
        """Its options in some order."""
        options = [option for option in options_of(segment) if option[0] != "NOP"]
        self.source.shuffle(options)
        out: list[object] = []
        for option in options:
            out += [("NOP", None)] * self.source.randint(0, 2)
            out.append(option)
        return out
