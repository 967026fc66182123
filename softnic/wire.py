"""P4Runtime's WriteRequest without protobuf: what native code needs to read it (runtime/wire.c).

A plan names tables by P4Info's numbers; their plain entries never become Python objects.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from softnic.clib import buffer, runtime
from softnic.dataplane import (
    ActionInfo,
    Field,
    MatchKind,
    Status,
    TableInfo,
    WireTable,
    WriteHead,
)

if TYPE_CHECKING:
    _Spans = ctypes.Array[ctypes.c_uint64] | ctypes._Pointer[ctypes.c_uint64]
    """Offset and length of each update."""

_KINDS = {kind: number for number, kind in enumerate(MatchKind)}
"""`enum sn_match` (runtime/softnic.h) has the order of `MatchKind`."""
_OTHER = 255
_HEAD = 9
_MAX_KEY, _MAX_PARAMS, _MAX_FIELDS = 256, 1024, 64
"""Bounds of wire.c; tables beyond them are left to the server."""


class NativePlan:
    """A plan in native memory."""

    def __init__(
        self,
        wanted: Sequence[WireTable],
        tables: Mapping[str, TableInfo],
        actions: Mapping[str, ActionInfo],
    ) -> None:
        """Names that the program lacks raise KeyError."""
        self._lib = runtime()
        index = {name: number for number, name in enumerate(tables)}
        rows = [
            _table_words(table, index[table.name], tables[table.name], actions)
            for table in wanted
            if _fits(table, tables[table.name], actions)
        ]
        words = [len(rows), *(word for row in rows for word in row)]
        self.address: int | None = self._lib.sn_wire_new((ctypes.c_uint32 * len(words))(*words))
        if not self.address:
            raise MemoryError("no memory for a plan")

    def __del__(self) -> None:
        self._lib.sn_wire_free(self.address)


def write_head(request: bytes) -> WriteHead:
    """What stands around the updates; ValueError if the request is damaged."""
    h = (ctypes.c_uint64 * _HEAD)()
    if runtime().sn_wire_head(request, len(request), h) < 0:
        raise ValueError("not a p4.v1.WriteRequest")
    device_id, role_id, at, size, has_election_id, high, low, atomicity, updates = h
    return WriteHead(
        device_id=device_id,
        role_id=role_id,
        role=request[at : at + size],
        election_id=high << 64 | low if has_election_id else None,
        atomicity=atomicity,
        updates=updates,
    )


def write_encoded(
    device: int,
    plan: NativePlan | None,
    request: bytes,
    count: int,
    other: Callable[[int, bytes], None],
) -> list[tuple[int, Status, bytes]]:
    """See `dataplane.DataPlane.write_encoded`."""
    lib = runtime()
    status, spans = buffer(max(count, 1)), (ctypes.c_uint64 * (2 * count + 2))()
    place = (ctypes.c_uint64 * 2)()
    address = None if plan is None else plan.address
    while lib.sn_wire_write(device, address, request, len(request), place, status, spans):
        index = (place[1] & 0xFFFFFFFF) - 1
        other(index, _update(request, spans, index))
    return failures(request, bytes(status)[:count], spans)


def failures(request: bytes, status: bytes, spans: _Spans) -> list[tuple[int, Status, bytes]]:
    """The updates that native code tried and that failed: index, status and bytes of each."""
    failed = status.translate(_FAILED)
    out, at = [], failed.find(1)
    while at >= 0:
        out.append((at, Status(status[at]), _update(request, spans, at)))
        at = failed.find(1, at + 1)
    return out


_FAILED = bytes(0 if status in (Status.OK, _OTHER) else 1 for status in range(256))


def _update(request: bytes, spans: _Spans, index: int) -> bytes:
    at, size = spans[2 * index], spans[2 * index + 1]
    return request[at : at + size]


def _fits(table: WireTable, info: TableInfo, actions: Mapping[str, ActionInfo]) -> bool:
    params = [actions[action.name].params for action in table.actions]
    return (
        len(info.key) <= _MAX_FIELDS
        and _size(info.key) <= _MAX_KEY
        and all(len(p) <= _MAX_FIELDS and _size(p) <= _MAX_PARAMS for p in params)
    )


def _size(fields: Sequence[Field]) -> int:
    return sum(field.size for field in fields)


def _table_words(
    table: WireTable, index: int, info: TableInfo, actions: Mapping[str, ActionInfo]
) -> list[int]:
    words = [table.number, index, _size(info.key), info.needs_priority, table.has_timeout]
    words += [len(info.key), len(table.actions)]
    offset = 0
    for number, kind, field in zip(table.fields, table.kinds, info.key, strict=True):
        words += [number, _KINDS[kind], offset, field.size, field.bits]
        offset += field.size
    for action in table.actions:
        params = actions[action.name].params
        words += [action.number, info.actions.index(action.name), len(params)]
        offset = 0
        for number, param in zip(action.params, params, strict=True):
            words += [number, offset, param.size, param.bits]
            offset += param.size
    return words
