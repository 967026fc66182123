"""The packets that move a leg from one path to the other: latch, announce, turn round, settle.

    left anchor                                   right anchor
    latch: C_L := sent      -- C_L -->            C_in := C_L; C_R := sent
    C_in := C_R             <-- C_R, known --
                            -- C_L, known -->     told

Each is one pass through the pipeline, and each may be lost, repeated or late.
"""

from __future__ import annotations

from dataclasses import replace

from dysco.agent.reconfigure import tracking
from dysco.agent.reconfigure.departure import announcement, ts_shift
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import (
    Announcement,
    Count,
    Entry,
    OldWay,
    Registers,
    Way,
)


class ClosingError(Exception):
    """The host has sent a FIN: the new path's boxes might see its ACK and never the FIN itself."""


def latch(entry: Entry, registers: Registers) -> Announcement:
    """The agent's packet-out: what the host sends from now on takes the new path.

    Again, it changes nothing. Raises ClosingError, and ValueError without a new way.
    """
    new = entry.new
    if new is None:
        raise ValueError("a leg can't be latched before its new way is known")
    if registers.latched != new.epoch:
        if registers.fin_sent:
            raise ClosingError
        registers.cutoff_out = registers.snd_max
        registers.latched = new.epoch
        registers.last_way = Way.OLD
        if new.edge is not None:
            registers.edge_out = new.edge
    return announcement(registers, new)


def announced(
    entry: Entry, registers: Registers, message: Announcement
) -> tuple[Announcement | None, bool]:
    """The other anchor's announcement: what goes back, if anything, and whether it was news.

    Raises ClosingError if this side has not latched, and can't any more.
    """
    new = entry.new
    if (
        new is None
        or (message.token, message.epoch) != (new.token, new.epoch)
        or registers.revoked == new.epoch
    ):
        registers.counts[Count.ANNOUNCEMENT] += 1
        return None, False
    latch(entry, registers)
    news = registers.known != new.epoch
    if news:
        registers.cutoff_in = add(message.cutoff, new.delta_in)
        registers.known = new.epoch
        registers.ts_switch = registers.ts_old = registers.ts_given
        tracking.heard(entry, registers, add(message.edge, -new.delta_out))
    if message.known:
        registers.told = new.epoch
    if message.known and not news:
        return None, False
    return announcement(registers, new), news


def settled(entry: Entry, registers: Registers) -> Entry:
    """The entry when the old path is gone: the new way is the only one."""
    new = entry.new
    if new is None or registers.known != new.epoch:
        raise ValueError("a leg can't settle on a way that isn't in use")
    way = OldWay(
        seq_out=add(new.isn_out, 1 - registers.cutoff_out),
        seq_in=add(registers.cutoff_in, -new.isn_in - 1),
        ts_in=add(0, ts_shift(registers, new)),
        scale_in=new.scale_in,
        floor=registers.cutoff_out,
    )
    return replace(entry, old=way, new=None, path=entry.path.other)


def revoke(entry: Entry, registers: Registers) -> bool:
    """The agent's packet-out: never latch for this new way; False if that is done already.

    A packet-out, because a table write would race with an announcement.
    """
    new = entry.new
    if new is None or registers.latched == new.epoch:
        return False
    registers.revoked = new.epoch
    return True


def withdrawn(entry: Entry) -> Entry:
    """The entry of a leg that goes back: only while the other side has not latched, and never will.

    Epochs make the registers harmless.
    """
    return replace(entry, new=None)
