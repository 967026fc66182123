"""A TCP endpoint: what a host of the simulation runs, and each side of a terminating proxy.

Modelled on Linux where it matters to a reconfiguration: RFC 7323 timestamps with PAWS, window
scale, SACK, fast retransmit, RTO, window probes, the acceptance of sequence numbers, ACKs of unsent
data ignored, RFC 5961's exact RST. Streams are counted in offsets; sequence numbers exist on the
wire only.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from dysco.agent.reconfigure.segment import ACK, FIN, RST, SYN, Block, Segment
from dysco.agent.reconfigure.serial import add, diff
from tests.reconfigure.simulation.network import Clock, Timer

MIN_RTO = 0.05
MAX_RTO = 0.8
CHALLENGE_INTERVAL = 0.02


@dataclass(frozen=True)
class Options:
    """What an endpoint offers, and whether both sides did."""

    scale: int = 0
    sack: bool = True
    timestamps: bool = True
    mss: int = 100
    buffer: int = 4000
    initial_window: int = 4


class Endpoint:
    """One end of a connection that is established already."""

    def __init__(
        self,
        clock: Clock,
        name: str,
        *,
        options: Options,
        peer_scale: int,
        isn: int,
        peer_isn: int,
        ts_base: int,
        peer_ts: int,
        peer_window: int,
        send: Callable[[Segment], None],
    ) -> None:
        self.clock = clock
        self.name = name
        self.options = options
        self.peer_scale = peer_scale
        self.isn = isn
        self.peer_isn = peer_isn
        self.ts_base = ts_base
        self.send = send
        self.readable: Callable[[], None] = lambda: None
        self.writable: Callable[[], None] = lambda: None
        self.ended: Callable[[], None] = lambda: None
        # Sending.
        self.out = bytearray()
        self.closing = False
        self.una = 0
        self.nxt = 0
        self.top = 0
        self.edge = peer_window
        self.widest = peer_window
        self.wl1 = 0
        self.cwnd = options.initial_window
        self.sacked: list[tuple[int, int]] = []
        self.recover = -1
        self.hole = 0
        self.duplicates = 0
        self.rto = MIN_RTO
        self.retransmitted = 0
        self.timeouts = 0
        self.timer = Timer(clock, self._timeout)
        # Receiving.
        self.got = bytearray()
        self.read_to = 0
        self.rcv = 0
        self.offered = options.buffer
        self.last_ack = 0
        self.out_of_order: dict[int, bytes] = {}
        self.fin_at: int | None = None
        self.fin_seen = False
        self.ts_recent = peer_ts
        self.last_challenge = -1.0
        self.paws_drops = 0
        self.reset = False
        self.reset_sent = False

    # What an application does.

    def write(self, data: bytes) -> None:
        self.out += data
        self._output()

    def close(self) -> None:
        self.closing = True
        self._output()

    def abort(self) -> None:
        """RST."""
        if not self.reset:
            self.reset = self.reset_sent = True
            self.timer.stop()
            self._emit(self.top, b"", RST | ACK)

    # A copy of it elsewhere (as TCP_REPAIR makes one).

    def freeze(self) -> None:
        """Say nothing, whatever happens."""
        self.timer.stop()

    def copy(self) -> bytes:
        """All that it knows."""
        apart = ("clock", "name", "options", "send", "readable", "writable", "ended", "timer")
        return pickle.dumps({k: v for k, v in self.__dict__.items() if k not in apart})

    def revived(self, copy: bytes, send: Callable[[Segment], None]) -> Endpoint:
        """The one that a copy was made of, at another host; frozen."""
        new = object.__new__(Endpoint)
        new.__dict__.update(self.__dict__)
        new.__dict__.update(pickle.loads(copy))
        new.timer = Timer(self.clock, new._timeout)
        new.send = send
        return new

    def thaw(self) -> None:
        """Go on, and say where one is, as Linux does with a probe of the window."""
        if not self.reset:
            self._ack()
            self._output()
            if self.una < self._limit():
                self.timer.set(self.rto)

    def read(self, limit: int = 1 << 30) -> bytes:
        data = bytes(self.got[self.read_to : self.read_to + limit])
        self.read_to += len(data)
        if data and not self.reset:
            edge = self.read_to + self.options.buffer
            # A window update when it opened by a quarter of the buffer or from nothing.
            if edge - self.offered >= self.options.buffer // 4 or self.offered <= self.rcv:
                self._ack()
        return data

    @property
    def done(self) -> bool:
        """True if all was sent, acknowledged and received, FINs too."""
        return self.reset or (self.closing and self.una == len(self.out) + 1 and self.fin_seen)

    @property
    def room(self) -> int:
        """How much more an application may write."""
        return max(0, self.options.buffer - (len(self.out) - self.una))

    # Segments out.

    def _limit(self) -> int:
        return len(self.out) + (1 if self.closing else 0)

    def _output(self) -> None:
        if self.reset:
            return
        mss, limit = self.options.mss, self._limit()
        while True:
            self._skip_sacked()
            room = min(self.edge, self.una + self.cwnd * mss)
            end = min(self.nxt + mss, limit, max(room, self.nxt))
            for start, _ in self.sacked:
                if self.nxt < start < end:
                    end = start
            if end <= self.nxt:
                break
            if end - self.nxt < mss and end < limit and end != self.top and self.nxt > self.una:
                break
            self._send_range(self.nxt, end)
            self.nxt = end
            self.top = max(self.top, end)
        if self.una < self._limit() and not self.timer.armed:
            self.timer.set(self.rto)

    def _skip_sacked(self) -> None:
        for start, end in self.sacked:
            if start <= self.nxt < end:
                self.nxt = end

    def _send_range(self, start: int, end: int) -> None:
        if start < self.top:
            self.retransmitted += 1
        size = len(self.out)
        data = bytes(self.out[start : min(end, size)])
        self._emit(start, data, ACK | (FIN if end > size else 0))

    def _emit(self, offset: int, data: bytes, flags: int) -> None:
        edge = max(self.offered, self.read_to + self.options.buffer)
        scale = self.options.scale
        window = min(0xFFFF, max(0, edge - self.rcv) >> scale)
        self.offered = max(self.offered, self.rcv + (window << scale))
        acked = self.rcv + (1 if self.fin_seen else 0)
        self.last_ack = acked
        stamps = self.options.timestamps
        self.send(
            Segment(
                add(self.isn, 1 + offset),
                add(self.peer_isn, 1 + acked),
                flags,
                window,
                data,
                self._blocks() if self.options.sack and self.out_of_order else (),
                add(self.ts_base, int(self.clock.now * 1000)) if stamps else None,
                self.ts_recent if stamps else 0,
            )
        )

    def _blocks(self) -> tuple[Block, ...]:
        merged: list[list[int]] = []
        for start in sorted(self.out_of_order):
            end = start + len(self.out_of_order[start])
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        base = self.peer_isn
        return tuple((add(base, 1 + a), add(base, 1 + b)) for a, b in merged[:3])

    def _ack(self) -> None:
        # As Linux: never beyond the window that the peer offers.
        self._emit(max(self.una, min(self.top, self.edge)), b"", ACK)

    def _challenge(self) -> None:
        if self.clock.now - self.last_challenge >= CHALLENGE_INTERVAL:
            self.last_challenge = self.clock.now
            self._ack()

    def _timeout(self) -> None:
        if self.reset or self.una >= self._limit():
            return
        self.timeouts += 1
        self.rto = min(self.rto * 2, MAX_RTO)
        if self.edge <= self.una:
            # A window probe: one byte below all that was acknowledged, as Linux.
            self._emit(self.una - 1, b"", ACK)
            self.timer.set(self.rto)
            return
        self.nxt = self.una
        self.recover = -1
        self.duplicates = 0
        self.sacked = []
        self.cwnd = 1
        self._output()
        self.timer.set(self.rto)

    # Segments in.

    def receive(self, s: Segment) -> None:
        if self.reset or s.flags & SYN:
            return
        rcv = self.rcv + (1 if self.fin_seen else 0)
        seq = rcv + diff(s.seq, add(self.peer_isn, 1 + rcv))
        end = seq + len(s.data) + (s.flags & FIN)
        if s.tsval is not None and not s.flags & RST and diff(s.tsval, self.ts_recent) < 0:
            self.paws_drops += 1
            self._out_of_window(s)
            return
        if end < self.last_ack or seq > max(self.offered, rcv):
            if not s.flags & RST:
                self._out_of_window(s)
            return
        if s.flags & RST:
            if seq == rcv:
                self.reset = True
                self.timer.stop()
                self.ended()
            else:
                self._challenge()
            return
        if s.tsval is not None and seq <= self.last_ack and diff(s.tsval, self.ts_recent) > 0:
            self.ts_recent = s.tsval
        if not self._take_ack(s, seq):
            self._challenge()
            return
        if s.data or s.flags & FIN:
            self._take_data(s, seq)
            if not self.reset:
                self._ack()
        self._output()

    def _out_of_window(self, s: Segment) -> None:
        if s.data or s.flags & FIN:
            self._ack()
        else:
            self._challenge()

    def _take_ack(self, s: Segment, seq: int) -> bool:
        ack = self.una + diff(s.ack, add(self.isn, 1 + self.una))
        if ack > self.top:
            return False
        if ack < self.una - self.widest:
            # RFC 5961, 5.2: its data, too, is not believed.
            return False
        edge = ack + (s.window << self.peer_scale)
        self.widest = max(self.widest, edge - ack)
        if ack < self.una:
            return True
        same = edge == self.edge
        if ack > self.una or seq > self.wl1 or (seq == self.wl1 and edge > self.edge):
            self.edge = edge
            self.wl1 = seq
        if ack > self.una:
            self._acked(ack)
        if s.sack:
            self._take_blocks(s.sack)
        if ack == self.una and self.top > self.una and not s.data and (s.sack or same):
            self.duplicates += 1
        if self.recover < 0 and self.top > self.una:
            beyond = sum(b - a for a, b in self.sacked)
            lost = beyond >= 3 * self.options.mss or len(self.sacked) >= 3
            if lost if self.options.sack else self.duplicates >= 3:
                self.recover = self.top
                self.hole = self.una
                self.cwnd = max(2, self.cwnd // 2)
        if self.recover >= 0:
            self._repair()
        return True

    def _acked(self, ack: int) -> None:
        self.una = ack
        self.nxt = max(self.nxt, ack)
        self.sacked = [(a, b) for a, b in self.sacked if b > ack]
        self.duplicates = 0
        self.rto = MIN_RTO
        self.cwnd = min(self.cwnd + 1, 40)
        self.timer.stop()
        if ack < self._limit() and (self.top > ack or self.edge <= ack):
            self.timer.set(self.rto)
        if self.recover >= 0 and ack >= self.recover:
            self.recover = -1
        self.writable()

    def _repair(self) -> None:
        """The next hole below what was SACKed, or the first one without SACK."""
        at = max(self.una, self.hole)
        for start, end in self.sacked:
            if start <= at < end:
                at = end
        if self.options.sack:
            if not self.sacked or at >= self.sacked[-1][0]:
                return
        elif at > self.una or at >= self.recover:
            return
        end = min(at + self.options.mss, self._limit(), self.recover)
        for start, _ in self.sacked:
            if at < start < end:
                end = start
        self._send_range(at, end)
        self.hole = end

    def _take_blocks(self, blocks: tuple[Block, ...]) -> None:
        base = add(self.isn, 1 + self.una)
        ranges = list(self.sacked)
        for start, end in blocks:
            a, b = self.una + diff(start, base), self.una + diff(end, base)
            if self.una < b <= self.top and a < b:
                ranges.append((max(a, self.una), b))
        ranges.sort()
        merged: list[tuple[int, int]] = []
        for a, b in ranges:
            if merged and a <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
            else:
                merged.append((a, b))
        self.sacked = merged

    def _take_data(self, s: Segment, seq: int) -> None:
        end = seq + len(s.data)
        if s.flags & FIN and end <= self.offered:
            self.fin_at = end
        if self.fin_seen or (end <= self.rcv and not s.flags & FIN):
            return
        data = s.data
        if end > self.offered:
            data = data[: max(0, self.offered - seq)]
        if seq < self.rcv:
            data, seq = data[self.rcv - seq :], self.rcv
        if data:
            known = self.out_of_order.get(seq)
            if known is None or len(known) < len(data):
                self.out_of_order[seq] = data
        progress = False
        while self.out_of_order:
            start = min(self.out_of_order)
            if start > self.rcv:
                break
            piece = self.out_of_order.pop(start)
            if start + len(piece) > self.rcv:
                self.got += piece[self.rcv - start :]
                self.rcv = start + len(piece)
                progress = True
        if self.fin_at == self.rcv:
            self.fin_seen = True
            progress = True
        if progress:
            self.readable()
