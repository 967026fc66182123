"""Control messages between agents, as UDP datagrams from host to host, or in band (`in_band`).

     0       4   5      6        8       12        20       28      36       44     52       60
     | DyCo | 1 | kind | length | group | session | sender | epoch | number | left | number |
     | content, by kind | authentication (16) |

All numbers are big-endian. `length` is that of the whole message, `sender` the number of the host
whose agent sent it, `epoch` and `number` its nonce, `left` and `number` the reconfiguration's. The
data plane punts what comes to `PORT` and begins with the magic. Nothing goes through a box: a
scrubber or a proxy would eat it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from dysco.agent.model import Address, MacAddress
from dysco.agent.options import Ecn
from dysco.agent.packet import address, checksum
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    AskRevoke,
    CancelLock,
    Change,
    Chunk,
    Cutoff,
    Deltas,
    DoMove,
    Drained,
    Ends,
    Got,
    Join,
    Message,
    MoveDone,
    MoveFailed,
    MoveIn,
    MoveOut,
    MoveStep,
    NackLock,
    Opening,
    ReconfigurationId,
    Release,
    RequestLock,
    Revoked,
)
from dysco.agent.reconfigure.serial import MODULUS
from dysco.agent.record import Reader, RecordError, pack_tuple
from dysco.agent.trust import TAG_SIZE, Nonce, TrustGroup

MAGIC = b"DyCo"
VERSION = 1
PORT = 17529
"""UDP, at both ends."""
MAX_WHY = 200
"""Bytes of a reason."""
MAX_CHUNK = 1200
"""Bytes of a `Chunk`: what fits a datagram of 1500 with everything around it."""
MAX_CHUNKS = 64
"""As many as `Got` has bits."""

_HEAD = struct.Struct("!4sBBH4sQQQQQQ")
_ENDS = struct.Struct("!BBIHH")
_DELTAS = struct.Struct("!IIIIB")
_REQUEST = struct.Struct("!QQIBB")
_ACK = struct.Struct("!B")
_CUTOFF = struct.Struct("!IIIB")
_RIGHT = struct.Struct("!Q")
_STEP = struct.Struct("!B")
_PIECE = struct.Struct("!BB")
_OPENING = struct.Struct("!QQBI")
OPENING_SIZE = _OPENING.size + _ENDS.size + _DELTAS.size

_UDP = struct.Struct("!HHHH")
_ETHERNET = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_PROTO_UDP = 17


class ControlError(Exception):
    """What came is no control message that we can use; the text says why."""


class ForgedError(ControlError):
    """Nobody of our trust group wrote it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A control message with what is around it."""

    session: int
    sender: int
    nonce: Nonce
    message: Message


@lru_cache(maxsize=4096)
def host_number(name: str) -> int:
    """By which agents name a host to each other: 64 bits, the same everywhere."""
    return int.from_bytes(sha256(b"dysco host " + name.encode()).digest()[:8], "big")


# Content of each kind.


def _pack_ends(ends: Ends) -> bytes:
    flags = ends.timestamps | ends.sack << 1 | ends.ecn << 2
    return _ENDS.pack(ends.scale, flags, ends.edge, min(ends.takes, 0xFFFF), ends.sends)


def _read_ends(data: bytes) -> Ends:
    scale, flags, edge, takes, sends = _ENDS.unpack(data)
    if scale > 14 or flags >> 2 > max(Ecn):
        raise ControlError(f"window scale {scale}, flags {flags}")
    return Ends(scale, edge, bool(flags & 1), bool(flags & 2), takes, sends, Ecn(flags >> 2))


def _pack_deltas(deltas: Deltas) -> bytes:
    numbers = (deltas.rightwards, deltas.leftwards, deltas.ts_rightwards, deltas.ts_leftwards)
    return _DELTAS.pack(*(number % MODULUS for number in numbers), deltas.relays)


def _read_deltas(data: bytes) -> Deltas:
    rightwards, leftwards, ts_rightwards, ts_leftwards, relays = _DELTAS.unpack(data)
    return Deltas(rightwards, leftwards, ts_rightwards, ts_leftwards, bool(relays))


def _pack_request(m: RequestLock) -> bytes:
    head = _REQUEST.pack(m.right, m.token, m.epoch, m.along, m.change.value)
    return head + _pack_ends(m.ends)


def _read_request(about: ReconfigurationId, data: bytes) -> RequestLock:
    right, token, epoch, along, change = _REQUEST.unpack_from(data)
    ends = _read_ends(data[_REQUEST.size :])
    try:
        what = Change(change)
    except ValueError as error:
        raise ControlError(str(error)) from error
    return RequestLock(about, right, token, epoch, ends, along=bool(along), change=what)


def _read_ack(about: ReconfigurationId, data: bytes) -> AckLock:
    (along,) = _ACK.unpack_from(data)
    ends = data[_ACK.size : _ACK.size + _ENDS.size]
    deltas = data[_ACK.size + _ENDS.size :]
    return AckLock(about, _read_ends(ends), _read_deltas(deltas), along=bool(along))


def _pack_ack(m: AckLock) -> bytes:
    return _ACK.pack(m.along) + _pack_ends(m.ends) + _pack_deltas(m.deltas)


def _read_cutoff(about: ReconfigurationId, data: bytes) -> Cutoff:
    epoch, cutoff, edge, known = _CUTOFF.unpack(data)
    return Cutoff(about, epoch, cutoff, edge, known=bool(known))


def _pack_why(m: NackLock | MoveFailed) -> bytes:
    return m.why.encode()[:MAX_WHY]


def _read_why(data: bytes) -> str:
    if len(data) > MAX_WHY:
        raise ControlError(f"a reason of {len(data)} bytes")
    return data.decode(errors="replace")


# Of moves.


def _read_move_out(about: ReconfigurationId, data: bytes) -> MoveOut:
    reader = Reader(data)
    out = MoveOut(about, reader.number(8), reader.tuple())
    reader.finish()
    return out


def _read_join(about: ReconfigurationId, data: bytes) -> Join:
    reader = Reader(data)
    join = Join(about, reader.tuple())
    reader.finish()
    return join


def _read_step(data: bytes) -> MoveStep:
    try:
        return MoveStep(data[0])
    except ValueError as error:
        raise ControlError(str(error)) from error


def _read_chunk(about: ReconfigurationId, data: bytes) -> Chunk:
    index, count = _PIECE.unpack_from(data.ljust(_PIECE.size, b"\0"))
    piece = data[_PIECE.size :]
    if not index < count <= MAX_CHUNKS or len(piece) > MAX_CHUNK:
        raise ControlError(f"piece {index} of {count}, {len(piece)} bytes")
    return Chunk(about, index, count, piece)


@dataclass(frozen=True, slots=True)
class _Kind:
    type: type
    size: int | None
    """Of its content; None: any."""
    pack: Callable[..., bytes]
    read: Callable[[ReconfigurationId, bytes], Message]


def _bare(kind: Callable[[ReconfigurationId], Message]) -> _Kind:
    assert isinstance(kind, type)
    return _Kind(kind, 0, lambda _: b"", lambda about, _: kind(about))


def _with_right(kind: Callable[[ReconfigurationId, int], Message]) -> _Kind:
    assert isinstance(kind, type)
    return _Kind(
        kind,
        _RIGHT.size,
        lambda m: _RIGHT.pack(m.right),
        lambda about, data: kind(about, *_RIGHT.unpack(data)),
    )


_KINDS: dict[int, _Kind] = {
    1: _Kind(RequestLock, _REQUEST.size + _ENDS.size, _pack_request, _read_request),
    2: _Kind(
        AckLock,
        _ACK.size + _ENDS.size + _DELTAS.size,
        _pack_ack,
        _read_ack,
    ),
    3: _Kind(NackLock, None, _pack_why, lambda about, data: NackLock(about, _read_why(data))),
    4: _with_right(CancelLock),
    5: _bare(AckCancel),
    6: _with_right(Release),
    7: _bare(AckRelease),
    8: _bare(Drained),
    9: _bare(AskRevoke),
    10: _bare(Revoked),
    11: _Kind(
        Cutoff,
        _CUTOFF.size,
        lambda m: _CUTOFF.pack(m.epoch, m.cutoff, m.edge, m.known),
        _read_cutoff,
    ),
    12: _Kind(
        MoveOut, None, lambda m: _RIGHT.pack(m.to) + pack_tuple(m.subsession), _read_move_out
    ),
    13: _Kind(MoveIn, None, lambda m: m.facts, MoveIn),
    14: _Kind(Join, None, lambda m: pack_tuple(m.subsession), _read_join),
    15: _Kind(
        DoMove,
        _STEP.size,
        lambda m: _STEP.pack(m.step.value),
        lambda about, data: DoMove(about, _read_step(data)),
    ),
    16: _Kind(
        MoveDone,
        _STEP.size,
        lambda m: _STEP.pack(m.step.value),
        lambda about, data: MoveDone(about, _read_step(data)),
    ),
    17: _Kind(MoveFailed, None, _pack_why, lambda about, data: MoveFailed(about, _read_why(data))),
    18: _Kind(Chunk, None, lambda m: _PIECE.pack(m.index, m.count) + m.data, _read_chunk),
    19: _Kind(
        Got,
        _RIGHT.size,
        lambda m: _RIGHT.pack(m.pieces),
        lambda about, data: Got(about, *_RIGHT.unpack(data)),
    ),
}
_NUMBERS = {kind.type: number for number, kind in _KINDS.items()}


def encode(letter: Letter, group: TrustGroup) -> bytes:
    """The message, authenticated."""
    message = letter.message
    number = _NUMBERS[type(message)]
    content = _KINDS[number].pack(message)
    length = _HEAD.size + len(content) + TAG_SIZE
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        number,
        length,
        group.id,
        letter.session,
        letter.sender,
        *letter.nonce,
        *message.id,
    )
    return head + content + group.sign(head + content, 0, b"")


def decode(data: bytes, group: TrustGroup) -> Letter:
    """The message, once it is known to be whole and genuine. Raises ControlError."""
    if data[:4] != MAGIC:
        raise ControlError("no magic")
    if len(data) < 5 or data[4] != VERSION:
        raise ControlError(f"version {data[4:5].hex()}, ours is {VERSION}")
    if len(data) < _HEAD.size + TAG_SIZE:
        raise ControlError(f"cut off after {len(data)} bytes")
    _, _, number, length, group_id, session, sender, *rest = _HEAD.unpack_from(data)
    if length != len(data):
        raise ControlError(f"says {length} bytes, {len(data)} are there")
    if group_id != group.id:
        raise ForgedError(f"of group {group_id.hex()}, unknown here")
    if not group.verify(data[:-TAG_SIZE], 0, b"", data[-TAG_SIZE:]):
        raise ForgedError("not authentic")
    kind = _KINDS.get(number)
    content = data[_HEAD.size : -TAG_SIZE]
    if kind is None or kind.size not in (None, len(content)):
        raise ControlError(f"kind {number} with {len(content)} bytes")
    epoch, serial, left, about = rest
    try:
        message = kind.read(ReconfigurationId(left, about), content)
    except RecordError as error:
        raise ControlError(f"kind {number}: {error}") from error
    return Letter(session, sender, Nonce(epoch, serial), message)


def pack_opening(opening: Opening) -> bytes:
    """For the header of the new path's SYN."""
    stamp = opening.tsval
    return (
        _OPENING.pack(*opening.id, stamp is not None, stamp or 0)
        + _pack_ends(opening.ends)
        + _pack_deltas(opening.deltas)
    )


def read_opening(data: bytes) -> Opening:
    """From the header of the new path's SYN. Raises ControlError."""
    if len(data) != OPENING_SIZE:
        raise ControlError(f"an opening of {len(data)} bytes")
    left, number, stamped, stamp = _OPENING.unpack_from(data)
    ends = data[_OPENING.size : _OPENING.size + _ENDS.size]
    return Opening(
        ReconfigurationId(left, number),
        _read_ends(ends),
        _read_deltas(data[_OPENING.size + _ENDS.size :]),
        stamp if stamped else None,
    )


# Datagrams.


class Correspondent(NamedTuple):
    """Where a datagram came from: not the sender's own address if the network has a NAT."""

    address: Address
    port: int


def datagram(
    src: Address, dst: Address, src_mac: MacAddress, payload: bytes, port: int = PORT
) -> bytes:
    """The frame that carries a message; the pipeline fills in the destination MAC."""
    length = _UDP.size + len(payload)
    ends = src.packed + dst.packed
    pseudo = int.from_bytes(ends, "big") + _PROTO_UDP + length
    bare = _UDP.pack(PORT, port, length, 0) + payload
    udp = _UDP.pack(PORT, port, length, checksum(bare, pseudo) or 0xFFFF) + payload
    if src.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, _PROTO_UDP, 0) + ends
        head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
        return bytes(6) + src_mac + _IPV4 + head + udp
    head = struct.pack("!IHBB", 6 << 28, length, _PROTO_UDP, 64) + ends
    return bytes(6) + src_mac + _IPV6 + head + udp


def payload_of(frame: bytes) -> tuple[Correspondent, bytes]:
    """Who sent a datagram, and what it carries. Raises ControlError."""
    if frame[12:14] == _IPV4 and len(frame) >= _ETHERNET + 28 and frame[14] >> 4 == 4:
        start, proto = _ETHERNET + (frame[14] & 15) * 4, frame[23]
        src, ends = frame[26:30], frame[26:34]
    elif frame[12:14] == _IPV6 and len(frame) >= _ETHERNET + 48:
        start, proto = _ETHERNET + 40, frame[20]
        src, ends = frame[22:38], frame[22:54]
    else:
        raise ControlError("not IP")
    if proto != _PROTO_UDP or len(frame) < start + _UDP.size:
        raise ControlError("not UDP")
    port, _, length, declared = _UDP.unpack_from(frame, start)
    datagram_bytes = frame[start : start + length]
    if length < _UDP.size or len(datagram_bytes) < length:
        raise ControlError(f"says {length} bytes, {len(frame) - start} are there")
    pseudo = int.from_bytes(ends, "big") + _PROTO_UDP + length
    if declared and checksum(datagram_bytes, pseudo):
        raise ControlError("the UDP checksum is wrong")
    return Correspondent(address(src), port), datagram_bytes[_UDP.size :]
