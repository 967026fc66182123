"""One tracked leg on softnic, driven by the reference's own types: segments in, segments out.

    host A (port 1) -- device -- port 3: its first subsession; port 4: its second
                                 port 255: the controller

No interface, no P4Runtime server: entries are encoded by the controller's codecs, frames run
through the native pipeline at once.
"""

from __future__ import annotations

import functools
import struct
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from finsy.proto import p4r

from dysco.agent import packet
from dysco.agent.events import Reason, Submit
from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, Side
from dysco.agent.reconfigure.segment import Block, Segment
from dysco.agent.reconfigure.state import Announcement, Count, Entry, Path, Registers, To, Way
from dysco.controller import legs, mappings, static_rows
from dysco.controller.pipeline import Pipeline, Row, RowKey, load
from softnic import dataplane
from softnic.dataplane import Match, Op, Replica, Status
from softnic.native import NativeDataPlane, compile_program

CPU = 255
HOST, SLOT, PORT = 11, 7, 1
MAC = bytes.fromhex("02000000000a")
NEXT_MAC = bytes.fromhex("0200000000ff")
OUT_PORTS = {Path.FIRST: 3, Path.SECOND: 4}
PEER: dict[int, Address] = {4: IPv4Address("10.4.0.9"), 6: IPv6Address("2001:db8:4::9")}
PEER_PORT = 4
EPOCH = 5
TOKEN = 0x1122334455667788

_ADDRESSES: dict[int, list[Address]] = {
    4: [IPv4Address(a) for a in ("10.1.0.10", "10.9.0.80", "10.3.0.20", "10.4.0.30")],
    6: [IPv6Address(f"2001:db8:{n}::1") for n in (1, 9, 3, 4)],
}
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
    "hold",
)
_COUNTS = tuple(Count)


class Sent(NamedTuple):
    """A segment that left, and where to."""

    to: To
    segment: Segment
    others: tuple[bytes, ...] = ()
    """Its options but timestamps, SACK, and padding."""


class Told(NamedTuple):
    """A packet-in."""

    reason: Reason
    frame: bytes


Out = Sent | Told | Announcement
"""What leaves the device."""


def session(version: int) -> FiveTuple:
    """As the host sends it."""
    host, far, _, _ = _ADDRESSES[version]
    return FiveTuple(host, 40000, far, 80)


def subsession(version: int, path: Path) -> FiveTuple:
    """As it travels away from the host."""
    host, _, first, second = _ADDRESSES[version]
    if path is Path.FIRST:
        return FiveTuple(host, 61001, first, 61002)
    return FiveTuple(host, 61003, second, 61004)


@functools.cache
def _program() -> tuple[Pipeline, object]:
    pipeline = load()
    return pipeline, compile_program(pipeline.config.p4_device_config)


class Device:
    """The pipeline with one leg of host A. `version`: of IP."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.pipeline, program = _program()
        self.plane = NativeDataPlane({}, cpu_port=CPU)
        self.plane.load(program)  # type: ignore[arg-type]
        self.codec = legs.LegCodec(self.pipeline)
        self.entry = Entry()
        self.path_of: dict[FiveTuple, Path] = {}
        self._counted: Counter[Count] = Counter()
        self._has_entry = False
        for number in range(1, sum(static_rows.COPIES) + 1):
            copies = [Replica(CPU, c) for c in static_rows.COPIES if number & c]
            self.plane.set_clone_session(number, copies)
        mac = int.from_bytes(MAC, "big")
        self._row("port", (PORT,), "host_port", (HOST, 0, OUT_PORTS[Path.FIRST]))
        self._row("bridge", (mac,), "bridge_to_host", (PORT, HOST))
        self._route(int(session(version).src), "to_host", (PORT, mac, HOST))
        next_mac = int.from_bytes(NEXT_MAC, "big")
        self._route(int(PEER[version]), "next_hop", (PEER_PORT, next_mac))
        sessions = mappings.MappingCodec(self.pipeline)
        ends = session(version)
        for path in Path:
            away = subsession(version, path)
            self.path_of[away] = path
            self._route(int(away.dst), "next_hop", (OUT_PORTS[path], next_mac))
            key = MappingKey(Side.INBOUND, HOST, away.reversed)
            self.write(Op.INSERT, sessions.entry(Mapping(key, ends.reversed, slot=SLOT, path=path)))
        key = MappingKey(Side.OUTBOUND, HOST, ends)
        first = Mapping(key, subsession(version, Path.FIRST), slot=SLOT)
        self.write(Op.INSERT, sessions.entry(first))
        self.write(Op.INSERT, self.codec.second_path(SLOT, subsession(version, Path.SECOND)))
        self.write(Op.INSERT, self.codec.token(TOKEN, SLOT))

    def close(self) -> None:
        """Give the native part back."""
        self.plane.close()

    # Entries

    def write(self, op: Op, entry: p4r.TableEntry) -> None:
        """A table entry as the controller encodes it."""
        tables, actions = self._infos()
        name, table = tables[entry.table_id]
        given = {f.field_id: f for f in entry.match}
        key = mask = b""
        for number, field in enumerate(table.key, 1):
            lpm = given[number].lpm if given[number].HasField("lpm") else None
            value = lpm.value if lpm is not None else given[number].exact.value
            length = lpm.prefix_len if lpm is not None else field.bits
            ones = ((1 << length) - 1) << (field.bits - length)
            key += int.from_bytes(value, "big").to_bytes(field.size, "big")
            mask += ones.to_bytes(field.size, "big")
        action_name, params = "", b""
        if entry.HasField("action"):
            action_name, action = actions[entry.action.action.action_id]
            values = {p.param_id: p.value for p in entry.action.action.params}
            for number, param in enumerate(action.params, 1):
                params += int.from_bytes(values[number], "big").to_bytes(param.size, "big")
        new = dataplane.Entry(Match(key, mask), action_name, params)
        (status,) = self.plane.write([dataplane.Update(op, name, new)])
        assert status is Status.OK, (name, status)

    def _infos(
        self,
    ) -> tuple[
        dict[int, tuple[str, dataplane.TableInfo]], dict[int, tuple[str, dataplane.ActionInfo]]
    ]:
        program, info = self.plane.program, self.pipeline.p4info
        assert program is not None
        names = {t.preamble.id: t.preamble.name for t in info.tables}
        actions = {a.preamble.id: a.preamble.name for a in info.actions}
        return (
            {i: (n, program.tables[n]) for i, n in names.items()},
            {i: (n, program.actions[n]) for i, n in actions.items()},
        )

    def _row(
        self,
        table: str,
        key: tuple[int, ...],
        action: str,
        params: tuple[int, ...],
        extent: int = 0,
    ) -> None:
        row = Row(RowKey(table, tuple((value, extent) for value in key)), action, params)
        self.write(Op.INSERT, self.pipeline.tables[table].entry(row))

    def _route(self, address: int, action: str, params: tuple[int, ...]) -> None:
        length = 32 if self.version == 4 else 128
        self._row(f"route_v{self.version}", (address,), action, params, length)

    def set_entry(self, entry: Entry) -> None:
        """The one table write of a leg's constants."""
        self.write(Op.MODIFY if self._has_entry else Op.INSERT, self.codec.leg(SLOT, entry))
        self._has_entry = True
        self.entry = entry

    # Registers and counters

    def set_registers(self, registers: Registers) -> None:
        """Make the device's registers these."""
        for name in _REGISTERS:
            self.plane.set_register(name, SLOT, getattr(registers, name))
        self.plane.set_register("isn", SLOT, registers.isn or 0)
        self.plane.set_register("own_address", SLOT, int(session(self.version).src))
        self.plane.set_register("peer_address", SLOT, int(PEER[self.version]))
        self.plane.set_register("peer_port", SLOT, legs.ANNOUNCEMENT_PORT)
        self.plane.set_register("fin_sent", SLOT, int(registers.fin_sent))
        self.plane.set_register("last_way", SLOT, int(registers.last_way is Way.NEW))

    def set_drained(self, epoch: int) -> None:
        """For which epoch the drain has been told."""
        self.plane.set_register("drained", SLOT, epoch)

    def registers(self) -> Registers:
        """The device's registers, and what it counted since the last call."""
        counts = Counter({c: self.plane.counter("legs", i).packets for i, c in enumerate(_COUNTS)})
        new = counts - self._counted
        self._counted = counts
        return Registers(
            isn=self.plane.register("isn", SLOT),
            fin_sent=bool(self.plane.register("fin_sent", SLOT)),
            last_way=Way.NEW if self.plane.register("last_way", SLOT) else Way.OLD,
            counts=new,
            **{name: self.plane.register(name, SLOT) for name in _REGISTERS},
        )

    # Packets

    def from_host(self, segment: Segment, options: bytes | None = None) -> list[Out]:
        """The host sends it; `options`: with these bytes for the segment's options."""
        return self._run(PORT, frame(session(self.version), segment, options))

    def from_network(self, way: Way, segment: Segment, options: bytes | None = None) -> list[Out]:
        """It arrives for the host, by that way."""
        path = self.entry.path if way is Way.OLD else self.entry.path.other
        away = subsession(self.version, path)
        return self._run(OUT_PORTS[path], frame(away.reversed, segment, options))

    def submit(self, mode: Submit, data: bytes, port: int = 0) -> list[Out]:
        """A packet-out."""
        return self._run(CPU, struct.pack("!HB", port, mode) + data)

    def inject(self, port: int, data: bytes) -> list[Out]:
        """A frame comes in at a port."""
        return self._run(port, data)

    def announce(self, message: Announcement) -> list[Out]:
        """The other anchor's announcement arrives."""
        data = legs.announcement(
            message.token, message.epoch, PEER[self.version], session(self.version).src, NEXT_MAC
        )
        return self._run(PEER_PORT, _filled(MAC + data[6:], message))

    def _run(self, port: int, data: bytes) -> list[Out]:
        return [self._read(to, out) for to, out in self.plane.inject(port, data)]

    def _read(self, port: int, data: bytes) -> Out:
        if port == CPU:
            (reason,) = struct.unpack_from("!B", data, 6)
            return Told(Reason(reason), data[7:])
        if is_udp(data):
            assert port == PEER_PORT
            assert data[:6] == NEXT_MAC
            return announcement_of(data, self.version)
        found, others = segment_of(data, self.ends_of(port))
        if port == PORT:
            assert data[:6] == MAC
            return Sent(To.HOST, found, others)
        assert data[:6] == NEXT_MAC
        way = To.OLD if port == OUT_PORTS[self.entry.path] else To.NEW
        return Sent(way, found, others)

    def ends_of(self, port: int) -> FiveTuple:
        """The five-tuple that a frame must have that left there."""
        if port == PORT:
            return session(self.version).reversed
        path = next(path for path, number in OUT_PORTS.items() if number == port)
        return subsession(self.version, path)


def frame(ends: FiveTuple, segment: Segment, options: bytes | None = None) -> bytes:
    """A frame with the segment; options in the usual order, unless given."""
    to_host = ends.dst == session(ends.dst.version).src
    return packet.Segment(
        MAC if to_host else NEXT_MAC,
        NEXT_MAC if to_host else MAC,
        packet.ip_header(ends),
        ends,
        segment.seq,
        segment.ack,
        segment.flags,
        segment.window,
        0,
        usual_options(segment) if options is None else options,
        segment.data,
    ).build()


def timestamps_option(segment: Segment) -> bytes:
    """RFC 7323, or nothing."""
    if segment.tsval is None:
        return b""
    return struct.pack("!BBII", 8, 10, segment.tsval, segment.tsecr)


def sack_option(segment: Segment) -> bytes:
    """RFC 2018, or nothing."""
    if not segment.sack:
        return b""
    head = bytes([5, 2 + 8 * len(segment.sack)])
    return head + b"".join(struct.pack("!II", *block) for block in segment.sack)


def usual_options(segment: Segment) -> bytes:
    """As Linux writes them."""
    parts = (timestamps_option(segment), sack_option(segment))
    return b"".join(b"\1\1" + part for part in parts if part)


def segment_of(data: bytes, ends: FiveTuple) -> tuple[Segment, tuple[bytes, ...]]:
    """The segment in a frame, all checksums and lengths verified; and its other options."""
    found = packet.parse(data)
    assert found.tuple == ends
    assert len(data) == 14 + found.length, "bytes behind the IP packet"
    if ends.src.version == 4:
        assert packet.checksum(found.network) == 0, "the IP checksum is wrong"
    sack: tuple[Block, ...] = ()
    tsval, tsecr, others = None, 0, []
    for option in split_options(found.options):
        if option[0] == 8 and len(option) == 10 and tsval is None:
            tsval, tsecr = struct.unpack_from("!II", option, 2)
        elif option[0] == 5 and not sack and len(option) in (10, 18, 26, 34):
            edges = struct.unpack_from(f"!{(len(option) - 2) // 4}I", option, 2)
            sack = tuple(zip(edges[::2], edges[1::2], strict=True))
        else:
            others.append(option)
    segment = Segment(
        found.seq, found.ack, found.flags, found.window, found.payload, sack, tsval, tsecr
    )
    return segment, tuple(others)


def split_options(options: bytes) -> list[bytes]:
    """The options, without padding; what is malformed ends them."""
    out, at = [], 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        out.append(options[at : at + size])
        at += size
    return out


def is_udp(data: bytes) -> bool:
    """True for what may be an announcement."""
    return data[23 if data[12:14] == b"\x08\x00" else 20] == 17


def _filled(data: bytes, message: Announcement) -> bytes:
    """An announcement's frame with what it announces, checksum made anew."""
    at = data.index(legs.ANNOUNCEMENT_MAGIC)
    body = data[at : at + 16] + struct.pack(
        "!IIH", message.cutoff, message.edge, int(message.known)
    )
    udp = data[at - 8 : at - 2] + b"\0\0" + body
    ends = data[26:34] if data[12:14] == b"\x08\x00" else data[22:54]
    total = packet.checksum(udp, int.from_bytes(ends, "big") + 17 + len(udp)) or 0xFFFF
    return data[: at - 2] + total.to_bytes(2, "big") + body


def announcement_of(data: bytes, version: int) -> Announcement:
    """What a frame announces, all checksums verified."""
    at = data.index(legs.ANNOUNCEMENT_MAGIC)
    ends = data[26:34] if version == 4 else data[22:54]
    assert ends == session(version).src.packed + PEER[version].packed
    udp = data[at - 8 :]
    assert packet.checksum(udp, int.from_bytes(ends, "big") + 17 + len(udp)) == 0
    token, epoch, cutoff, edge, known = struct.unpack_from("!QIIIH", data, at + 4)
    assert known in (0, 1)
    return Announcement(token, epoch, cutoff, edge, bool(known))


def without_isn(registers: Registers) -> Registers:
    """As the device has it: no number is number 0."""
    return replace(registers, isn=registers.isn or 0)
