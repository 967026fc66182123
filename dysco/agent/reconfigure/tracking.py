"""What the data plane notes about a leg: how far its host has sent and acknowledged.

One segment moves a register forwards by at most `Entry.jump`, so that an absurd sequence number
(which a host would ignore, or a stranger made up) poisons nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from dysco.agent.reconfigure.segment import ACK, FIN, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add, diff, latest
from dysco.agent.reconfigure.state import Count, Entry, Registers


class Moved(NamedTuple):
    """What a segment of the host said that it had not said before."""

    ack: bool
    edge: bool
    ack_before: int


def _advance(entry: Entry, registers: Registers, now: int, before: int) -> bool:
    if now == before:
        return False
    ahead = diff(now, before)
    if ahead > entry.jump or ahead < -entry.jump:
        registers.counts[Count.JUMP] += 1
        return False
    return ahead > 0


def _begin(registers: Registers, isn: int) -> None:
    """A SYN-ACK, and not one that is sent again: whatever was here is of another connection.

    It says all of both directions, so that the SYN, which goes by the control logic, need not.
    """
    registers.isn = isn
    registers.fin_sent = False
    registers.latched = registers.revoked = registers.known = registers.told = 0


def offered(segment: Segment, scale: int) -> int:
    """Right edge of the window in a segment; a SYN's window is never scaled."""
    shift = 0 if segment.flags & SYN else scale
    return add(segment.ack, segment.window << shift)


def sent(entry: Entry, registers: Registers, segment: Segment) -> Moved:
    """The host sent a segment."""
    flags = segment.flags
    if flags & SYN:
        if flags & ACK and registers.isn != segment.seq:
            _begin(registers, segment.seq)
            registers.snd_max = segment.end
            registers.snd_una = segment.seq
            registers.edge_out = add(segment.seq, 1)
            registers.ts_sent = segment.tsval or 0
            registers.rcv_ack = segment.ack
            registers.edge_in = offered(segment, 0)
            registers.ts_given = segment.tsecr if segment.tsval is not None else 0
        return Moved(False, False, registers.rcv_ack)
    if segment.data and not flags & RST:
        top = add(segment.seq, len(segment.data))
        if _advance(entry, registers, top, registers.snd_max):
            registers.snd_max = top
    if flags & FIN:
        # Also ahead of bytes that a box, as host, is still to send on.
        registers.fin_sent |= abs(diff(segment.end, registers.snd_max)) <= entry.jump
    if flags & RST:
        # It goes by the old path alone: a latch behind it would take it for that path's end.
        registers.fin_sent = True
    if segment.tsval is not None:
        registers.ts_sent = segment.tsval
    ack_before = registers.rcv_ack
    if not flags & ACK or flags & RST:
        return Moved(False, False, ack_before)
    moved = _advance(entry, registers, segment.ack, ack_before)
    if moved:
        registers.rcv_ack = segment.ack
    edge = offered(segment, entry.scale_own)
    wider = _advance(entry, registers, edge, registers.edge_in)
    if wider:
        registers.edge_in = edge
    return Moved(moved, wider, ack_before)


def received(entry: Entry, registers: Registers, segment: Segment) -> None:
    """The host is given a segment, in its own space."""
    flags = segment.flags
    if flags & SYN:
        if flags & ACK and registers.isn != segment.seq:
            _begin(registers, segment.seq)
            registers.snd_max = registers.snd_una = segment.ack
            registers.edge_out = offered(segment, 0)
            registers.ts_sent = segment.tsecr if segment.tsval is not None else 0
            registers.rcv_ack = segment.seq
            registers.edge_in = add(segment.seq, 1)
            registers.ts_given = segment.tsval or 0
        return
    if segment.tsval is not None:
        registers.ts_given = latest(segment.tsval, registers.ts_given)
    if not flags & ACK or flags & RST:
        return
    if _advance(entry, registers, segment.ack, registers.snd_una):
        registers.snd_una = segment.ack


def stamped(entry: Entry, registers: Registers, segment: Segment) -> None:
    """A segment came by the old path of two."""
    if segment.tsval is not None:
        registers.ts_old = add(segment.tsval, entry.old.ts_in)


def heard(entry: Entry, registers: Registers, edge: int) -> bool:
    """The other host offered a window up to there; True if that is more than before."""
    wider = _advance(entry, registers, edge, registers.edge_out)
    if wider:
        registers.edge_out = edge
    return wider
