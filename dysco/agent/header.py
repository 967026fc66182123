"""The Dysco header: what one agent tells the next in front of a SYN's payload.

     0       4   5     6        8       12       14    15      16           24      32       40
     | DySC | 1 | flags | length | group | policy | hop | hosts | session id | epoch | number |
     | session's five-tuple | five-tuple for the next host (if another) | subsession's five-tuple |
     | rest of the chain: addresses | length 2, opening (if any) | authentication (16) |

All numbers are big-endian. `length` is that of the whole header, `hosts` the number of addresses in
the rest of the chain. A five-tuple is source address, destination address, source port, destination
port; flags say which addresses are IPv6. An opening makes it the new path of a session that exists.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dysco.agent.counters import Count
from dysco.agent.model import Address, FiveTuple
from dysco.agent.packet import address
from dysco.agent.trust import TAG_SIZE, Nonce

MAGIC = b"DySC"
VERSION = 1
MIN_SIZE = 80
"""The shortest header: IPv4, no chain left. The P4 program punts what is cut, too."""

_FIXED = struct.Struct("!4sBBH4sHBBQQQ")
_SESSION_V6, _SUBSESSION_V6, _CHAIN_V6, _CHANGED, _REFUSE, _OPENING = 1, 2, 4, 8, 16, 32
_ALL_FLAGS = 63


class HeaderError(Exception):
    """What came isn't a header that we can use: `count` says in which way."""

    def __init__(self, count: Count, why: str) -> None:
        super().__init__(why)
        self.count = count


@dataclass(frozen=True, slots=True)
class Header:
    """A header's content, without its authentication."""

    group: bytes
    session_id: int
    policy: int
    hop: int
    """How many subsessions the session has crossed: 1 at the first receiver."""
    refuse: bool
    """What becomes of the session if the chain can't go on: OnFailure.REFUSE, else DIRECT."""
    nonce: Nonce
    session: FiveTuple
    """As the initiator sees it."""
    delivered: FiveTuple
    """As the next host is to see it: the session's, but for NATs on the way."""
    subsession: FiveTuple
    """As the sender sends it; what arrives differs if the network has a NAT."""
    chain: tuple[Address, ...]
    """The hosts to cross after the next one; all of one family."""
    opening: bytes = b""
    """What the right anchor of a reconfiguration must know; the hosts in between pass it on."""

    def encode(self) -> bytes:
        """The header without its authentication, which `length` counts already."""
        flags = _REFUSE if self.refuse else 0
        parts = [b"", _tuple_bytes(self.session)]
        if self.session.src.version == 6:
            flags |= _SESSION_V6
        if self.delivered != self.session:
            flags |= _CHANGED
            parts.append(_tuple_bytes(self.delivered))
        parts.append(_tuple_bytes(self.subsession))
        if self.subsession.src.version == 6:
            flags |= _SUBSESSION_V6
        parts.extend(hop.packed for hop in self.chain)
        if self.chain and self.chain[0].version == 6:
            flags |= _CHAIN_V6
        if self.opening:
            flags |= _OPENING
            parts.append(len(self.opening).to_bytes(2, "big") + self.opening)
        length = header_size(self.session, self.delivered, self.chain, self.opening)
        parts[0] = _FIXED.pack(
            MAGIC,
            VERSION,
            flags,
            length,
            self.group,
            self.policy,
            self.hop,
            len(self.chain),
            self.session_id,
            *self.nonce,
        )
        return b"".join(parts)


def decode(payload: bytes) -> tuple[Header, int]:
    """The header in front of a SYN's payload, and its length with the authentication at its end.

    Nothing of it is to be believed before the authentication is checked. Raises HeaderError.
    """
    if payload[:4] != MAGIC:
        raise HeaderError(Count.HEADER_MALFORMED, "no magic")
    if len(payload) < 5 or payload[4] != VERSION:
        raise HeaderError(Count.HEADER_VERSION, f"version {payload[4:5].hex()}, ours is {VERSION}")
    if len(payload) < MIN_SIZE:
        raise HeaderError(Count.HEADER_MALFORMED, f"cut off after {len(payload)} bytes")
    _, _, flags, length, group, policy, hop, hosts, session_id, epoch, number = _FIXED.unpack_from(
        payload
    )
    if flags & ~_ALL_FLAGS:
        raise HeaderError(Count.HEADER_MALFORMED, f"unknown flags 0x{flags:02x}")
    if length > len(payload):
        raise HeaderError(
            Count.HEADER_MALFORMED, f"says {length} bytes, only {len(payload)} are there"
        )
    session_v6, next_v6 = bool(flags & _SESSION_V6), bool(flags & _SUBSESSION_V6)
    changed = bool(flags & _CHANGED)
    chain_size = 16 if flags & _CHAIN_V6 else 4
    expected = (
        _FIXED.size
        + _tuple_size(session_v6)
        + _tuple_size(next_v6) * (2 if changed else 1)
        + chain_size * hosts
        + TAG_SIZE
    )
    opening = b""
    if flags & _OPENING:
        end = expected - TAG_SIZE
        size = int.from_bytes(payload[end : end + 2], "big")
        opening = payload[end + 2 : end + 2 + size]
        expected += 2 + size
    if length != expected or (flags & _CHAIN_V6 and not hosts):
        raise HeaderError(
            Count.HEADER_MALFORMED, f"says {length} bytes, its content needs {expected}"
        )
    if not changed and session_v6 != next_v6:
        raise HeaderError(Count.HEADER_MALFORMED, "the session's addresses can't reach the host")
    at = _FIXED.size
    session, at = _read_tuple(payload, at, session_v6)
    delivered = session
    if changed:
        delivered, at = _read_tuple(payload, at, next_v6)
    subsession, at = _read_tuple(payload, at, next_v6)
    chain = tuple(
        address(payload[start : start + chain_size])
        for start in range(at, at + hosts * chain_size, chain_size)
    )
    header = Header(
        group,
        session_id,
        policy,
        hop,
        bool(flags & _REFUSE),
        Nonce(epoch, number),
        session,
        delivered,
        subsession,
        chain,
        opening,
    )
    return header, length


def header_size(
    session: FiveTuple, delivered: FiveTuple, chain: tuple[Address, ...], opening: bytes = b""
) -> int:
    """Bytes that a header takes, with its authentication."""
    next_size = _tuple_size(delivered.src.version == 6)
    return (
        _FIXED.size
        + _tuple_size(session.src.version == 6)
        + next_size * (2 if delivered != session else 1)
        + sum(len(hop.packed) for hop in chain)
        + (2 + len(opening) if opening else 0)
        + TAG_SIZE
    )


def _tuple_size(v6: bool) -> int:
    return 36 if v6 else 12


def _tuple_bytes(ends: FiveTuple) -> bytes:
    return ends.src.packed + ends.dst.packed + struct.pack("!HH", ends.sport, ends.dport)


def _read_tuple(data: bytes, at: int, v6: bool) -> tuple[FiveTuple, int]:
    size = 16 if v6 else 4
    src, dst = address(data[at : at + size]), address(data[at + size : at + 2 * size])
    sport, dport = struct.unpack_from("!HH", data, at + 2 * size)
    return FiveTuple(src, sport, dst, dport), at + 2 * size + 4
