"""Middleboxes: what passes, shifts, checks, relays, and dies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from dysco.agent.reconfigure.messages import Deltas
from dysco.agent.reconfigure.sack import shift
from dysco.agent.reconfigure.segment import ACK, FIN, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add, diff
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.network import Clock
from tests.reconfigure.simulation.tcp import Endpoint

LEFT, RIGHT = 0, 1


class Box:
    """Passes everything. `emit(side, segment)` sends out on a side."""

    def __init__(self) -> None:
        self.emit: Callable[[int, Segment], None] = lambda side, segment: None
        self.dead = False

    def receive(self, side: int, segment: Segment) -> None:
        """A segment that came in on a side."""
        if not self.dead:
            self.emit(1 - side, segment)

    def deltas(self) -> Deltas:
        """What this box adds to sequence numbers."""
        return Deltas()

    def close(self) -> None:
        """Off the path."""
        self.dead = True


class Shifter(Box):
    """Adds a constant to the sequence numbers of each direction."""

    def __init__(self, rightwards: int, leftwards: int) -> None:
        super().__init__()
        self.by = (rightwards, leftwards)

    def receive(self, side: int, segment: Segment) -> None:
        s, mine, other = segment, self.by[side], self.by[1 - side]
        shifted = Segment(
            add(s.seq, mine),
            add(s.ack, -other) if s.flags & ACK else s.ack,
            s.flags,
            s.window,
            s.data,
            shift(s.sack, -other),
            s.tsval,
            s.tsecr,
        )
        super().receive(side, shifted)

    def deltas(self) -> Deltas:
        return Deltas(*self.by)


class Inserter(Box):
    """Puts a header in front of what goes to the right, without ending the connection."""

    def __init__(self, header: bytes) -> None:
        super().__init__()
        self.header = header
        self.start: int | None = None
        """The first byte that goes to the right."""
        self.has_begun = False

    def receive(self, side: int, segment: Segment) -> None:
        s, size = segment, len(self.header)
        if s.flags & SYN and side == LEFT:
            self.start, self.has_begun = add(s.seq, 1), False
        elif self.start is not None and side == LEFT:
            ahead = diff(s.seq, self.start)
            if ahead == 0 and s.data:
                self.has_begun = True
                s = replace(s, data=self.header + s.data)
            elif ahead > 0 or (self.has_begun and ahead == 0):
                s = replace(s, seq=add(s.seq, size))
        elif self.start is not None and s.flags & ACK:
            acked = add(self.start, max(0, diff(s.ack, self.start) - size))
            s = replace(s, ack=min(acked, s.ack, key=partial(_from, self.start)))
            s = replace(s, sack=shift(s.sack, -size))
        super().receive(side, s)


def _from(start: int, number: int) -> int:
    return diff(number, start)


@dataclass
class _Direction:
    """What conntrack keeps of one sender (nf_conntrack_proto_tcp.c), and an inspector."""

    scale: int
    end: int = 0
    max_end: int = 0
    max_window: int = 0
    isn: int | None = None
    whole: int = 0
    """Bytes from the first on that were seen without a gap."""
    pieces: dict[int, int] = field(default_factory=dict)
    max_ack: int = 0


class Firewall(Box):
    """Linux conntrack's strict window check, and an inspector that wants every byte.

    What conntrack calls invalid is dropped and counted; an ACK of a byte that never came by, or
    data below the first byte, is a complaint.
    """

    def __init__(self, scales: tuple[int, int], name: str) -> None:
        super().__init__()
        self.name = name
        self.sides = (_Direction(scales[0]), _Direction(scales[1]))
        self.invalid = 0
        self.invalid_because: list[str] = []

    def receive(self, side: int, segment: Segment) -> None:
        if self.dead:
            return
        sender, receiver = self.sides[side], self.sides[1 - side]
        why = self._why_invalid(sender, receiver, segment)
        if why:
            self.invalid += 1
            self.invalid_because.append(f"{why}: side {side} {segment}")
            return
        self._inspect(sender, receiver, segment)
        self.emit(1 - side, segment)

    def _why_invalid(self, sender: _Direction, receiver: _Direction, s: Segment) -> str:
        window = s.window if s.flags & SYN else s.window << sender.scale
        if s.flags & SYN:
            self._opened(sender, receiver, s, window)
            return ""
        if s.flags & RST:
            ahead = diff(s.seq, receiver.max_ack)
            known = sender.isn is not None and receiver.max_window > 0
            return "reset out of window" if known and not 0 <= ahead <= receiver.max_window else ""
        if sender.isn is None or receiver.isn is None:
            return "no handshake"
        sacked = s.ack
        for _, block_end in s.sack:
            if diff(block_end, sacked) > 0:
                sacked = block_end
        if not sender.max_window:
            self._picked_up(sender, receiver, s, window, sacked)
        if diff(s.seq, sender.max_end) > 0:
            return "beyond the window"
        if receiver.max_window and diff(s.end, add(sender.end, -receiver.max_window - 1)) <= 0:
            return "below the window"
        if diff(sacked, receiver.end) > 0:
            return "acks what was not sent"
        if diff(s.ack, add(receiver.end, -max(sender.max_window, 66000) - 1)) <= 0:
            return "acks what is too old"
        self._note(sender, receiver, s, window, sacked)
        return ""

    @staticmethod
    def _note(
        sender: _Direction, receiver: _Direction, s: Segment, window: int, sacked: int
    ) -> None:
        wide = window + diff(sacked, s.ack)
        sender.max_window = max(sender.max_window, wide)
        if diff(s.end, sender.end) > 0:
            sender.end = s.end
        if diff(s.end, sender.max_end) > 0:
            receiver.max_window += diff(s.end, sender.max_end)
        if diff(add(sacked, window), receiver.max_end) >= 0:
            receiver.max_end = add(sacked, max(window, 1))
        if diff(s.ack, sender.max_ack) > 0:
            sender.max_ack = s.ack

    def forget_edges(self) -> None:
        """Its copy at another host knows no edges of windows: ctnetlink does not carry them."""
        for side in self.sides:
            side.end = side.max_end = side.max_window = side.max_ack = 0

    @staticmethod
    def _picked_up(
        sender: _Direction, receiver: _Direction, s: Segment, window: int, sacked: int
    ) -> None:
        """The first segment of a direction after that is believed, whatever it says."""
        sender.end, sender.max_window, sender.max_ack = s.end, max(window, 1), s.ack
        sender.max_end = add(s.end, sender.max_window)
        if not receiver.max_window:
            receiver.end = receiver.max_end = sacked

    @staticmethod
    def _opened(sender: _Direction, receiver: _Direction, s: Segment, window: int) -> None:
        if sender.isn is None:
            sender.isn = s.seq
            sender.end = sender.max_end = s.end
            sender.max_window = max(window, 1)
        if s.flags & ACK:
            receiver.max_end = add(s.ack, max(window, 1))
            sender.max_ack = s.ack

    def _inspect(self, sender: _Direction, receiver: _Direction, s: Segment) -> None:
        if s.flags & (SYN | RST) or sender.isn is None or receiver.isn is None:
            return
        at = sender.whole + diff(s.seq, add(sender.isn, 1 + sender.whole))
        if s.has_content:
            if at < 0:
                raise ComplaintError(f"{self.name}: data below the first byte: {s}")
            sender.pieces[at] = max(sender.pieces.get(at, 0), at + len(s.data) + (s.flags & FIN))
            while sender.pieces:
                start = min(sender.pieces)
                if start > sender.whole:
                    break
                sender.whole = max(sender.whole, sender.pieces.pop(start))
        acked = receiver.whole + diff(s.ack, add(receiver.isn, 1 + receiver.whole))
        if acked > receiver.whole:
            raise ComplaintError(f"{self.name}: {acked - receiver.whole} bytes never came by: {s}")


class Proxy(Box):
    """Terminates both sides and relays; acknowledges what it has not delivered."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.ends: list[Endpoint] = []

    def attach(self, left: Endpoint, right: Endpoint) -> None:
        """The two connections."""
        self.ends = [left, right]
        for one, other in ((left, right), (right, left)):
            one.readable = partial(self._relay, one, other)
            other.writable = partial(self._relay, one, other)

    def receive(self, side: int, segment: Segment) -> None:
        if not self.dead:
            self.ends[side].receive(segment)

    @staticmethod
    def _relay(source: Endpoint, sink: Endpoint) -> None:
        if sink.room > 0 and source.read_to < source.rcv:
            data = source.read(sink.room)
            if data:
                sink.write(data)
        if source.fin_seen and source.read_to == source.rcv and not sink.closing:
            sink.close()

    def deltas(self) -> Deltas:
        left, right = self.ends
        return Deltas(right.isn - left.peer_isn, left.isn - right.peer_isn, relays=True)

    def close(self) -> None:
        for end in self.ends:
            end.abort()
        super().close()
