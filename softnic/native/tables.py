"""Table entries: packed records to the runtime, and readings back."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from softnic import wire
from softnic.clib import buffer
from softnic.dataplane import (
    MAX_METADATA,
    CounterValue,
    Entry,
    Match,
    MatchKind,
    Op,
    Status,
    TableInfo,
    Update,
    WriteHead,
    WritePlan,
)
from softnic.native.handle import DataPlaneError, Handle
from softnic.native.program import NativeProgram

_UPDATE = struct.Struct("=IHHIIQQI4x")
_READING = struct.Struct("=IIIIQQQQQI4x")
_READ_BUFFER = 1 << 18
_ENTRY_BUFFER = 1 << 14
"""More than one entry takes when it is read."""


class Tables(Handle):
    """The tables of a device."""

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

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other writers out (see `dataplane.DataPlane`), native ones too."""
        device = self._d
        self._lib.sn_entities_lock(device)
        try:
            yield
        finally:
            self._lib.sn_entities_unlock(device)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep packets out (see `dataplane.DataPlane`)."""
        device = self._d
        self._lib.sn_packets_hold(device)
        try:
            yield
        finally:
            self._lib.sn_packets_release(device)

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
        index = self._numbers.tables.get(u.table)
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

    def set_default(self, table: str, action: str, params: bytes) -> Status:
        """Replace the default action."""
        index, info = self._table(table)
        if action not in info.actions or len(params) != self._params_size(action):
            return Status.INVALID
        number = info.actions.index(action)
        return Status(self._lib.sn_default_set(self._d, index, number, params.ljust(8, b"\0")))

    def reset_default(self, table: str) -> Status:
        """Bring back the default action that the program came with."""
        return Status(self._lib.sn_default_set(self._d, self._numbers.tables[table], 0, None))

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

    def entry_count(self, table: str) -> int:
        """How many entries there are."""
        return int(self._lib.sn_entry_count(self._d, self._numbers.tables[table]))

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


def _readings(
    program: NativeProgram, table: str, chunks: Sequence[bytes]
) -> Iterator[tuple[Entry, CounterValue, int]]:
    info = program.tables[table]
    n = sum(k.size for k in info.key)
    actions = [(name, sum(p.size for p in program.actions[name].params)) for name in info.actions]
    # Exact fields read back with all ones, also in the bits that pad them to whole bytes.
    exact = trim(info, b"\xff" * n) if all(k.match is MatchKind.EXACT for k in info.key) else None
    for data in chunks:
        at = 0
        while at < len(data):
            size, action, priority, _, timeout, packets, octets, idle, number, noted = (
                _READING.unpack_from(data, at)
            )
            start = at + _READING.size
            name, params = actions[action]
            mask = exact or trim(info, data[start + n : start + 2 * n])
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


def trim(info: TableInfo, mask: bytes) -> bytes:
    """Zeroes the bits of a mask that only pad a field to whole bytes."""
    out, at = bytearray(mask), 0
    for k in info.key:
        if k.bits % 8:
            out[at] &= (1 << k.bits % 8) - 1
        at += k.size
    return bytes(out)
