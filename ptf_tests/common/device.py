"""The device under test, over P4Runtime: p4runtime-shell's client, nothing of our controller.

The program is loaded once a run. Each test has a connection of its own, and clears up.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ptf.testutils
from common.network import Reason
from common.schema import P4INFO, PROGRAM, Schema, Value
from p4.v1 import p4runtime_pb2
from p4runtime_sh.p4runtime import P4RuntimeClient

DEVICE_ID = 1
INSERT = p4runtime_pb2.Update.INSERT
MODIFY = p4runtime_pb2.Update.MODIFY
DELETE = p4runtime_pb2.Update.DELETE


class PacketIn(NamedTuple):
    """A packet-in with its metadata."""

    reason: Reason
    port: int
    host: int
    policy: int
    frame: bytes


class Count(NamedTuple):
    """A counter cell."""

    packets: int
    bytes: int


class Device:
    """The device, with a list of what has been written to it."""

    def __init__(self, client: P4RuntimeClient, schema: Schema) -> None:
        self.client = client
        self.schema = schema
        self._written: list[Any] = []

    def insert(self, *entities: Any) -> None:
        """Insert entities in one batch; `close` takes them out again."""
        self._write(INSERT, entities)
        self._written += entities

    def modify(self, *entities: Any) -> None:
        """Replace entities that were inserted before."""
        self._write(MODIFY, entities)

    def delete(self, *entities: Any) -> None:
        """Take out entities that were inserted before."""
        self._write(DELETE, entities)
        self._written = [entity for entity in self._written if entity not in entities]

    def close(self) -> None:
        """Take out all that was inserted, last first, and disconnect."""
        try:
            if self._written:
                self._write(DELETE, self._written[::-1])
        finally:
            self.client.tear_down()

    def table(
        self,
        table: str,
        match: Mapping[str, Any],
        action: str | None = None,
        params: Mapping[str, Value] | None = None,
        *,
        priority: int = 0,
        idle_timeout_ns: int = 0,
    ) -> Any:
        """An entity for a table entry, in the P4 program's names."""
        entry = self.schema.entry(
            table, match, action, params, priority=priority, idle_timeout_ns=idle_timeout_ns
        )
        return p4runtime_pb2.Entity(table_entry=entry)

    def direct_count(self, entity: Any) -> Count:
        """A table entry's own counter."""
        wanted = p4runtime_pb2.Entity()
        wanted.direct_counter_entry.table_entry.CopyFrom(entity.table_entry)
        wanted.direct_counter_entry.table_entry.ClearField("action")
        wanted.direct_counter_entry.table_entry.ClearField("idle_timeout_ns")
        data = self._read_one(wanted).direct_counter_entry.data
        return Count(data.packet_count, data.byte_count)

    def count(self, counter: str, index: int) -> Count:
        """A cell of an indirect counter."""
        wanted = p4runtime_pb2.Entity()
        wanted.counter_entry.counter_id = self.schema.counter_id(counter)
        wanted.counter_entry.index.index = index
        data = self._read_one(wanted).counter_entry.data
        return Count(data.packet_count, data.byte_count)

    def entries(self, table: str) -> list[Any]:
        """All entries of a table."""
        wanted = p4runtime_pb2.Entity()
        wanted.table_entry.table_id = self.schema.table_id(table)
        answers = self.client.read_one(wanted)
        return [entity.table_entry for answer in answers for entity in answer.entities]

    def send(self, frame: bytes, port: int, submit: int) -> None:
        """A packet-out."""
        request = p4runtime_pb2.StreamMessageRequest()
        request.packet.CopyFrom(self.schema.packet_out(frame, {"port": port, "submit": submit}))
        self.client.stream_out_q.put(request)

    def packet_in(self, timeout: float) -> PacketIn | None:
        """The next packet-in, or None after `timeout` seconds."""
        message = self.client.get_stream_packet("packet", timeout)
        if message is None:
            return None
        metadata = self.schema.packet_in(message.packet)
        return PacketIn(
            Reason(metadata["reason"]),
            metadata["port"],
            metadata["host"],
            metadata["policy"],
            message.packet.payload,
        )

    def idle_entries(self, timeout: float) -> list[Any]:
        """The entries that the next idle time-out notification names; none after `timeout` s."""
        message = self.client.get_stream_packet("idle_timeout_notification", timeout)
        return [] if message is None else list(message.idle_timeout_notification.table_entry)

    def _write(self, kind: int, entities: Any) -> None:
        request = p4runtime_pb2.WriteRequest()
        for entity in entities:
            request.updates.add(type=kind, entity=entity)
        self.client.write(request)

    def _read_one(self, wanted: Any) -> Any:
        found = [entity for answer in self.client.read_one(wanted) for entity in answer.entities]
        if len(found) != 1:
            raise LookupError(f"read {len(found)} entities instead of one: {wanted}")
        return found[0]


_election_ids = itertools.count(int(time.time()))


def connect() -> Device:
    """The device, with this caller as its primary controller; give it back with `close`."""
    port = ptf.testutils.test_param_get("grpc_port", 9559)
    # A higher election id each time: the primary, even if the last one's stream is still ending.
    client = P4RuntimeClient(DEVICE_ID, f"127.0.0.1:{port}", (0, next(_election_ids)))
    _load_program(client)
    return Device(client, _schema())


_loaded: list[Path] = []
_schema = functools.cache(Schema)


def _load_program(client: P4RuntimeClient) -> None:
    """Once a run: tests give back what they wrote, so that the next finds empty tables."""
    if not _loaded:
        client.set_fwd_pipe_config(str(P4INFO), str(PROGRAM))
        _loaded.append(PROGRAM)
