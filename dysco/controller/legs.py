"""Legs in the data plane: what the reference's types are as table entries and packets.

A leg (one host's side of one subsession) that is tracked has a slot: the index of its registers.

    outbound entry: session's five-tuple  -> slot, subsession of Path.FIRST
    second_path:    slot                  -> subsession of Path.SECOND
    inbound entry:  subsession, each path -> slot, path, session's five-tuple
    leg:            slot                  -> Entry
    token:          token                 -> slot             while there is a new way

So one write of `leg` decides which path is which, and everything that a change of it needs is
written before. Order for a new way: inbound and outbound/second_path of the path that is not
`Entry.path`, token, then leg; and when it is over, leg first.

The SYN-ACK that passes initialises the registers; without a `leg` entry a leg is tracked with the
constants of `Entry()`.

    Submit.LATCH, REVOKE   frame: announcement(...)    the token in it names the leg
    Submit.IN_BAND         a control message in a segment of the host's session (agent.in_band)
    Submit.QUERY           frame: query(slot)
    Submit.HOST            any frame, as if the host at `port` had sent it: parts of a split segment
    Submit.RELEASED        likewise, past the leg's gate: what was held
    Submit.END_HOLD        frame: end_hold(slot, Entry.hold)
    Submit.SEED            frame: seed(slot, registers)
    Reason.LEG             frame: a report, read by parse_report: what a leg's registers hold, and
                           why it is told
    Reason.HELD            a host's segment, on a leg whose gate holds
    Reason.SPLIT           a host's segment that lies across the cutoff; split() parts it
    Reason.NEW_PATH        SYN-ACK, ACK or RST of the new path's handshake, as the network has it
    Reason.CONTROL         a UDP datagram to ANNOUNCEMENT_PORT of a host of ours that starts with
                           CONTROL_MAGIC, or a segment with it in its option: for its agent

Announcements are UDP datagrams from host to host; the data planes exchange them, and repeat
nothing: the agent does, with LATCH.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address

from finsy.proto import p4r

from dysco.agent.model import Address, FiveTuple, MacAddress
from dysco.agent.packet import checksum, parse
from dysco.agent.reconfigure.segment import FIN, PSH
from dysco.agent.reconfigure.serial import diff
from dysco.agent.reconfigure.state import Entry, Gate, NewWay, OldWay, Path, Registers, Way
from dysco.controller.pipeline import Pipeline, PipelineError, Row, RowKey

SLOTS = 32768
"""Size of the data plane's registers; slot 0 is no leg's."""
ANNOUNCEMENT_PORT = 17529
"""UDP, at both ends."""
ANNOUNCEMENT_MAGIC = b"DySA"
ETHERTYPE_LEG = 0x88B5

_ETHERNET = struct.Struct("!6s6sH")
_ANNOUNCEMENT = struct.Struct("!4sQIIIH")
_REPORT = struct.Struct("!IHBB15I")
_UDP = struct.Struct("!HHHH")
_REGISTERS = (
    "snd_max",
    "snd_una",
    "edge_out",
    "ts_sent",
    "rcv_ack",
    "edge_in",
    "ts_given",
    "ts_switch",
    "ts_old",
    "latched",
    "revoked",
    "known",
    "told",
    "cutoff_out",
    "cutoff_in",
)
"""In the order of a report."""
_PROTO_UDP = 17
_TTL = 64


class Event(IntFlag):
    """Why a report comes; 0: because of a query."""

    ANNOUNCED = 1
    """The other anchor's announcement came, for the first time; this side has latched too."""
    DRAINED = 2
    """This anchor needs the old path no more."""
    CLOSING = 4
    """A latch was refused: the host has sent a FIN."""
    REVOKED = 8
    """This new way will never be latched."""
    HOLD_OVER = 16
    """What the host sends passes the gate."""
    STILL_HELD = 32
    """It does not yet: something was held since it was asked last."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the registers of a leg hold."""

    slot: int
    events: Event
    registers: Registers


_OLD_PARAMS = (
    "seq_out",
    "seq_in",
    "ts_in",
    "scale_in",
    "has_floor",
    "floor",
    "path",
    "scale_own",
    "scale_heard",
    "jump",
)
_NEW_PARAMS = (
    "token",
    "epoch",
    "isn_out",
    "isn_in",
    "delta_in",
    "delta_out",
    "new_ts_in",
    "has_ts_shift",
    "ts_shift",
    "new_scale_in",
    "has_edge",
    "edge",
)
_GATE_PARAMS = ("gate", "hold_number")
_PARAMS = {
    "one_path": _OLD_PARAMS,
    "two_paths": _OLD_PARAMS + _NEW_PARAMS,
    "gated": _OLD_PARAMS + _GATE_PARAMS,
}
_PATH_PARAMS = ("src", "dst", "sport", "dport")
_MODULUS = 1 << 32


class LegCodec:
    """Encodes and decodes the entries of the tables `leg`, `second_path_v4`/`_v6` and `token`.

    Raises PipelineError if the program's tables are not those that it is written for.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        try:
            self._leg = pipeline.tables["leg"]
            self._token = pipeline.tables["token"]
            self._paths = {v: pipeline.tables[f"second_path_v{v}"] for v in (4, 6)}
            found = {
                **{name: self._leg.actions[name].param_names for name in _PARAMS},
                **{
                    name: self._paths[v].actions[name].param_names
                    for v, name in ((4, "to_second_path_v4"), (6, "to_second_path_v6"))
                },
            }
        except KeyError as error:
            raise PipelineError(f"the P4 program's tables of legs lack {error}") from error
        for name, params in found.items():
            if params != _PARAMS.get(name, _PATH_PARAMS):
                raise PipelineError(f"action {name} of the P4 program has other parameters")

    @property
    def table_ids(self) -> tuple[int, ...]:
        """Ids of the tables."""
        return (self._leg.id, self._token.id, *(table.id for table in self._paths.values()))

    def leg(self, slot: int, entry: Entry) -> p4r.TableEntry:
        """The constants of a leg; without an entry of its own a leg has those of `Entry()`."""
        old, new = entry.old, entry.new
        values = [
            old.seq_out % _MODULUS,
            old.seq_in % _MODULUS,
            old.ts_in % _MODULUS,
            old.scale_in,
            int(old.floor is not None),
            old.floor or 0,
            int(entry.path),
            entry.scale_own,
            entry.scale_heard,
            entry.jump,
        ]
        if new is not None:
            values += [
                new.token,
                new.epoch,
                new.isn_out,
                new.isn_in,
                new.delta_in % _MODULUS,
                new.delta_out % _MODULUS,
                new.ts_in,
                int(new.ts_shift is not None),
                (new.ts_shift or 0) % _MODULUS,
                new.scale_in,
                int(new.edge is not None),
                new.edge or 0,
            ]
            action = "two_paths"
        elif entry.gate is not Gate.OPEN:
            values += [int(entry.gate), entry.hold]
            action = "gated"
        else:
            action = "one_path"
        return self._leg.entry(Row(self._leg_row(slot), action, tuple(values)))

    def leg_key(self, slot: int) -> p4r.TableEntry:
        """Names it, for a delete."""
        return self._leg.key_entry(self._leg_row(slot))

    def parse_leg(self, entry: p4r.TableEntry) -> tuple[int, Entry]:
        """Slot and constants of an entry read from the device. Raises PipelineError."""
        row = self._leg.row(entry)
        names = _PARAMS.get(row.action, ())
        value = dict(zip(names, row.params, strict=True))
        old = OldWay(
            value["seq_out"],
            value["seq_in"],
            value["ts_in"],
            value["scale_in"],
            value["floor"] if value["has_floor"] else None,
        )
        new = None
        if row.action == "two_paths":
            new = NewWay(
                token=value["token"],
                epoch=value["epoch"],
                isn_out=value["isn_out"],
                isn_in=value["isn_in"],
                delta_in=value["delta_in"],
                delta_out=value["delta_out"],
                ts_in=value["new_ts_in"],
                ts_shift=value["ts_shift"] if value["has_ts_shift"] else None,
                scale_in=value["new_scale_in"],
                edge=value["edge"] if value["has_edge"] else None,
            )
        slot = row.key.match[0][0]
        own, heard, jump = value["scale_own"], value["scale_heard"], value["jump"]
        gate, hold = Gate(value.get("gate", Gate.OPEN)), value.get("hold_number", 0)
        return slot, Entry(old, new, Path(value["path"]), own, heard, jump, gate, hold)

    def second_path(self, slot: int, subsession: FiveTuple) -> p4r.TableEntry:
        """Where what the host sends goes by Path.SECOND."""
        s, version = subsession, subsession.src.version
        params = (int(s.src), int(s.dst), s.sport, s.dport)
        row = Row(self._path_row(slot, version), f"to_second_path_v{version}", params)
        return self._paths[version].entry(row)

    def second_path_key(self, slot: int, version: int) -> p4r.TableEntry:
        """Names it; IP `version`."""
        return self._paths[version].key_entry(self._path_row(slot, version))

    def parse_second_path(self, entry: p4r.TableEntry) -> tuple[int, FiveTuple]:
        """Slot and subsession of an entry read from the device. Raises PipelineError."""
        version = next((v for v, t in self._paths.items() if t.id == entry.table_id), None)
        if version is None:
            raise PipelineError(f"table {entry.table_id} holds no second paths")
        row = self._paths[version].row(entry)
        src, dst, sport, dport = row.params
        ends = (_address(version, src), _address(version, dst))
        return row.key.match[0][0], FiveTuple(ends[0], sport, ends[1], dport)

    def token(self, token: int, slot: int) -> p4r.TableEntry:
        """Finds the leg that an announcement is for."""
        return self._token.entry(Row(self._token_row(token), "leg_of", (slot,)))

    def token_key(self, token: int) -> p4r.TableEntry:
        """Names it."""
        return self._token.key_entry(self._token_row(token))

    def parse_token(self, entry: p4r.TableEntry) -> tuple[int, int]:
        """Token and slot of an entry read from the device. Raises PipelineError."""
        row = self._token.row(entry)
        return row.key.match[0][0], row.params[0]

    @staticmethod
    def _leg_row(slot: int) -> RowKey:
        return RowKey("leg", ((slot, 0),))

    @staticmethod
    def _path_row(slot: int, version: int) -> RowKey:
        return RowKey(f"second_path_v{version}", ((slot, 0),))

    @staticmethod
    def _token_row(token: int) -> RowKey:
        return RowKey("token", ((token, 0),))


def _address(version: int, number: int) -> Address:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def announcement(
    token: int,
    epoch: int,
    src: Address,
    dst: Address,
    src_mac: MacAddress,
    *,
    cutoff: int = 0,
    edge: int = 0,
    known: bool = False,
) -> bytes:
    """The frame for LATCH and REVOKE; the data plane fills in what it announces, and the way.

    With ROUTE and all that it announces: the other anchor's, as if it had come.
    """
    body = _ANNOUNCEMENT.pack(ANNOUNCEMENT_MAGIC, token, epoch, cutoff, edge, known)
    size = _UDP.size + len(body)
    if src.version == 4:
        ethertype = 0x0800
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, _TTL, _PROTO_UDP, 0)
        head += src.packed + dst.packed
        head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    else:
        ethertype = 0x86DD
        head = struct.pack("!IHBB", 6 << 28, size, _PROTO_UDP, _TTL) + src.packed + dst.packed
    udp = _UDP.pack(ANNOUNCEMENT_PORT, ANNOUNCEMENT_PORT, size, 0)
    pseudo = int.from_bytes(src.packed + dst.packed, "big") + _PROTO_UDP + size
    total = checksum(udp + body, pseudo) or 0xFFFF
    udp = udp[:6] + total.to_bytes(2, "big")
    return _ETHERNET.pack(bytes(6), src_mac, ethertype) + head + udp + body


def query(slot: int) -> bytes:
    """The frame for QUERY."""
    ethernet = _ETHERNET.pack(bytes(6), bytes(6), ETHERTYPE_LEG)
    return ethernet + _REPORT.pack(slot, 0, 0, 0, *([0] * 15))


def end_hold(slot: int, hold: int) -> bytes:
    """The frame for END_HOLD; `hold` as in the leg's entry."""
    return _registers(slot, Registers(latched=hold))


def seed(slot: int, registers: Registers) -> bytes:
    """The frame for SEED: what the leg's registers are to hold; of two paths nothing."""
    return _registers(slot, registers)


def _registers(slot: int, registers: Registers) -> bytes:
    values = [getattr(registers, name) for name in _REGISTERS]
    ethernet = _ETHERNET.pack(bytes(6), bytes(6), ETHERTYPE_LEG)
    return ethernet + _REPORT.pack(slot, 0, registers.fin_sent, 0, *values)


def parse_report(frame: bytes) -> Report:
    """The frame of a packet-in with Reason.LEG. Raises ValueError."""
    size = _ETHERNET.size + _REPORT.size
    if len(frame) != size or frame[12:14] != ETHERTYPE_LEG.to_bytes(2, "big"):
        raise ValueError(f"not a report of a leg: {frame[:size].hex()}")
    slot, events, fin_sent, last_way, *values = _REPORT.unpack_from(frame, _ETHERNET.size)
    registers = Registers(
        fin_sent=bool(fin_sent),
        last_way=Way.NEW if last_way else Way.OLD,
        **dict(zip(_REGISTERS, values, strict=True)),
    )
    return Report(slot, Event(events), registers)


def split(frame: bytes, cutoff: int) -> tuple[bytes, bytes]:
    """The two parts of a host's frame, before and from a cutoff inside it; for Submit.HOST.

    `cutoff`: `registers.cutoff_out` while there is a new way that is latched, else
    `entry.old.floor`. Raises ValueError if the segment doesn't lie across it, and PacketError.
    """
    first = parse(frame)
    size = diff(cutoff, first.seq)
    room = len(first.payload) + bool(first.flags & FIN)
    if not 0 < size < room:
        raise ValueError(f"byte {size} is no place to split {room}")
    second = first.copy()
    first.payload = first.payload[:size]
    first.flags &= ~(FIN | PSH)
    second.seq = cutoff
    second.payload = second.payload[size:]
    return first.build(), second.build()
