"""P4Data messages (8.5): values of structured P4 types, as digests and registers carry them.

A shape is made once from the type in P4Info; it then turns packed bytes into P4Data and back
without looking at types again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from finsy.proto import p4d, p4t

from softnic.p4runtime.codec import (
    bytes_to_sint,
    canonical,
    pack,
    sint_to_bytes,
    uint_to_bytes,
)
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid, unimplemented


class ShapeKind(Enum):
    """How a value is written in P4Data."""

    BIT = "bit"
    INT = "int"
    BOOL = "bool"
    STRUCT = "struct"
    TUPLE = "tuple"


@dataclass(frozen=True, slots=True)
class DataShape:
    """A type: a leaf of `bits` bits, or members one after the other."""

    kind: ShapeKind
    bits: int
    members: tuple[DataShape, ...] = ()

    @property
    def size(self) -> int:
        """Bytes it takes when packed, each leaf in whole bytes."""
        if self.members:
            return sum(m.size for m in self.members)
        return (self.bits + 7) // 8

    def leaf_bits(self) -> Iterator[int]:
        """Widths of the leaves in order."""
        if self.kind in _NESTED:
            for member in self.members:
                yield from member.leaf_bits()
        else:
            yield self.bits

    def decode(self, packed: bytes) -> p4d.P4Data:
        """P4Data of packed bytes of exactly `size` bytes."""
        if self.kind is ShapeKind.BIT:
            return p4d.P4Data(bitstring=canonical(packed))
        if self.kind is ShapeKind.BOOL:
            return p4d.P4Data(bool=any(packed))
        if self.kind is ShapeKind.INT:
            number = int.from_bytes(packed, "big")
            if number >> (self.bits - 1) & 1:
                number -= 1 << self.bits
            return p4d.P4Data(bitstring=sint_to_bytes(number))
        values: list[p4d.P4Data] = []
        offset = 0
        for member in self.members:
            values.append(member.decode(packed[offset : offset + member.size]))
            offset += member.size
        struct = p4d.P4StructLike(members=values)
        if self.kind is ShapeKind.STRUCT:
            return p4d.P4Data(struct=struct)
        return p4d.P4Data(tuple=struct)

    def decode_int(self, value: int) -> p4d.P4Data:
        """P4Data of a leaf's value."""
        if self.kind is ShapeKind.BIT:
            return p4d.P4Data(bitstring=uint_to_bytes(value))
        return self.decode(value.to_bytes(self.size, "big"))

    def encode_int(self, data: p4d.P4Data, where: str) -> int:
        """A leaf's value as an unsigned integer of `bits` bits."""
        given = data.WhichOneof("data")
        expected = "bool" if self.kind is ShapeKind.BOOL else "bitstring"
        if given != expected:
            raise invalid(f"{where}: data is a {given or 'nothing'}, must be a {expected}")
        if self.kind is ShapeKind.BOOL:
            return int(data.bool)
        try:
            if self.kind is ShapeKind.INT:
                return bytes_to_sint(data.bitstring, self.bits) & ((1 << self.bits) - 1)
            return int.from_bytes(pack(data.bitstring, self.bits, self.size), "big")
        except ValueError as error:
            raise P4RuntimeError(Code.OUT_OF_RANGE, f"{where}: {error}") from error


_NESTED = frozenset({ShapeKind.STRUCT, ShapeKind.TUPLE})


def shape_of(spec: p4t.P4DataTypeSpec, types: p4t.P4TypeInfo, where: str) -> DataShape:
    """The shape of a type; UNIMPLEMENTED with `where` for types that have none here."""
    kind = spec.WhichOneof("type_spec")
    if kind == "bitstring":
        return _bitstring(spec.bitstring, where)
    if kind == "bool":
        return DataShape(ShapeKind.BOOL, 1)
    if kind == "tuple":
        return _nested(ShapeKind.TUPLE, [shape_of(m, types, where) for m in spec.tuple.members])
    if kind == "struct":
        if spec.struct.name not in types.structs:
            raise invalid(f"{where}: P4Info has no struct {spec.struct.name!r}")
        members = types.structs[spec.struct.name].members
        return _nested(ShapeKind.STRUCT, [shape_of(m.type_spec, types, where) for m in members])
    if kind == "serializable_enum" and spec.serializable_enum.name in types.serializable_enums:
        enum = types.serializable_enums[spec.serializable_enum.name]
        return DataShape(ShapeKind.BIT, enum.underlying_type.bitwidth)
    if kind == "new_type" and spec.new_type.name in types.new_types:
        new_type = types.new_types[spec.new_type.name]
        if new_type.HasField("original_type"):
            return shape_of(new_type.original_type, types, where)
    raise unimplemented(f"{where}: values of type {kind} are not supported")


def _bitstring(spec: p4t.P4BitstringLikeTypeSpec, where: str) -> DataShape:
    kind = spec.WhichOneof("type_spec")
    if kind == "bit":
        return DataShape(ShapeKind.BIT, spec.bit.bitwidth)
    if kind == "int":
        return DataShape(ShapeKind.INT, spec.int.bitwidth)
    raise unimplemented(f"{where}: values of type {kind} are not supported")


def _nested(kind: ShapeKind, members: list[DataShape]) -> DataShape:
    return DataShape(kind, sum(m.bits for m in members), tuple(members))
