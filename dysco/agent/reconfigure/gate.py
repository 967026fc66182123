"""The rules of a leg's gate: how a host's segments are held, and let go in their order.

    host --> HELD? --yes--> agent: a queue --(released)--> as if the host had sent it now
               |
               no --> departure

A segment that is held was never seen by the leg: its registers learn of it when it is let go.
While the agent lets go what it has, the host sends more. So holding ends in the data plane, and
only when nothing was held since the last time that the agent asked: whatever is let go has left
before the first segment that passes by itself.
"""

from __future__ import annotations

from dysco.agent.reconfigure.state import Count, Entry, Gate, Registers


def holds(entry: Entry, registers: Registers) -> bool:
    """A segment of the host comes: True if it is for the agent to keep."""
    if entry.gate is not Gate.HELD or registers.hold == entry.hold:
        return False
    registers.hold = entry.hold + 1
    registers.counts[Count.HELD] += 1
    return True


def is_shut(entry: Entry, registers: Registers) -> bool:
    """A segment comes, from either side: True if it is dropped."""
    if entry.gate is not Gate.SHUT:
        return False
    registers.counts[Count.SHUT] += 1
    return True


def end_hold(entry: Entry, registers: Registers, hold: int) -> bool:
    """The agent's packet-out: holding ends if nothing was held since the last one; True if so.

    `hold`: which time of holding is meant. Of another one it is over.
    """
    if entry.gate is not Gate.HELD or entry.hold != hold:
        return True
    if registers.hold == entry.hold + 1:
        registers.hold = 0
        return False
    registers.hold = entry.hold
    return True
