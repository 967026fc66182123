"""Control messages in segments of the session's own subsession, where no datagram gets through.

    | Ethernet | IP | TCP with ACK | 253 | 8 | 0xd75c | "DyCo" | control message |

What a NAT or a firewall of the network lets pass is the subsession itself. The option (RFC 6994)
is what the other data plane knows it by: such a segment is for the agent, and never for a host. Its
sequence number is such that a strict NAT takes it for data sent again: it ends where the host was
given an ACK last. To a host, were it ever to reach one, it would be nothing but old.

While the path is in use its data plane numbers the segment (`Submit.IN_BAND`): nobody else knows
numbers that are fresh enough. Of an old path that lingers they do not change any more.
"""

from __future__ import annotations

from typing import NamedTuple

from dysco.agent import packet
from dysco.agent.model import FiveTuple, MacAddress
from dysco.agent.packet import ACK
from dysco.agent.reconfigure.serial import add, diff, earliest, latest
from dysco.agent.reconfigure.state import MAX_WINDOW, Entry, Registers, switching

OPTION = b"\xfd\x08\xd7\x5cDyCo"


class Numbers(NamedTuple):
    """As they travel; `end` is one past the last byte of the message."""

    end: int
    ack: int
    window: int


def numbers(entry: Entry, registers: Registers) -> Numbers:
    """On the path that is in use, or the old one of two: what the data plane does."""
    end, ack = registers.snd_una, registers.rcv_ack
    if entry.old.floor is not None:
        end = latest(end, entry.old.floor)
    new = switching(entry, registers)
    if new is not None:
        end = earliest(end, registers.cutoff_out)
        if registers.known == new.epoch:
            ack = earliest(ack, registers.cutoff_in)
    return _travelling(entry, registers, end, ack)


def last_numbers(entry: Entry, registers: Registers) -> Numbers:
    """On the old path when both sides need it no more; `entry` is that of the two paths."""
    return _travelling(entry, registers, registers.cutoff_out, registers.cutoff_in)


def _travelling(entry: Entry, registers: Registers, end: int, ack: int) -> Numbers:
    room = max(0, diff(registers.edge_in, ack)) >> entry.scale_own
    old = entry.old
    return Numbers(add(end, old.seq_out), add(ack, -old.seq_in), min(room, MAX_WINDOW))


def segment(
    ends: FiveTuple, src_mac: MacAddress, message: bytes, at: Numbers | None = None
) -> packet.Segment:
    """The segment with a message; without numbers it is for the data plane to number."""
    end, ack, window = at or Numbers(0, 0, 0)
    head = packet.ip_header(ends)
    seq = add(end, -len(message))
    return packet.Segment(bytes(6), src_mac, head, ends, seq, ack, ACK, window, 0, OPTION, message)


def is_in_band(arrived: packet.Segment) -> bool:
    """True if a segment bears a control message; whether that is genuine is still to be seen."""
    return arrived.options == OPTION
