"""Names of the P4 program, as P4Info has them, turned into P4Runtime messages."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from p4.config.v1 import p4info_pb2
from p4.v1 import p4runtime_pb2

BUILD = Path(__file__).resolve().parents[2] / "p4src" / "v1model" / "build"
PROGRAM = BUILD / "dysco.json"
P4INFO = BUILD / "dysco.p4info.txtpb"

Value = int | str
"""A number, an IPv4 or IPv6 address, or a MAC address."""


def number(value: Value) -> int:
    """The value as the P4 program sees it."""
    if isinstance(value, int):
        return value
    if value.count(":") == 5 and "::" not in value:
        return int(value.replace(":", ""), 16)
    return int(ipaddress.ip_address(value))


def canonical(value: Value) -> bytes:
    """P4Runtime's canonical byte string: the shortest, but at least one byte."""
    plain = number(value)
    return plain.to_bytes(max(1, (plain.bit_length() + 7) // 8), "big")


class Schema:
    """The program's P4Info, by name."""

    def __init__(self) -> None:
        info = text_format.Parse(P4INFO.read_text(), p4info_pb2.P4Info(), allow_unknown_field=True)
        self._tables = {table.preamble.alias: table for table in info.tables}
        self._actions = {action.preamble.alias: action for action in info.actions}
        self._counters = {counter.preamble.alias: counter for counter in info.counters}
        self._metadata = {
            header.preamble.alias: header.metadata for header in info.controller_packet_metadata
        }

    def entry(
        self,
        table: str,
        match: Mapping[str, Any],
        action: str | None = None,
        params: Mapping[str, Value] | None = None,
        *,
        priority: int = 0,
        idle_timeout_ns: int = 0,
    ) -> Any:
        """A table entry; ternary values are (value, mask), LPM ones "address/length"."""
        info = self._tables[table]
        entry = p4runtime_pb2.TableEntry(
            table_id=info.preamble.id, priority=priority, idle_timeout_ns=idle_timeout_ns
        )
        kinds = p4info_pb2.MatchField
        left = dict(match)
        for field in info.match_fields:
            if field.name not in left:
                continue  # don't care
            value = left.pop(field.name)
            key = entry.match.add(field_id=field.id)
            if field.match_type == kinds.LPM:
                prefix, _, length = value.partition("/")
                key.lpm.value, key.lpm.prefix_len = canonical(prefix), int(length)
            elif field.match_type == kinds.TERNARY:
                key.ternary.value, key.ternary.mask = map(canonical, value)
            else:
                key.exact.value = canonical(value)
        if left:
            raise KeyError(f"table {table} has no key {', '.join(left)}")
        if action is not None:
            info = self._actions[action]
            entry.action.action.action_id = info.preamble.id
            for param in info.params:
                entry.action.action.params.add(
                    param_id=param.id, value=canonical((params or {})[param.name])
                )
        return entry

    def table_id(self, table: str) -> int:
        """P4Info's id of a table."""
        return int(self._tables[table].preamble.id)

    def counter_id(self, counter: str) -> int:
        """P4Info's id of an indirect counter."""
        return int(self._counters[counter].preamble.id)

    def packet_out(self, payload: bytes, metadata: Mapping[str, int]) -> Any:
        """A packet-out with all of its metadata."""
        packet = p4runtime_pb2.PacketOut(payload=payload)
        for field in self._metadata["packet_out"]:
            packet.metadata.add(metadata_id=field.id, value=canonical(metadata[field.name]))
        return packet

    def packet_in(self, packet: Any) -> dict[str, int]:
        """A packet-in's metadata, by name."""
        values = {item.metadata_id: int.from_bytes(item.value, "big") for item in packet.metadata}
        return {field.name: values[field.id] for field in self._metadata["packet_in"]}
