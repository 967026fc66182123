"""What an agent must know to go on after a restart, as the metadata of the mappings themselves.

    every mapping       version 1 | flags 1 | session id 8
    outbound mapping    + sequence number and options of the SYN, and of the SYN-ACK if it passed
    primary leg's       + policy, position, creation, chain, and what else makes a session
    outbound mapping

So the short one is 10 bytes, the long one about 80 for IPv4 and a chain of three.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dysco.agent.model import Address, FiveTuple, OnFailure
from dysco.agent.options import Ecn, Negotiated
from dysco.agent.packet import address
from dysco.agent.session import Leg, Session
from dysco.agent.trust import Nonce

VERSION = 1

_HEAD = struct.Struct("!BBQ")
_RIGHT, _LEG, _SESSION, _ANSWERED = 1, 2, 4, 8
_OPTIONS = struct.Struct("!BHB")
_HAS_MSS, _HAS_SCALE, _SACK, _TIMESTAMPS = 1, 2, 4, 8
_ECN_SHIFT = 4
_ECN = {ecn.value: ecn for ecn in Ecn}
_PORTS = struct.Struct("!HH")
_BODY = struct.Struct("!HBBBd")
_REFUSE, _CHAIN_V6, _HAS_TAG, _HAS_SENDER, _HAS_TUPLE, _RELAYS, _OPENING = 1, 2, 4, 8, 16, 32, 64
_HIDDEN = 128


class RecordError(Exception):
    """Metadata that this version can't read."""


@dataclass(frozen=True, slots=True)
class LegRecord:
    """What an outbound mapping tells of its leg."""

    isn: int
    offered: Negotiated
    accepted: Negotiated | None
    answer_isn: int = 0


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What the primary leg's outbound mapping tells of its session."""

    policy: int
    on_failure: OnFailure
    position: int
    created: float
    rest: tuple[Address, ...]
    tag: int | None
    sender: Address | None
    nonce: Nonce | None
    session: FiveTuple | None
    """None: as the primary leg has it."""
    relays: bool = False
    opening: bytes = b""
    hidden: FiveTuple | None = None
    """The primary leg's first subsession as the other host has it, behind a NAT of the network."""


@dataclass(frozen=True, slots=True)
class Record:
    """One mapping's metadata."""

    session_id: int
    is_right: bool
    leg: LegRecord | None = None
    session: SessionRecord | None = None


def short_record(leg: Leg) -> bytes:
    """For an inbound mapping."""
    return _HEAD.pack(VERSION, _RIGHT if leg.is_right else 0, leg.session.id)


def long_record(leg: Leg) -> bytes:
    """For an outbound mapping."""
    session = leg.session
    flags = _LEG | (_RIGHT if leg.is_right else 0) | (_ANSWERED if leg.accepted else 0)
    parts = [b"", leg.isn.to_bytes(4, "big"), _pack_options(leg.offered)]
    if leg.accepted is not None:
        parts.append(_pack_options(leg.accepted) + leg.answer_isn.to_bytes(4, "big"))
    if leg is session.primary:
        flags |= _SESSION
        parts.append(_pack_session(session, leg))
    parts[0] = _HEAD.pack(VERSION, flags, session.id)
    return b"".join(parts)


def session_tuple(leg: Leg) -> FiveTuple:
    """The session as this leg has it, in the direction from its initiator."""
    return leg.emitted if leg.is_right else leg.emitted.reversed


def _pack_session(session: Session, leg: Leg) -> bytes:
    flags = _REFUSE if session.on_failure is OnFailure.REFUSE else 0
    flags |= _RELAYS if session.relays else 0
    parts = [b""]
    if session.tag is not None:
        flags |= _HAS_TAG
        parts.append(session.tag.to_bytes(4, "big"))
    if session.sender is not None and session.nonce is not None:
        flags |= _HAS_SENDER
        parts.append(struct.pack("!QQ", *session.nonce) + pack_address(session.sender))
    if session.session != session_tuple(leg):
        flags |= _HAS_TUPLE
        ends = session.session
        parts.append(pack_tuple(ends))
    if (hidden := session.hidden.get(leg.first)) is not None:
        flags |= _HIDDEN
        parts.append(pack_tuple(hidden))
    if session.opening:
        flags |= _OPENING
        parts.append(len(session.opening).to_bytes(2, "big") + session.opening)
    if session.rest and session.rest[0].version == 6:
        flags |= _CHAIN_V6
    parts.extend(hop.packed for hop in session.rest)
    parts[0] = _BODY.pack(
        session.policy, session.position, flags, len(session.rest), session.created
    )
    return b"".join(parts)


def _pack_options(options: Negotiated) -> bytes:
    flags = (
        (_HAS_MSS if options.mss is not None else 0)
        | (_HAS_SCALE if options.window_scale is not None else 0)
        | (_SACK if options.sack_permitted else 0)
        | (_TIMESTAMPS if options.timestamps else 0)
        | options.ecn << _ECN_SHIFT
    )
    return _OPTIONS.pack(flags, options.mss or 0, options.window_scale or 0)


def pack_address(value: Address) -> bytes:
    """An address, with its IP version in front."""
    return bytes((value.version,)) + value.packed


def pack_tuple(ends: FiveTuple) -> bytes:
    """A five-tuple: both addresses, both ports."""
    return pack_address(ends.src) + pack_address(ends.dst) + _PORTS.pack(ends.sport, ends.dport)


class Reader:
    """Takes pieces off some bytes. Raises RecordError where they are not what they should be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next bytes; raises RecordError if there are not so many."""
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise RecordError(f"cut off after {len(self._data)} bytes")
        self._at += size
        return piece

    def number(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    def address(self) -> Address:
        """The next address, with its IP version in front."""
        version = self.number(1)
        if version not in (4, 6):
            raise RecordError(f"an address of IP version {version}")
        return address(self.take(4 if version == 4 else 16))

    def tuple(self) -> FiveTuple:
        """The next five-tuple."""
        src, dst = self.address(), self.address()
        sport, dport = _PORTS.unpack(self.take(_PORTS.size))
        return FiveTuple(src, sport, dst, dport)

    def options(self) -> Negotiated:
        """The next options."""
        flags, mss, scale = _OPTIONS.unpack(self.take(_OPTIONS.size))
        ecn = flags >> _ECN_SHIFT
        if ecn not in _ECN:
            raise RecordError(f"options' flags 0x{flags:02x}")
        return Negotiated(
            mss if flags & _HAS_MSS else None,
            scale if flags & _HAS_SCALE else None,
            bool(flags & _SACK),
            bool(flags & _TIMESTAMPS),
            _ECN[ecn],
        )

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def finish(self) -> None:
        """Raises RecordError if something is left."""
        if self._at != len(self._data):
            raise RecordError(f"{len(self._data) - self._at} bytes too many")


def read_record(metadata: bytes) -> Record:
    """What a mapping's metadata says. Raises RecordError."""
    if metadata[:1] != bytes((VERSION,)):
        raise RecordError(f"version {metadata[:1].hex() or 'missing'}, ours is {VERSION}")
    reader = Reader(metadata)
    _, flags, session_id = _HEAD.unpack(reader.take(_HEAD.size))
    if flags & ~15 or (flags & _SESSION and not flags & _LEG):
        raise RecordError(f"flags 0x{flags:02x}")
    leg = session = None
    if flags & _LEG:
        isn, offered = reader.number(4), reader.options()
        accepted = reader.options() if flags & _ANSWERED else None
        leg = LegRecord(isn, offered, accepted, reader.number(4) if accepted else 0)
    if flags & _SESSION:
        session = _read_session(reader)
    reader.finish()
    return Record(session_id, bool(flags & _RIGHT), leg, session)


def _read_session(reader: Reader) -> SessionRecord:
    policy, position, flags, hosts, created = _BODY.unpack(reader.take(_BODY.size))
    tag = reader.number(4) if flags & _HAS_TAG else None
    nonce = sender = ends = hidden = None
    if flags & _HAS_SENDER:
        nonce = Nonce(reader.number(8), reader.number(8))
        sender = reader.address()
    if flags & _HAS_TUPLE:
        ends = reader.tuple()
    if flags & _HIDDEN:
        hidden = reader.tuple()
    opening = reader.take(reader.number(2)) if flags & _OPENING else b""
    size = 16 if flags & _CHAIN_V6 else 4
    rest = tuple(address(reader.take(size)) for _ in range(hosts))
    on_failure = OnFailure.REFUSE if flags & _REFUSE else OnFailure.DIRECT
    relays = bool(flags & _RELAYS)
    return SessionRecord(
        policy,
        on_failure,
        position,
        created,
        rest,
        tag,
        sender,
        nonce,
        ends,
        relays,
        opening,
        hidden,
    )
