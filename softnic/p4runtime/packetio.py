"""Packet-outs that native code left: what is wrong with them, by name (16.1).

What is right never comes here, nor do packet-ins: see server/hot.c.
"""

from __future__ import annotations

from finsy.proto import p4r

from softnic.p4runtime.codec import pack
from softnic.p4runtime.errors import P4RuntimeError, invalid
from softnic.p4runtime.schema import ControllerHeader


class PacketOutEncoder:
    """Writes the packet-out header of one pipeline."""

    def __init__(self, header: ControllerHeader) -> None:
        self._header = header
        self._fields = {field.id: field for field in header.fields}
        self._required = {field.id: field.name for field in header.fields if not field.is_padding}

    def encode(self, message: p4r.PacketOut) -> bytes:
        """The frame to put in; every field but padding must be given, each once.

        INVALID_ARGUMENT names the field: unlike bmv2, which sends zeros for what is missing.
        """
        value = 0
        seen: set[int] = set()
        for metadata in message.metadata:
            field = self._fields.get(metadata.metadata_id)
            if field is None:
                raise invalid(f"packet_out has no metadata id {metadata.metadata_id}")
            if field.id in seen:
                raise invalid(f"packet_out metadata {field.name!r} given twice")
            seen.add(field.id)
            try:
                packed = pack(metadata.value, field.bits, (field.bits + 7) // 8)
            except ValueError as error:
                raise invalid(f"packet_out metadata {field.name!r}: {error}") from error
            value |= int.from_bytes(packed, "big") << field.shift
        if len(seen) < len(self._required) or not self._required.keys() <= seen:
            raise self._missing(seen)
        return value.to_bytes(self._header.size, "big") + message.payload

    def _missing(self, seen: set[int]) -> P4RuntimeError:
        names = [name for p4_id, name in self._required.items() if p4_id not in seen]
        return invalid(f"packet_out metadata {', '.join(names)} is missing")
