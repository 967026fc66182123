"""Segments of the rules as frames, and back."""

from __future__ import annotations

import struct

from dysco.agent import packet
from dysco.agent.model import FiveTuple, MacAddress
from dysco.agent.options import Ecn, Negotiated, walk
from dysco.agent.reconfigure.segment import ACK, CWR, ECE, SYN, Segment

_SACK, _TIMESTAMPS = 5, 8
_ECN = {(Ecn.CLASSIC, False): ECE | CWR, (Ecn.CLASSIC, True): ECE}
"""Flags of a new path's SYN, and SYN-ACK; the accurate kind is not played to its boxes."""
_STAMPS = struct.Struct("!BBBBII")


def to_segment(frame: packet.Segment) -> Segment:
    """What the rules look at. A SACK block or timestamp that makes no sense is left out."""
    options = frame.options
    blocks: list[tuple[int, int]] = []
    tsval, tsecr = None, 0
    for kind, at, length in walk(options):
        if kind == _TIMESTAMPS and length == 10:
            tsval, tsecr = struct.unpack_from("!II", options, at + 2)
        elif kind == _SACK and length % 8 == 2:
            blocks = list(struct.iter_unpack("!II", options[at + 2 : at + length]))
    return Segment(
        frame.seq,
        frame.ack,
        frame.flags & 0x3F,
        frame.window,
        frame.payload,
        tuple(blocks),
        tsval,
        tsecr,
    )


def to_frame(
    segment: Segment,
    ends: FiveTuple,
    src_mac: MacAddress,
    dst_mac: MacAddress = bytes(6),
    offered: Negotiated | None = None,
) -> packet.Segment:
    """The frame of a segment; `offered`: the options of a SYN or SYN-ACK."""
    parts = []
    flags = segment.flags
    if flags & SYN and offered is not None:
        flags |= _ECN.get((offered.ecn, bool(flags & ACK)), 0)
        if offered.mss is not None:
            parts.append(struct.pack("!BBH", 2, 4, offered.mss))
        if offered.window_scale is not None:
            parts.append(struct.pack("!BBBB", 1, 3, 3, offered.window_scale))
        if offered.sack_permitted:
            parts.append(b"\x01\x01\x04\x02")
    if segment.tsval is not None:
        parts.append(_STAMPS.pack(1, 1, _TIMESTAMPS, 10, segment.tsval, segment.tsecr))
    if segment.sack:
        blocks = b"".join(struct.pack("!II", *block) for block in segment.sack)
        parts.append(bytes((1, 1, _SACK, 2 + len(blocks))) + blocks)
    return packet.Segment(
        dst_mac,
        src_mac,
        packet.ip_header(ends),
        ends,
        segment.seq,
        segment.ack,
        flags,
        segment.window,
        0,
        b"".join(parts),
        segment.data,
    )
