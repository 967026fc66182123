"""The rules for what the host sends: which of the two paths, and with which fields.

                          ACK below C_in                     ACK of C_in or more
    data below C_out      old, as it is                      old with ACK C_in; ACK split off: new
    data from C_out on    new with a stale ACK; ACK          new, as it is
                          split off: old
    no data               old at min(seq, C_out)             new at max(seq, C_out)

An ACK is split off only if it says something new. A stale ACK is the new path's ISN + 1; the other
anchor puts in what its host knows already. The old path hears ACK C_in once when the host gets
there, and again from `arrival` whenever old data is repeated.
"""

from __future__ import annotations

from dysco.agent.reconfigure import gate, sack, tracking
from dysco.agent.reconfigure.segment import ACK, ECE, FIN, PSH, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add, diff, earliest, latest
from dysco.agent.reconfigure.state import (
    MAX_WINDOW,
    Announcement,
    Count,
    Entry,
    NewWay,
    Registers,
    To,
    Way,
    switching,
)
from dysco.agent.reconfigure.tracking import Moved

Sent = list[tuple[To, Segment | Announcement]]


def from_host(
    entry: Entry, registers: Registers, segment: Segment, *, released: bool = False
) -> Sent:
    """What becomes of a segment that the host sends; `released`: it was held, and is let go."""
    if gate.is_shut(entry, registers):
        return []
    if not released and gate.holds(entry, registers):
        return [(To.HELD, segment)]
    moved = tracking.sent(entry, registers, segment)
    new = switching(entry, registers)
    if new is None:
        return _single(entry, registers, segment)
    if segment.flags & RST:
        return _reset(entry, registers, new, segment)
    if not segment.has_content:
        return _empty(entry, registers, new, segment, moved)
    cutoff = registers.cutoff_out
    if diff(segment.seq, cutoff) >= 0:
        return _new_data(entry, registers, new, segment, moved)
    if diff(segment.end, cutoff) <= 0:
        return _old_data(entry, registers, new, segment, moved)
    registers.counts[Count.STRADDLES] += 1
    return [(To.SPLIT, segment)]


def split(segment: Segment, cutoff: int) -> tuple[Segment, Segment]:
    """The parts of a segment before and from a cutoff that lies inside it."""
    size = diff(cutoff, segment.seq)
    s = segment
    first = Segment(
        s.seq, s.ack, s.flags & ~(FIN | PSH), s.window, s.data[:size], s.sack, s.tsval, s.tsecr
    )
    second = Segment(cutoff, s.ack, s.flags, s.window, s.data[size:], s.sack, s.tsval, s.tsecr)
    return first, second


def _single(entry: Entry, registers: Registers, segment: Segment) -> Sent:
    way, floor = entry.old, entry.old.floor
    if floor is None or diff(segment.seq, floor) >= 0 or segment.flags & SYN:
        plain = way.is_plain and entry.new is None
        return [(To.OLD, segment if plain else to_old(entry, registers, segment))]
    if not segment.has_content or segment.flags & RST:
        seq = segment.seq
        if not _is_probe(registers, segment):
            seq = latest(registers.snd_max, floor)
        elif diff(seq, floor) < -1:
            seq = add(floor, -1)
        return [(To.OLD, to_old(entry, registers, segment, seq=seq))]
    if diff(segment.end, floor) > 0:
        registers.counts[Count.STRADDLES] += 1
        return [(To.SPLIT, segment)]
    registers.counts[Count.LATE_OLD] += 1
    return [(To.HOST, answer(entry, registers, segment))]


def answer(entry: Entry, registers: Registers, segment: Segment) -> Segment:
    """An ACK to the host for what it sent, with what it knows already."""
    window = diff(registers.edge_out, registers.snd_una) >> entry.scale_heard
    return Segment(
        registers.rcv_ack,
        registers.snd_una,
        ACK,
        min(MAX_WINDOW, max(0, window)),
        tsval=None if segment.tsval is None else registers.ts_given,
        tsecr=segment.tsval or 0,
    )


def _new_data(
    entry: Entry, registers: Registers, new: NewWay, segment: Segment, moved: Moved
) -> Sent:
    out: Sent = []
    if registers.told != new.epoch:
        out.append((To.PEER, announcement(registers, new)))
    if acks_new(registers, new, segment):
        out.append((To.NEW, to_new(entry, registers, new, segment, segment.seq)))
        out += _last_for_old(entry, registers, segment, moved)
        return out
    out.append((To.NEW, to_new(entry, registers, new, segment, segment.seq)))
    if moved.ack or moved.edge:
        out.append((To.OLD, _bare_old(entry, registers, segment)))
    return out


def _old_data(
    entry: Entry, registers: Registers, new: NewWay, segment: Segment, moved: Moved
) -> Sent:
    if not acks_new(registers, new, segment):
        blocks = segment.sack
        if registers.known == new.epoch:
            blocks = sack.below(blocks, registers.cutoff_in)
        return [(To.OLD, to_old(entry, registers, segment, sack_blocks=blocks))]
    out: Sent = [(To.OLD, _clamped(entry, registers, segment))]
    if moved.ack or moved.edge:
        out.append((To.NEW, _bare_new(entry, registers, new, segment)))
    return out


def _empty(entry: Entry, registers: Registers, new: NewWay, segment: Segment, moved: Moved) -> Sent:
    cutoff = registers.cutoff_out
    if acks_new(registers, new, segment):
        if _is_probe(registers, segment) and diff(segment.seq, cutoff) == -1:
            # Below the new path's first byte: the other host answers it, as it should.
            bare = to_new(entry, registers, new, segment, segment.seq)
        else:
            bare = _bare_new(entry, registers, new, segment)
        return [(To.NEW, bare), *_last_for_old(entry, registers, segment, moved)]
    if registers.known != new.epoch:
        return [(To.OLD, _bare_old(entry, registers, segment))]
    news = moved.ack or moved.edge
    lower = sack.below(segment.sack, registers.cutoff_in)
    out: Sent = []
    if news or lower or registers.last_way is Way.OLD:
        out.append((To.OLD, _bare_old(entry, registers, segment)))
    else:
        registers.counts[Count.DUPLICATE_ACK] += 1
    opens = moved.edge and diff(registers.edge_in, registers.cutoff_in) > 0
    if opens or registers.last_way is Way.NEW:
        out.append((To.NEW, _bare_new(entry, registers, new, segment)))
    return out


def _reset(entry: Entry, registers: Registers, new: NewWay, segment: Segment) -> Sent:
    cutoff = registers.cutoff_out
    old = to_old(entry, registers, segment, seq=earliest(segment.seq, cutoff))
    if registers.known == new.epoch and diff(segment.ack, registers.cutoff_in) > 0:
        old = to_old(
            entry, registers, segment, seq=earliest(segment.seq, cutoff), ack=registers.cutoff_in
        )
    seq = latest(segment.seq, cutoff)
    return [(To.OLD, old), (To.NEW, to_new(entry, registers, new, segment, seq))]


def _last_for_old(entry: Entry, registers: Registers, segment: Segment, moved: Moved) -> Sent:
    """The ACK of all old data, when the host gets there."""
    if diff(moved.ack_before, registers.cutoff_in) >= 0:
        return []
    return [(To.OLD, _clamped(entry, registers, _bare(registers, segment)))]


def acks_new(registers: Registers, new: NewWay, segment: Segment) -> bool:
    """True if the ACK belongs to the new path."""
    return registers.known == new.epoch and diff(segment.ack, registers.cutoff_in) >= 0


def announcement(registers: Registers, new: NewWay) -> Announcement:
    """What the other anchor must know."""
    return Announcement(
        new.token,
        new.epoch,
        registers.cutoff_out,
        registers.edge_in,
        registers.known == new.epoch,
    )


def _is_probe(registers: Registers, segment: Segment) -> bool:
    """A keep-alive or a window probe: below all that the other host has acknowledged."""
    return diff(segment.seq, registers.snd_una) < 0


def _bare(registers: Registers, segment: Segment) -> Segment:
    """Only the ACK of a segment, at the cutoff or before."""
    seq = earliest(segment.seq, registers.cutoff_out)
    return Segment(
        seq,
        segment.ack,
        ACK | segment.flags & ECE,
        segment.window,
        b"",
        segment.sack,
        segment.tsval,
        segment.tsecr,
    )


def _bare_old(entry: Entry, registers: Registers, segment: Segment) -> Segment:
    bare = _bare(registers, segment)
    new = entry.new
    if new is None or registers.known != new.epoch:
        return to_old(entry, registers, bare)
    return to_old(entry, registers, bare, sack_blocks=sack.below(bare.sack, registers.cutoff_in))


def _clamped(entry: Entry, registers: Registers, segment: Segment) -> Segment:
    """For the old path, from a host that is beyond it."""
    cutoff = registers.cutoff_in
    room = diff(registers.edge_in, cutoff) >> entry.scale_own
    return to_old(
        entry, registers, segment, ack=cutoff, window=min(MAX_WINDOW, max(0, room)), sack_blocks=()
    )


def _bare_new(entry: Entry, registers: Registers, new: NewWay, segment: Segment) -> Segment:
    """Only the ACK of a segment, where the new path's boxes and the other host expect it."""
    seq = segment.seq
    if segment.has_content or diff(seq, registers.cutoff_out) < 0:
        room = latest(registers.edge_out, registers.cutoff_out)
        seq = latest(earliest(registers.snd_max, room), registers.cutoff_out)
    bare = Segment(
        seq,
        segment.ack,
        ACK | segment.flags & ECE,
        segment.window,
        b"",
        segment.sack,
        segment.tsval,
        segment.tsecr,
    )
    return to_new(entry, registers, new, bare, seq)


def to_old(
    entry: Entry,
    registers: Registers,
    segment: Segment,
    *,
    seq: int | None = None,
    ack: int | None = None,
    window: int | None = None,
    sack_blocks: tuple[tuple[int, int], ...] | None = None,
) -> Segment:
    """The segment in the old path's numbers."""
    way, new = entry.old, entry.new
    echo = segment.tsecr
    if new is not None and new.ts_shift is None and registers.known == new.epoch:
        # The host may echo the new path's timestamps already. What a proxy hears must be its own
        # last one: from an old one it would learn round-trip times as long as ago it was.
        echo = registers.ts_old
    seq = segment.seq if seq is None else seq
    ack = segment.ack if ack is None else ack
    blocks = segment.sack if sack_blocks is None else sack_blocks
    return Segment(
        add(seq, way.seq_out),
        add(ack, -way.seq_in) if segment.flags & ACK else segment.ack,
        segment.flags,
        segment.window if window is None else window,
        segment.data,
        sack.shift(blocks, -way.seq_in) if blocks else (),
        segment.tsval,
        add(echo, -way.ts_in) if segment.flags & ACK else segment.tsecr,
    )


def to_new(entry: Entry, registers: Registers, new: NewWay, segment: Segment, seq: int) -> Segment:
    """The segment in the new path's numbers; its ACK is stale if it is of old data."""
    known = registers.known == new.epoch
    start = add(new.isn_in, 1)
    window = segment.window
    blocks = segment.sack
    if known and diff(segment.ack, registers.cutoff_in) >= 0:
        ack = add(segment.ack, start - registers.cutoff_in)
    else:
        ack = start
        room = diff(registers.edge_in, registers.cutoff_in) if known else 0
        window = min(MAX_WINDOW, max(0, room) >> entry.scale_own)
        if blocks:
            blocks = sack.above(blocks, registers.cutoff_in) if known else ()
    return Segment(
        add(seq, new.isn_out + 1 - registers.cutoff_out),
        ack if segment.flags & ACK else segment.ack,
        segment.flags,
        window,
        segment.data,
        sack.shift(blocks, start - registers.cutoff_in) if blocks else (),
        segment.tsval,
        add(segment.tsecr, -ts_shift(registers, new)),
    )


def ts_shift(registers: Registers, new: NewWay) -> int:
    """What the new path adds to timestamps that arrive."""
    if new.ts_shift is not None:
        return new.ts_shift
    known = registers.known == new.epoch
    return (registers.ts_switch if known else registers.ts_given) - new.ts_in
