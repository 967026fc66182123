"""TCP options: reading them, and the tag by which a SYN is known again behind a NAT.

The tag is an experimental option (RFC 6994) that an agent puts into the SYN that it delivers to a
middlebox, and takes out of the SYN that the middlebox sends on. It lives on that one link:

    | kind 253 | length 8 | experiment id | tag (4 bytes) |
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from dysco.agent.packet import ACK, MAX_OPTIONS

EXPERIMENT_ID = 0xD75C
"""Tells our option from other experiments (RFC 6994)."""

_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _TIMESTAMPS, _EXPERIMENT = 0, 1, 2, 3, 4, 8, 253
_TAG = struct.Struct("!BBHI")
_ECE, _CWR, _AE = 0x40, 0x80, 0x100


class Ecn(IntEnum):
    """Explicit congestion notification, as a SYN asks for it or a SYN-ACK grants it."""

    NONE = 0
    CLASSIC = 1
    """RFC 3168."""
    ACCURATE = 2
    """RFC 9768: other marks mean other things."""


_ECN_SYN = {_CWR | _ECE: Ecn.CLASSIC, _AE | _CWR | _ECE: Ecn.ACCURATE}
_ECN_ANSWER = {0: Ecn.NONE, _ECE: Ecn.CLASSIC, _AE | _CWR | _ECE: Ecn.NONE}
"""All three: a broken host that sends back what came (RFC 9768, 3.1.2). Else: accurate."""


class Negotiated(NamedTuple):
    """What one side offered in its SYN or SYN-ACK. None: not there, which is not the same as 0."""

    mss: int | None
    window_scale: int | None
    sack_permitted: bool
    timestamps: bool
    ecn: Ecn = Ecn.NONE
    """By the flags, not by an option."""


def walk(options: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, length) of each option; ends where they end or make no sense any more."""
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == _END:
            return
        if kind == _NOP:
            at += 1
            continue
        if at + 1 >= len(options):
            return
        length = options[at + 1]
        if length < 2 or at + length > len(options):
            return
        yield kind, at, length
        at += length


def negotiated(options: bytes, flags: int = 0) -> Negotiated:
    """The options that matter for a session's later life, and what the SYN's flags say."""
    mss = window_scale = None
    sack = timestamps = False
    for kind, at, length in walk(options):
        if kind == _MSS and length == 4:
            mss = int.from_bytes(options[at + 2 : at + 4], "big")
        elif kind == _WINDOW_SCALE and length == 3:
            window_scale = options[at + 2]
        elif kind == _SACK_PERMITTED and length == 2:
            sack = True
        elif kind == _TIMESTAMPS and length == 10:
            timestamps = True
    marks = flags & (_AE | _CWR | _ECE)
    ecn = _ECN_ANSWER.get(marks, Ecn.ACCURATE) if flags & ACK else _ECN_SYN.get(marks, Ecn.NONE)
    return Negotiated(mss, window_scale, sack, timestamps, ecn)


def add_tag(options: bytes, tag: int) -> bytes | None:
    """The options with the tag in front; None if there is no room for it.

    In front, the others keep their alignment, and an end-of-options needs no care.
    """
    if len(options) + _TAG.size > MAX_OPTIONS:
        return None
    return _TAG.pack(_EXPERIMENT, _TAG.size, EXPERIMENT_ID, tag) + options


def take_tag(options: bytes) -> tuple[bytes, int | None]:
    """The options without any tag, and the first tag that was among them."""
    found: int | None = None
    kept = options
    for kind, at, length in walk(options):
        if kind == _EXPERIMENT and length == _TAG.size:
            _, _, experiment, tag = _TAG.unpack_from(options, at)
            if experiment != EXPERIMENT_ID:
                continue
            if found is None:
                found = tag
            # Eight bytes less: what is left is a multiple of four as it was.
            gone = len(options) - len(kept)
            kept = kept[: at - gone] + kept[at - gone + length :]
    return kept, found
