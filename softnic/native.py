"""The native data plane: `dataplane.DataPlane` on the C runtime, and programs compiled for it.

compile_program(json) ──▶ NativeProgram ──load──▶ NativeDataPlane ──ctypes──▶ runtime/api.c
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from softnic import wire
from softnic.build import shared_object
from softnic.clib import buffer, runtime
from softnic.compiler.generate import VERSION, Generated, generate
from softnic.compiler.load import load
from softnic.dataplane import (
    MAX_METADATA,
    ActionInfo,
    CounterValue,
    DigestEvent,
    Entry,
    Event,
    Field,
    GroupMember,
    IdleTimeoutEvent,
    Match,
    MatchKind,
    MeterConfig,
    Op,
    PacketInEvent,
    PortStats,
    ProfileInfo,
    Program,
    Replica,
    Status,
    TableInfo,
    Update,
    ValueSetInfo,
    WireTable,
    WriteHead,
    WritePlan,
)

_log = logging.getLogger("softnic.program")

DROP_REASONS = (
    "no-pipeline",
    "program",
    "no-port",
    "port-down",
    "tx-full",
    "too-big",
    "tx-error",
    "no-clone-session",
    "no-multicast-group",
    "clone-limit",
    "loop-limit",
    "burst-full",
    "event-queue-full",
    "packet-out-queue-full",
    "offload-lost",
    "rx-overrun",
    "rx-truncated",
)
"""In the order of `enum sn_drop` (runtime/internal.h)."""

PROGRAM_EVENTS = ("log-msg", "assertion-failed", "index-out-of-bounds", "loop-limit")
"""In the order of `enum sn_event` (runtime/softnic.h)."""

_UPDATE = struct.Struct("=IHHIIQQI4x")
_READING = struct.Struct("=IIIIQQQQQI4x")
_OUT = struct.Struct("=IIII10s6x")
_EVENT = struct.Struct("=IIII")
_EVENT_BUFFER = 1 << 20
_READ_BUFFER = 1 << 18
_ENTRY_BUFFER = 1 << 14
"""More than one entry takes when it is read."""
_INJECT_BUFFER = 1 << 22
_VNET_SIZE = 10
_NO_PORT = 0xFFFFFFFF
_METER_READ, _METER_SET, _METER_UNSET = 0, 1, 2
_MAX_FRAME = 65535


class DataPlaneError(RuntimeError):
    """The device couldn't be made or run; the text says why and what to do."""


@dataclass(eq=False)
class NativeProgram:
    """A compiled pipeline (see `dataplane.Program`)."""

    tables: Mapping[str, TableInfo]
    actions: Mapping[str, ActionInfo]
    digests: Mapping[str, tuple[Field, ...]]
    counters: Mapping[str, int]
    registers: Mapping[str, tuple[int, int]]
    meters: Mapping[str, int]
    profiles: Mapping[str, ProfileInfo]
    value_sets: Mapping[str, ValueSetInfo]
    messages: Sequence[str]
    path: Path
    source: str

    def write_plan(self, tables: Sequence[WireTable]) -> WritePlan:
        """Prepare to read entries of these tables, none with a profile, from the wire."""
        return wire.NativePlan(tables, self.tables, self.actions)

    def descriptor(self) -> int:
        """Address of the program's `sn_program`. The code stays loaded as long as we run."""
        lib = ctypes.CDLL(str(self.path), mode=ctypes.RTLD_LOCAL)
        return ctypes.addressof(ctypes.c_char.in_dll(lib, "sn_program"))


def compile_program(json_bytes: bytes, *, cache_dir: Path | None = None) -> NativeProgram:
    """Translate bmv2 JSON to native code, or find it in the cache.

    Raises `UnsupportedConstructError` by name for what this target can't do, `BadProgramError`
    for what isn't bmv2 JSON, `ToolchainError` where there is no C compiler.
    """
    made: Generated = generate(load(json_bytes))
    runtime()
    source = f"/* generator {VERSION} */\n{made.source}"
    return NativeProgram(
        tables=made.tables,
        actions=made.actions,
        digests=made.digests,
        counters=made.counters,
        registers=made.registers,
        meters=made.meters,
        profiles=made.profiles,
        value_sets=made.value_sets,
        messages=made.messages,
        path=shared_object("program", [source], cache_dir),
        source=source,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that came out of `NativeDataPlane.inject`, with its virtio header."""

    port: int
    frame: bytes
    vnet: bytes


class NativeDataPlane:
    """One P4 device in native code (see `dataplane.DataPlane`). One worker thread moves frames.

    `ports`: numbers (below 512) to interface names, which must exist in the caller's network
    namespace. Raises `DataPlaneError` where they can't be opened (needs CAP_NET_RAW).
    """

    def __init__(
        self,
        ports: Mapping[int, str],
        *,
        cpu_port: int | None,
        drop_port: int = 511,
        name: str = "softnic",
    ) -> None:
        self.name = name
        self._lib = runtime()
        self._cpu_port = cpu_port
        self._ports = dict(ports)
        self._program: NativeProgram | None = None
        self._tables: dict[str, int] = {}
        self._table_names: list[str] = []
        self._counters: dict[str, int] = {}
        self._registers: dict[str, int] = {}
        self._meters: dict[str, int] = {}
        self._profiles: dict[str, int] = {}
        self._value_sets: dict[str, int] = {}
        self._event_lock = threading.Lock()
        self._event_buffer = buffer(_EVENT_BUFFER)
        self._closed = False
        self._dev: int | None = self._lib.sn_device_new(
            _NO_PORT if cpu_port is None else cpu_port, drop_port
        )
        if not self._dev:
            raise DataPlaneError(f"{name}: out of memory")
        for number, interface in self._ports.items():
            if self._lib.sn_device_add_port(self._dev, number, interface.encode()) != 0:
                self._free()
                raise DataPlaneError(f"{name}: port {number}@{interface}: numbers are 0 to 511")
        rc = self._lib.sn_device_start(self._dev)
        if rc != 0:
            self._free()
            raise DataPlaneError(
                f"{name}: cannot open the interfaces "
                f"{', '.join(self._ports.values()) or '(none)'}: {os.strerror(-rc)}"
            )

    def _free(self) -> None:
        dev, self._dev = self._dev, None
        if dev is not None:
            self._lib.sn_device_stop(dev)
            self._lib.sn_device_free(dev)

    @property
    def _d(self) -> int:
        if self._dev is None:
            raise DataPlaneError(f"{self.name}: closed")
        return self._dev

    # ---- program

    @property
    def program(self) -> Program | None:
        """The program that is running, if any."""
        return self._program

    def load(self, program: Program) -> None:
        """Start `program` with empty tables (const entries and defaults in place)."""
        if not isinstance(program, NativeProgram):
            raise DataPlaneError(f"{self.name}: not a program of compile_program")
        if self._lib.sn_device_load(self._d, program.descriptor()) != 0:
            raise DataPlaneError(f"{self.name}: the program can't be loaded: out of memory")
        self._program = program
        self._table_names = list(program.tables)
        self._tables = {n: i for i, n in enumerate(program.tables)}
        self._counters = {n: i for i, n in enumerate(program.counters)}
        self._registers = {n: i for i, n in enumerate(program.registers)}
        self._meters = {n: i for i, n in enumerate(program.meters)}
        self._profiles = {n: i for i, n in enumerate(program.profiles)}
        self._value_sets = {n: i for i, n in enumerate(program.value_sets)}
        self._lib.sn_device_listen(self._d, int(_log.isEnabledFor(logging.INFO)))

    def _loaded(self) -> NativeProgram:
        if self._program is None:
            raise DataPlaneError(f"{self.name}: no program is loaded")
        return self._program

    def _table(self, name: str) -> tuple[int, TableInfo]:
        return self._tables[name], self._loaded().tables[name]

    # ---- tables

    def write(self, updates: Sequence[Update]) -> list[Status]:
        """Apply `updates` in order; one status for each."""
        out = [Status.OK] * len(updates)
        records, places = bytearray(), []
        for i, u in enumerate(updates):
            record = self._record(u)
            if record is None:
                out[i] = Status.INVALID
            else:
                records += record
                places.append(i)
        if places:
            status = buffer(len(places))
            self._lib.sn_write(self._d, bytes(records), len(places), status)
            for place, s in zip(places, status, strict=True):
                out[place] = Status(s)
        return out

    def write_head(self, request: bytes) -> WriteHead:
        """Read what stands around the updates; ValueError if the request is damaged."""
        return wire.write_head(request)

    def write_encoded(
        self,
        plan: WritePlan | None,
        request: bytes,
        count: int,
        other: Callable[[int, bytes], None],
    ) -> list[tuple[int, Status, bytes]]:
        """Apply the updates of an encoded WriteRequest (see `dataplane.DataPlane`)."""
        if plan is not None and not isinstance(plan, wire.NativePlan):
            raise DataPlaneError(f"{self.name}: not a plan of a NativeProgram")
        return wire.write_encoded(self._d, plan, request, count, other)

    def _record(self, u: Update) -> bytes | None:
        index = self._tables.get(u.table)
        if index is None:
            return None
        table, e = self._loaded().tables[u.table], u.entry
        size = sum(k.size for k in table.key)
        if len(e.match.key) != size or len(e.match.mask) != size:
            return None
        action, params = 0, b""
        if u.op != Op.DELETE:
            if e.action not in table.actions or len(e.params) != self._params_size(e.action):
                return None
            action, params = table.actions.index(e.action), e.params
        if len(e.metadata) > MAX_METADATA:
            return None
        body = e.match.key + e.match.mask + params + e.metadata
        total = (_UPDATE.size + len(body) + 7) & ~7
        head = _UPDATE.pack(
            total,
            u.op,
            action,
            index,
            e.match.priority & 0xFFFFFFFF,
            e.idle_timeout_ns,
            e.controller_metadata,
            len(e.metadata),
        )
        return head + body.ljust(total - _UPDATE.size, b"\0")

    def _params_size(self, action: str) -> int:
        return sum(p.size for p in self._loaded().actions[action].params)

    def set_default(self, table: str, action: str, params: bytes) -> Status:
        """Replace the default action."""
        index, info = self._table(table)
        if action not in info.actions or len(params) != self._params_size(action):
            return Status.INVALID
        number = info.actions.index(action)
        return Status(self._lib.sn_default_set(self._d, index, number, params.ljust(8, b"\0")))

    def reset_default(self, table: str) -> Status:
        """Bring back the default action that the program came with."""
        return Status(self._lib.sn_default_set(self._d, self._tables[table], 0, None))

    def default(self, table: str) -> tuple[str, bytes]:
        """Default action now, as (action, params)."""
        index, info = self._table(table)
        room = buffer(max((self._params_size(a) for a in info.actions), default=0) + 8)
        action = self._lib.sn_default_read(self._d, index, room)
        if action >= len(info.actions):
            return "", b""
        name = info.actions[action]
        return name, bytes(room)[: self._params_size(name)]

    def entries(self, table: str) -> Iterator[tuple[Entry, CounterValue]]:
        """All entries now with their direct counter, const ones included; no order promised."""
        return ((entry, counter) for entry, counter, _ in self.snapshot(table))

    def snapshot(self, table: str) -> Iterator[tuple[Entry, CounterValue, int]]:
        """The entries as they are now, made while they are iterated (see `dataplane`)."""
        index, _ = self._table(table)
        cursor, room = ctypes.c_uint32(0), buffer(_READ_BUFFER)
        chunks: list[bytes] = []
        while n := self._lib.sn_entries(self._d, index, ctypes.byref(cursor), room, _READ_BUFFER):
            chunks.append(ctypes.string_at(room, n))
        return _readings(self._loaded(), table, chunks)

    def _read_one(self, table: str, match: Match) -> tuple[Entry, CounterValue, int] | None:
        index, info = self._table(table)
        size = sum(k.size for k in info.key)
        if len(match.key) != size or len(match.mask) != size:
            return None
        room = buffer(_ENTRY_BUFFER)
        n = self._lib.sn_entry_read(
            self._d, index, match.key, match.mask, match.priority, room, len(room)
        )
        if n == 0:
            return None
        return next(_readings(self._loaded(), table, [ctypes.string_at(room, n)]))

    def entry(self, table: str, match: Match) -> tuple[Entry, CounterValue] | None:
        """The one entry with this match."""
        found = self._read_one(table, match)
        return None if found is None else found[:2]

    def idle_ns(self, table: str, match: Match) -> int | None:
        """Nanoseconds since a packet last hit the entry."""
        found = self._read_one(table, match)
        return None if found is None else found[2]

    def set_direct_counter(self, table: str, match: Match, value: CounterValue) -> Status:
        """Set an entry's direct counter."""
        index, info = self._table(table)
        size = sum(k.size for k in info.key)
        if len(match.key) != size or len(match.mask) != size:
            return Status.INVALID
        return Status(
            self._lib.sn_entry_set_counter(
                self._d, index, match.key, match.mask, match.priority, value.packets, value.bytes
            )
        )

    # ---- counters and registers

    def counter(self, name: str, index: int) -> CounterValue:
        """Read a cell of an indirect counter; IndexError where there is none."""
        packets, octets = self._counter(name, index, None)
        return CounterValue(packets, octets)

    def set_counter(self, name: str, index: int, value: CounterValue) -> None:
        """Write a cell of an indirect counter."""
        self._counter(name, index, (value.packets, value.bytes))

    def register(self, name: str, index: int) -> int:
        """Read a register cell."""
        return self._register(name, index, None)

    def set_register(self, name: str, index: int, value: int) -> None:
        """Write a register cell."""
        self._register(name, index, value & ((1 << self._loaded().registers[name][1]) - 1))

    def _counter(self, name: str, index: int, write: tuple[int, int] | None) -> tuple[int, int]:
        values = (ctypes.c_uint64 * 2)(*(write or (0, 0)))
        number, flag = self._counters[name], int(write is not None)
        if not 0 <= index < _NO_PORT or self._lib.sn_counter_access(
            self._d, number, index, values, flag
        ):
            raise IndexError(f"counter {name} has no cell {index}")
        return values[0], values[1]

    def _register(self, name: str, index: int, write: int | None) -> int:
        bits = self._loaded().registers[name][1]
        # A cell is one word or two, or above 128 bits the number's bytes (pipe.c).
        size = 8 if bits <= 64 else 16 if bits <= 128 else (bits + 7) // 8
        order: Literal["little", "big"] = sys.byteorder if bits <= 128 else "big"
        cell = (ctypes.c_uint8 * size).from_buffer_copy((write or 0).to_bytes(size, order))
        number, flag = self._registers[name], int(write is not None)
        if not 0 <= index < _NO_PORT or self._lib.sn_register_access(
            self._d, number, index, cell, flag
        ):
            raise IndexError(f"register {name} has no cell {index}")
        return int.from_bytes(bytes(cell), order)

    # ---- meters

    def meter(self, name: str, index: int) -> MeterConfig | None:
        """Rates of a cell of an indirect meter, None: not set (always green)."""
        return self._meter(name, index, _METER_READ, None)

    def set_meter(self, name: str, index: int, config: MeterConfig | None) -> None:
        """Set the rates of a cell of an indirect meter."""
        self._meter(name, index, *_meter_op(config))

    def _meter(
        self, name: str, index: int, op: int, config: MeterConfig | None
    ) -> MeterConfig | None:
        rates = _rates(config)
        rc = -1
        if 0 <= index < _NO_PORT:
            rc = self._lib.sn_meter_access(self._d, self._meters[name], index, rates, op)
        if rc < 0:
            raise IndexError(f"meter {name} has no cell {index}")
        return MeterConfig(*rates) if rc else None

    def direct_meter(self, table: str, match: Match) -> MeterConfig | None:
        """Rates of an entry's direct meter, None: not set, or no such entry."""
        return self._direct_meter(table, match, _METER_READ, None)[1]

    def set_direct_meter(self, table: str, match: Match, config: MeterConfig | None) -> Status:
        """Set the rates of an entry's direct meter."""
        return self._direct_meter(table, match, *_meter_op(config))[0]

    def _direct_meter(
        self, table: str, match: Match, op: int, config: MeterConfig | None
    ) -> tuple[Status, MeterConfig | None]:
        index, info = self._table(table)
        size = sum(k.size for k in info.key)
        if len(match.key) != size or len(match.mask) != size or not info.has_meter:
            return Status.INVALID, None
        rates = _rates(config)
        rc = self._lib.sn_entry_meter_access(
            self._d, index, match.key, match.mask, match.priority, rates, op
        )
        if rc < 0:
            return Status.NOT_FOUND, None
        return Status.OK, MeterConfig(*rates) if rc else None

    # ---- action profiles and value sets

    def set_member(self, profile: str, member: int, action: str, params: bytes) -> Status:
        """Create or change a member of an action profile."""
        info = self._loaded().profiles[profile]
        if action not in info.actions or len(params) != self._params_size(action):
            return Status.INVALID
        number = info.actions.index(action)
        data = params.ljust(8, b"\0")
        return Status(
            self._lib.sn_profile_member(self._d, self._profiles[profile], member, number, data)
        )

    def delete_member(self, profile: str, member: int) -> Status:
        """Delete a member; IN_USE while an entry or a group has it."""
        number = self._profiles[profile]
        return Status(self._lib.sn_profile_member(self._d, number, member, 0, None))

    def set_group(self, profile: str, group: int, members: Sequence[GroupMember]) -> Status:
        """Create or change a group of an action profile; INVALID: a member doesn't exist."""
        if not self._loaded().profiles[profile].selector:
            return Status.INVALID
        rows = (ctypes.c_uint32 * (3 * len(members)))()
        for i, m in enumerate(sorted(members, key=lambda m: m.member)):
            watch = _NO_PORT if m.watch_port is None else m.watch_port
            rows[3 * i : 3 * i + 3] = [m.member, m.weight, watch]
        number = self._profiles[profile]
        return Status(self._lib.sn_profile_group(self._d, number, group, rows, len(members)))

    def delete_group(self, profile: str, group: int) -> Status:
        """Delete a group; IN_USE while an entry has it."""
        number = self._profiles[profile]
        return Status(self._lib.sn_profile_group(self._d, number, group, None, 0))

    def set_value_set(self, name: str, members: Sequence[tuple[bytes, bytes]]) -> Status:
        """Replace the members of a value set: packed key and mask of each."""
        size = sum(f.size for f in self._loaded().value_sets[name].key)
        if any(len(key) != size or len(mask) != size for key, mask in members):
            return Status.INVALID
        rows = b"".join(key + mask for key, mask in members)
        number = self._value_sets[name]
        return Status(self._lib.sn_vset_set(self._d, number, rows, len(members)))

    # ---- replication

    def set_clone_session(
        self, session: int, replicas: Sequence[Replica], truncate: int = 0
    ) -> None:
        """Define a clone session (`truncate` bytes, 0: whole); no replicas: delete it."""
        self._group(1, session, replicas, truncate)

    def set_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Define a multicast group; no replicas: delete it."""
        self._group(0, group, replicas, 0)

    def _group(self, kind: int, number: int, replicas: Sequence[Replica], truncate: int) -> None:
        flat: list[int] = []
        for replica in replicas:
            ways = (replica, *replica.backups)
            flat.append(len(ways))
            flat += [value for way in ways for value in (way.port, way.instance)]
        words = (ctypes.c_uint32 * max(len(flat), 1))(*flat)
        if self._lib.sn_group_set(self._d, kind, number, words, len(replicas), truncate) != 0:
            raise DataPlaneError(f"{self.name}: out of memory")

    # ---- packets

    def packet_out(self, frame: bytes) -> None:
        """Put a frame, with the program's packet-out header in front, in at the CPU port.

        The queue is bounded; what doesn't fit is counted as a drop of the CPU port. ValueError for
        a frame that is longer than any can be.
        """
        if len(frame) > _MAX_FRAME:
            raise ValueError(f"{len(frame)} bytes are no frame, {_MAX_FRAME} are the most")
        self._lib.sn_packet_out(self._d, frame, len(frame))

    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for events; the queue is bounded, its drops are counted."""
        with self._event_lock:
            n = self._lib.sn_events(
                self._d, self._event_buffer, _EVENT_BUFFER, max(int(timeout * 1e9), 0)
            )
            data = memoryview(self._event_buffer).cast("B")[:n].tobytes()
        out: list[Event] = []
        at = 0
        while at < n:
            kind, number, length, priority = _EVENT.unpack_from(data, at)
            start = at + _EVENT.size
            event = self._event(kind, number, priority, data[start : start + length])
            if event is not None:
                out.append(event)
            at += (_EVENT.size + length + 7) & ~7
        return out

    def wake(self) -> None:
        """Make a waiting `events` return now, with what there is."""
        self._lib.sn_wake(self._d)

    def _event(self, kind: int, number: int, priority: int, data: bytes) -> Event | None:
        if kind == 1:
            return PacketInEvent(data)
        program = self._program
        if program is None:
            return None
        if kind == 2 and number < len(program.digests):
            return DigestEvent(list(program.digests)[number], data)
        if kind == 3 and number < len(self._table_names):
            name = self._table_names[number]
            half = len(data) // 2
            mask = _trim(program.tables[name], data[half:])
            return IdleTimeoutEvent(name, Match(data[:half], mask, priority))
        if kind == 4 and number < len(program.messages):
            _log.info("%s: %s", self.name, _filled(program.messages[number], data))
        return None  # of a program that was replaced meanwhile

    def inject(self, port: int, frame: bytes, vnet: bytes | None = None) -> list[tuple[int, bytes]]:
        """Run one frame through at once, without interfaces: what comes out, where, in order.

        Frames to the CPU port are among the results and don't become events.
        """
        return [(s.port, s.frame) for s in self.inject_vnet(port, frame, vnet)]

    def inject_vnet(self, port: int, frame: bytes, vnet: bytes | None = None) -> list[Sent]:
        """As `inject`; with the virtio header (10 bytes, host order) of each frame."""
        if vnet is not None and len(vnet) != _VNET_SIZE:
            raise ValueError(f"a virtio header has {_VNET_SIZE} bytes")
        room = buffer(_INJECT_BUFFER)
        n = self._lib.sn_inject(self._d, port, frame, len(frame), vnet, room, _INJECT_BUFFER)
        if n < 0:
            raise DataPlaneError(f"{self.name}: more than {_INJECT_BUFFER} bytes came out")
        data, at = memoryview(room).cast("B")[:n].tobytes(), 0
        out = []
        while at < n:
            size, to, length, _, header = _OUT.unpack_from(data, at)
            start = at + _OUT.size
            out.append(Sent(to, data[start : start + length], header))
            at += size
        return out

    def loop(self, port: int, frames: Sequence[bytes], rounds: int) -> tuple[float, int]:
        """Run frames of one length through, memory to memory: seconds taken, frames out."""
        out = ctypes.c_uint64(0)
        ns = self._lib.sn_loop(
            self._d,
            port,
            b"".join(frames),
            len(frames[0]),
            len(frames),
            rounds,
            ctypes.byref(out),
        )
        return ns / 1e9, out.value

    # ---- statistics

    def program_events(self) -> dict[str, int]:
        """What programs did since the start that may be a mistake, by name: `PROGRAM_EVENTS`."""
        values = (ctypes.c_uint64 * len(PROGRAM_EVENTS))()
        self._lib.sn_event_counts(self._d, values)
        return dict(zip(PROGRAM_EVENTS, values, strict=True))

    def ports(self) -> list[PortStats]:
        """Statistics of every port, the CPU port included.

        Last comes a port without interface, -1: what was sent to ports that don't exist.
        """
        out = []
        names = list(self._ports.values())
        for i in range(len(names) + 2):
            v = (ctypes.c_uint64 * (6 + len(DROP_REASONS)))()
            self._lib.sn_port_stats(self._d, i, v)
            real, cpu = i < len(names), i == len(names)
            if cpu and self._cpu_port is None:
                continue
            drops = {r: n for r, n in zip(DROP_REASONS, v[6:], strict=True) if n}
            out.append(
                PortStats(
                    port=int(v[0]) if real or cpu else -1,
                    interface=names[i] if real else "cpu" if cpu else "",
                    up=bool(v[1]) or cpu,
                    rx_frames=v[2],
                    rx_bytes=v[3],
                    tx_frames=v[4],
                    tx_bytes=v[5],
                    drops=drops,
                )
            )
        return out

    def close(self) -> None:
        """Stop the threads, release the ports. No other call may be under way or follow."""
        if not self._closed:
            self._closed = True
            if self._dev is not None:
                self._lib.sn_device_stop(self._dev)
                with self._event_lock:  # a reader that was waiting has come back
                    self._free()


def _readings(
    program: NativeProgram, table: str, chunks: Sequence[bytes]
) -> Iterator[tuple[Entry, CounterValue, int]]:
    info = program.tables[table]
    n = sum(k.size for k in info.key)
    actions = [(name, sum(p.size for p in program.actions[name].params)) for name in info.actions]
    # Exact fields read back with all ones, also in the bits that pad them to whole bytes.
    exact = _trim(info, b"\xff" * n) if all(k.match is MatchKind.EXACT for k in info.key) else None
    for data in chunks:
        at = 0
        while at < len(data):
            size, action, priority, _, timeout, packets, octets, idle, number, noted = (
                _READING.unpack_from(data, at)
            )
            start = at + _READING.size
            name, params = actions[action]
            mask = exact or _trim(info, data[start + n : start + 2 * n])
            end = start + 2 * n + params
            entry = Entry(
                Match(data[start : start + n], mask, priority),
                name,
                data[start + 2 * n : end],
                timeout,
                data[end : end + noted],
                number,
            )
            yield entry, CounterValue(packets, octets), idle
            at += size


def _rates(config: MeterConfig | None) -> ctypes.Array[ctypes.c_uint64]:
    c = config or MeterConfig(0, 0, 0, 0)
    return (ctypes.c_uint64 * 4)(c.cir, c.cburst, c.pir, c.pburst)


def _meter_op(config: MeterConfig | None) -> tuple[int, MeterConfig | None]:
    if config is not None and config.pir < config.cir:
        raise ValueError(f"peak rate {config.pir} below committed rate {config.cir}")
    return (_METER_UNSET if config is None else _METER_SET), config


def _filled(text: str, data: bytes) -> str:
    """A message of the program with its arguments (16 bytes each) where `{}` stands."""
    out, *rest = text.split("{}")
    args = [str(int.from_bytes(data[i : i + 16], "big")) for i in range(0, len(data), 16)]
    for value, part in zip_longest(args[: len(rest)], rest, fillvalue="{}"):
        out += value + part
    return out


def _trim(info: TableInfo, mask: bytes) -> bytes:
    """Zeroes the bits of a mask that only pad a field to whole bytes."""
    out, at = bytearray(mask), 0
    for k in info.key:
        if k.bits % 8:
            out[at] &= (1 << k.bits % 8) - 1
        at += k.size
    return bytes(out)
