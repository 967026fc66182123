"""Idle time-outs: an entry that no packet hits is told once its time is over, and stays."""

from __future__ import annotations

import time

from common.network import A
from common.sessions import SessionTest
from common.ways import Way, inward, outward

SECOND = 10**9
TOLD_WITHIN = 4.0
"""Seconds: the time-out itself, and bmv2's sweep once a second."""


class IdleEntry(SessionTest):
    """Both families and directions; entries without a time-out are never told."""

    def runTest(self) -> None:
        idle = {}
        for way in (outward("v4"), inward("v6")):
            entry = self.entry(way)
            entry.table_entry.idle_timeout_ns = SECOND
            idle[way.name] = entry
        self.device.insert(*idle.values())
        self.device.insert(self.entry(outward("v6")), self.entry(inward("v4")))
        told = set()
        deadline = time.monotonic() + TOLD_WITHIN
        while len(told) < len(idle) and time.monotonic() < deadline:
            for entry in self.device.idle_entries(deadline - time.monotonic()):
                told.add(_named(entry))
        assert told == {_named(entity.table_entry) for entity in idle.values()}, f"told: {told}"
        # Whether it goes is the controller's to say.
        for way in (outward("v4"), inward("v6")):
            self.check(way.in_port, way.frame(), {way.out_port: way.expected()}, name=way.name)


class BusyEntry(SessionTest):
    """An entry that packets hit is not idle, beside one that none hits."""

    def runTest(self) -> None:
        busy, idle = outward("v4"), inward("v4")
        self.device.insert(self._with_timeout(busy), self._with_timeout(idle))
        deadline = time.monotonic() + TOLD_WITHIN
        told: set[bytes] = set()
        # Until the idle one is told, the busy one is hit many times within each time-out.
        while not told and time.monotonic() < deadline:
            self.check(busy.in_port, busy.frame(), {busy.out_port: busy.expected()})
            told |= {_named(entry) for entry in self.device.idle_entries(0.01)}
        assert told == {_named(self.entry(idle).table_entry)}, f"told: {told}"

    def _with_timeout(self, way: Way):
        entry = self.entry(way)
        entry.table_entry.idle_timeout_ns = SECOND
        return entry


class ReadBack(SessionTest):
    """What the agent keeps in an entry comes back: its record, its time-out, its action."""

    def runTest(self) -> None:
        record = bytes(range(200))
        for way in (outward("v4"), inward("v6")):
            entity = self.entry(way)
            entity.table_entry.metadata = record
            entity.table_entry.idle_timeout_ns = 7440 * SECOND
            self.device.insert(entity)
            table = "outbound_v4" if way.in_port == A.port else "inbound_v6"
            (found,) = self.device.entries(table)
            assert found.metadata == record, f"{table}: {found.metadata!r}"
            assert found.idle_timeout_ns == 7440 * SECOND, f"{table}: {found.idle_timeout_ns}"
            assert _named(found) == _named(entity.table_entry), f"{table}: {found}"
            assert found.action == entity.table_entry.action, f"{table}: {found.action}"
            entity.table_entry.metadata = record[::-1]
            self.device.modify(entity)
            (found,) = self.device.entries(table)
            assert found.metadata == record[::-1], f"{table} modified: {found.metadata!r}"


def _named(entry) -> bytes:
    """What tells an entry from others."""
    return b"".join(
        [
            entry.table_id.to_bytes(4, "big"),
            *sorted(field.SerializeToString() for field in entry.match),
        ]
    )
