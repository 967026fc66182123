"""What one host must know of a session to take another's place in it, as bytes.

    facts   left subsession | per leg: five-tuple there, constants, record | bytes added by the host
            before anything is held
    cargo   per leg: registers, how far it is closed | the host's own state
            when nothing passes any more

The facts make mappings and constants as the old host has them, so that the new one may translate as
it did (a NAT's five-tuples, earlier reconfigurations' numbers); the cargo makes the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dysco.agent.model import Address, FiveTuple
from dysco.agent.reconfigure.messages import Deltas
from dysco.agent.reconfigure.serial import MODULUS
from dysco.agent.reconfigure.state import Entry, OldWay, Path, Registers
from dysco.agent.record import (
    Reader,
    Record,
    RecordError,
    long_record,
    pack_address,
    pack_tuple,
    read_record,
)
from dysco.agent.session import Leg

_ENTRY = struct.Struct("!IIIBBIBBI")
_FIXED = struct.Struct("!II")
_REGISTERS = struct.Struct("!7IB")
_FIN_SENT, _LEG_FIN_SENT, _LEG_FIN_RECEIVED, _LEG_RESET = 1, 2, 4, 8
_MAX_SCALE = 14


@dataclass(frozen=True, slots=True)
class LegFacts:
    """One leg of the old host."""

    emitted: FiveTuple
    """As packets leave the old host's own stack."""
    next: Address
    """Its neighbour there, as the subsession has it."""
    entry: Entry
    record: Record


@dataclass(frozen=True, slots=True)
class Facts:
    """A session as the old host has it."""

    subsession: FiveTuple
    """From the left anchor to the new host."""
    legs: tuple[LegFacts, ...]
    """Left, and right if the session goes on."""
    fixed: Deltas | None = None
    """What the old host says that it added to the stream."""


@dataclass(frozen=True, slots=True)
class LegCargo:
    """What passed a leg of the old host."""

    registers: Registers
    fin_sent: bool
    fin_received: bool
    reset: bool


@dataclass(frozen=True, slots=True)
class Cargo:
    """What goes from the old host to the new one when nothing passes any more."""

    legs: tuple[LegCargo, ...]
    state: bytes


def pack_facts(
    subsession: FiveTuple, legs: Sequence[tuple[Leg, Entry]], fixed: Deltas | None = None
) -> bytes:
    """What the new host must know at first."""
    parts = [pack_tuple(subsession), bytes((len(legs),))]
    for leg, entry in legs:
        record = long_record(leg)
        parts += [pack_tuple(leg.emitted), pack_address(leg.sent.dst), _pack_entry(entry)]
        parts += [len(record).to_bytes(2, "big"), record]
    if fixed is not None:
        parts.append(_FIXED.pack(fixed.rightwards % MODULUS, fixed.leftwards % MODULUS))
    return b"".join(parts)


def read_facts(data: bytes) -> Facts:
    """What the old host said. Raises RecordError."""
    reader = Reader(data)
    subsession = reader.tuple()
    legs = []
    for number in range(_count(reader)):
        emitted, neighbour, entry = reader.tuple(), reader.address(), _read_entry(reader)
        record = read_record(reader.take(reader.number(2)))
        if record.leg is None or record.leg.accepted is None or record.is_right != bool(number):
            raise RecordError("a leg that is not established, or not in its place")
        legs.append(LegFacts(emitted, neighbour, entry, record))
    fixed = None
    if rest := reader.rest():
        if len(rest) != _FIXED.size:
            raise RecordError(f"{len(rest)} bytes too many")
        fixed = Deltas(*_FIXED.unpack(rest))
    if legs[0].record.session is None:
        raise RecordError("no session")
    return Facts(subsession, tuple(legs), fixed)


def _count(reader: Reader) -> int:
    legs = reader.number(1)
    if legs not in (1, 2):
        raise RecordError(f"{legs} legs")
    return legs


def _pack_entry(entry: Entry) -> bytes:
    old = entry.old
    return _ENTRY.pack(
        old.seq_out % MODULUS,
        old.seq_in % MODULUS,
        old.ts_in % MODULUS,
        old.scale_in,
        old.floor is not None,
        old.floor or 0,
        entry.scale_own,
        entry.scale_heard,
        entry.jump,
    )


def _read_entry(reader: Reader) -> Entry:
    seq_out, seq_in, ts_in, scale_in, has_floor, floor, own, heard, jump = _ENTRY.unpack(
        reader.take(_ENTRY.size)
    )
    if max(scale_in, own, heard) > _MAX_SCALE or has_floor > 1:
        raise RecordError(f"window scales {scale_in}, {own}, {heard}; floor {has_floor}")
    way = OldWay(seq_out, seq_in, ts_in, scale_in, floor if has_floor else None)
    return Entry(way, None, Path.FIRST, own, heard, jump)


def pack_cargo(legs: Sequence[tuple[Leg, Registers]], state: bytes) -> bytes:
    """All that moves, when nothing passes any more."""
    parts = [bytes((len(legs),))]
    for leg, r in legs:
        flags = r.fin_sent * _FIN_SENT | leg.fin_sent * _LEG_FIN_SENT
        flags |= leg.fin_received * _LEG_FIN_RECEIVED | leg.reset * _LEG_RESET
        numbers = (
            r.snd_max, r.snd_una, r.edge_out, r.ts_sent, r.rcv_ack, r.edge_in, r.ts_given
        )  # fmt: skip
        parts.append(_REGISTERS.pack(*numbers, flags))
    return b"".join((*parts, state))


def read_cargo(data: bytes) -> Cargo:
    """What moved. Raises RecordError."""
    reader = Reader(data)
    legs = []
    for _ in range(_count(reader)):
        *numbers, flags = _REGISTERS.unpack(reader.take(_REGISTERS.size))
        snd_max, snd_una, edge_out, ts_sent, rcv_ack, edge_in, ts_given = numbers
        registers = Registers(
            snd_max=snd_max,
            fin_sent=bool(flags & _FIN_SENT),
            snd_una=snd_una,
            edge_out=edge_out,
            ts_sent=ts_sent,
            rcv_ack=rcv_ack,
            edge_in=edge_in,
            ts_given=ts_given,
        )
        legs.append(
            LegCargo(
                registers,
                bool(flags & _LEG_FIN_SENT),
                bool(flags & _LEG_FIN_RECEIVED),
                bool(flags & _LEG_RESET),
            )
        )
    return Cargo(tuple(legs), reader.rest())
