"""The rules for what comes for the host, by either path.

    old path   data below C_in for the host; once the host has acknowledged C_in, answered by the
               anchor with ACK C_in; from C_in on dropped. ACK at most C_out; of data, not less than
               what the host was told last.
    new path   nothing before the other side's announcement. A stale ACK becomes what the host was
               told last.

Timestamps never go backwards while there are two paths, one of which overtakes the other: PAWS
would drop the slower one's segments. Every window that the host is told ends at max(what the other
host offered, C_out).
"""

from __future__ import annotations

from dataclasses import replace

from dysco.agent.reconfigure import gate, sack, tracking
from dysco.agent.reconfigure.departure import Sent, to_old, ts_shift
from dysco.agent.reconfigure.segment import ACK, CWR, FIN, PSH, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add, diff, earliest, latest
from dysco.agent.reconfigure.state import (
    MAX_WINDOW,
    Count,
    Entry,
    NewWay,
    Registers,
    To,
    Way,
    switching,
)


def from_network(entry: Entry, registers: Registers, way: Way, segment: Segment) -> Sent:
    """What becomes of a segment that comes for the host."""
    if gate.is_shut(entry, registers):
        return []
    new = switching(entry, registers)
    if way is Way.NEW:
        if new is None or registers.known != new.epoch:
            registers.counts[Count.EARLY_NEW] += 1
            return []
        return _by_new(entry, registers, new, segment)
    if new is None:
        return _single(entry, registers, segment)
    return _by_old(entry, registers, new, segment)


def drained(registers: Registers) -> bool:
    """True if this anchor needs the old path no more, once `known`."""
    return (
        diff(registers.rcv_ack, registers.cutoff_in) >= 0
        and diff(registers.snd_una, registers.cutoff_out) >= 0
    )


def _single(entry: Entry, registers: Registers, segment: Segment) -> Sent:
    way = entry.old
    window = segment.window
    if way.scale_in != entry.scale_heard and not segment.flags & SYN:
        window = min(MAX_WINDOW, (window << way.scale_in) >> entry.scale_heard)
    given = _in_host_space(entry, registers, segment, window)
    if way.floor is not None:
        seq = _told_again(registers, given, given.seq)
        if seq != given.seq:
            given = replace(given, seq=seq)
    tracking.received(entry, registers, given)
    if given.flags & ACK and not given.flags & (RST | SYN):
        tracking.heard(entry, registers, add(given.ack, segment.window << way.scale_in))
    return [(To.HOST, given)]


def _in_host_space(entry: Entry, registers: Registers, segment: Segment, window: int) -> Segment:
    way, tsval = entry.old, segment.tsval
    if tsval is not None:
        tsval = add(tsval, way.ts_in)
        if way.floor is not None:
            tsval = latest(tsval, registers.ts_given)
    if way.is_plain and tsval == segment.tsval and window == segment.window:
        return segment
    acks = segment.flags & ACK
    return Segment(
        add(segment.seq, way.seq_in),
        add(segment.ack, -way.seq_out) if acks else segment.ack,
        segment.flags,
        window,
        segment.data,
        sack.shift(segment.sack, -way.seq_out) if segment.sack else (),
        tsval,
        segment.tsecr,
    )


def _told_again(registers: Registers, segment: Segment, seq: int, *, by_new: bool = False) -> int:
    """Where an empty segment lies for the host; `seq`: in the host's space.

    A sender whose window shrank, as it does where a proxy had offered more than the other host,
    says what it has to say from the window's end (Linux: tcp_acceptable_seq), which may be behind
    what our host has: it would take no ACK from there. A keep-alive, one behind, stays one. And by
    the new path all is said from the cutoff on, which may be beyond our host's window as long as
    old data is still to come.
    """
    if segment.has_content or segment.flags & (RST | SYN):
        return seq
    waits = by_new and diff(registers.rcv_ack, registers.cutoff_in) < 0
    return registers.rcv_ack if waits or diff(seq, registers.rcv_ack) < -1 else seq


def _window(entry: Entry, registers: Registers, ack: int) -> int:
    """The field that tells the host how far it may send."""
    room = diff(latest(registers.edge_out, registers.cutoff_out), ack)
    return min(MAX_WINDOW, max(0, room) >> entry.scale_heard)


def _by_old(entry: Entry, registers: Registers, new: NewWay, segment: Segment) -> Sent:
    s = _in_host_space(entry, registers, segment, segment.window)
    known = registers.known == new.epoch
    tracking.stamped(entry, registers, segment)
    if s.flags & RST:
        if known and drained(registers):
            registers.counts[Count.OLD_RESET] += 1
            return []
        return [(To.HOST, s)]
    ack = earliest(s.ack, registers.cutoff_out)
    if new.edge is None:
        tracking.heard(entry, registers, add(s.ack, s.window << entry.old.scale_in))
    seq, data, flags = s.seq, s.data, s.flags
    out: Sent = []
    if known:
        cutoff = registers.cutoff_in
        done = diff(registers.rcv_ack, cutoff) >= 0
        if s.has_content and (done or diff(s.end, cutoff) > 0):
            keep = 0 if done else max(0, diff(cutoff, seq))
            registers.counts[Count.OLD_REPEATED if done else Count.OLD_BEYOND] += 1
            if 0 < keep < len(data):
                # Honest senders split there; a data plane can't.
                return []
            flags &= ~(FIN | PSH)
            if not keep:
                data, seq, flags = b"", registers.rcv_ack, flags & ~CWR
                out.append((To.OLD, _answer(entry, registers, s)))
                if diff(ack, registers.snd_una) <= 0:
                    return out
        if not data and not flags & FIN and diff(seq, cutoff) >= 0:
            seq = registers.rcv_ack
    registers.last_way = Way.OLD
    tsval = s.tsval
    if tsval is not None:
        if known and new.ts_shift is None:
            tsval = registers.ts_given
        tsval = latest(tsval, registers.ts_given)
    blocks = sack.below(s.sack, registers.cutoff_out) if s.sack else ()
    if (data or flags & FIN) and diff(ack, registers.snd_una) < 0:
        # What a proxy still holds may come when the new path has acknowledged far more: a host
        # believes no data with an ACK from before its window (RFC 5961, 5.2).
        ack, blocks = registers.snd_una, ()
    given = Segment(seq, ack, flags, _window(entry, registers, ack), data, blocks, tsval, s.tsecr)
    tracking.received(entry, registers, given)
    out.append((To.HOST, given))
    return out


def _answer(entry: Entry, registers: Registers, segment: Segment) -> Segment:
    """An ACK for old data that the host has, without asking it."""
    ack = earliest(registers.rcv_ack, registers.cutoff_in)
    room = max(0, diff(registers.edge_in, ack)) >> entry.scale_own
    bare = Segment(
        registers.cutoff_out,
        ack,
        ACK,
        min(MAX_WINDOW, room),
        tsval=None if segment.tsval is None else segment.tsecr,
        tsecr=segment.tsval or 0,
    )
    return to_old(entry, registers, bare)


def _by_new(entry: Entry, registers: Registers, new: NewWay, segment: Segment) -> Sent:
    seq = add(segment.seq, registers.cutoff_in - new.isn_in - 1)
    if segment.flags & SYN:
        return []
    cutoff = registers.cutoff_out
    acked = diff(segment.ack, add(new.isn_out, 1))
    ack = add(cutoff, acked) if acked > 0 else registers.snd_una
    flags = segment.flags
    if flags & RST:
        # The sender's numbers are past what our host has: let it take the end for real.
        return [(To.HOST, Segment(registers.rcv_ack, ack, flags & (RST | ACK), 0))]
    wider = tracking.heard(
        entry, registers, add(cutoff, max(0, acked) + (segment.window << new.scale_in))
    )
    behind = diff(registers.snd_una, cutoff) < 0 and acked <= 0
    blocks = () if behind else sack.shift(segment.sack, cutoff - new.isn_out - 1)
    if not segment.has_content and acked <= 0 and not wider:
        waits = diff(registers.edge_out, registers.snd_una) <= 0
        if behind or not (blocks or waits):
            registers.counts[Count.STALE_ACK] += 1
            return []
    tsval = segment.tsval
    if tsval is not None:
        tsval = latest(add(tsval, ts_shift(registers, new)), registers.ts_given)
    seq = _told_again(registers, segment, seq, by_new=True)
    given = Segment(
        seq, ack, flags, _window(entry, registers, ack), segment.data, blocks, tsval, segment.tsecr
    )
    registers.last_way = Way.NEW
    tracking.received(entry, registers, given)
    return [(To.HOST, given)]
