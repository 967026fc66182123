"""Control messages in segments of the session's own subsession, and announcements through a NAT."""

from __future__ import annotations

from common.legs import CONTROL_PORT, IN_BAND, LegTest, frame_of
from common.network import FAMILIES, A, Drop, Submit, session
from test_reconfigure import IN, OLD_WAY, OUT, SwitchTest

from dysco.agent.reconfigure import handover
from dysco.agent.reconfigure.segment import ACK, PSH, Segment
from dysco.agent.reconfigure.state import Entry, Path, To, Way

MESSAGES = (b"DyCo", b"DyCo and an odd byte", bytes(300))


class InBand(SwitchTest):
    """Numbered for the old path, before, while and after there are two; read on either."""

    def tell(self) -> None:
        for message in MESSAGES:
            self.tells_in_band(message)
            for path in Path:
                self.is_told_in_band(path, message)
        self.query()

    def runTest(self) -> None:
        for family in FAMILIES:
            self.start(family, Entry(scale_own=3))
            self.tell()
            self.stop()
            self.switch(family)
            self.tell()
            # Both hosts are past the cutoffs: the old path's numbers stay where they were.
            self.sends(self.segment(OUT + 1000, IN + 2000, bytes(100)), To.NEW, To.OLD)
            self.new(0, 100, bytes(50), tsval=7100)
            self.tell()
            self.set_entry(handover.settled(self.entry, self.registers))
            self.tell()
            self.stop()


class NotInBand(LegTest):
    """Another option of that kind, or that size: a segment for the host as any other."""

    def runTest(self) -> None:
        self.start("v4", Entry(OLD_WAY))
        self.sends(self.segment(OUT, IN, bytes(100)), To.OLD)
        numbers = ((IN - OLD_WAY.seq_in) % 2**32, (OUT + 100 + OLD_WAY.seq_out) % 2**32)
        for option in ((253, b"\xd7\x5cDyCa"), (254, b"\xd7\x5cDyCo"), (253, b"\xd7\x5d\0\0\0\1")):
            for flags in (ACK, ACK | PSH):
                segment = Segment(*numbers, flags, 1000, b"DyCo")
                self.arrives(Way.OLD, segment, To.HOST, options=[option])
        self.stop()


class OfNoSession(LegTest):
    """A message for a session that is not tracked, or not there, goes nowhere, and is counted."""

    def runTest(self) -> None:
        segment = Segment(0, 0, ACK, 0, b"DyCo")
        self.start("v4", slot=0)
        for sport in (40000, 40001):
            ends = session("v4", sport=sport)
            frame = frame_of(ends, segment, (A.mac, "00:00:00:00:00:00"), IN_BAND)
            with self.dropped(Drop.BAD_PACKET_OUT):
                self.device.send(frame, A.port, Submit.IN_BAND)
                self.collect([], [])
        self.stop()


class AnnouncementsThroughANat(SwitchTest):
    """They go back to the port that the NAT chose, also those ahead of new data."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.prepare(family)
            self.other_port = 40123
            self.announce(cutoff=IN + 2000, edge=(OUT + 60000) % 2**32)
            self.sends(self.segment(OUT + 1000, IN + 1400, bytes(10)), To.NEW)
            self.other_port = CONTROL_PORT
            self.latch()
            self.sends(self.segment(OUT + 1010, IN + 1400, bytes(10)), To.NEW)
            self.stop()
