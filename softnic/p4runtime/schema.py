"""What a pipeline offers to clients: P4Info ids bound to the names and widths of the program.

P4Info and program come from one compilation, but reach us as two files. Everything that P4Info
names must be in the program with the same shape; the program may hold more (tables that p4c
made for itself).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from finsy.proto import p4i

from softnic.dataplane import (
    ActionInfo,
    Field,
    MatchKind,
    Program,
    TableInfo,
    WireAction,
    WireTable,
)
from softnic.p4runtime.errors import P4RuntimeError, invalid
from softnic.p4runtime.p4data import DataShape, shape_of


class EntityKind(Enum):
    """Kinds of P4 objects that have an id, with the P4Info list that holds them."""

    TABLE = "tables"
    ACTION = "actions"
    ACTION_PROFILE = "action_profiles"
    COUNTER = "counters"
    DIRECT_COUNTER = "direct_counters"
    METER = "meters"
    DIRECT_METER = "direct_meters"
    REGISTER = "registers"
    DIGEST = "digests"
    VALUE_SET = "value_sets"


_MATCH_KINDS = {
    p4i.MatchField.EXACT: MatchKind.EXACT,
    p4i.MatchField.LPM: MatchKind.LPM,
    p4i.MatchField.TERNARY: MatchKind.TERNARY,
    p4i.MatchField.RANGE: MatchKind.RANGE,
    p4i.MatchField.OPTIONAL: MatchKind.OPTIONAL,
}
_LOWERED = (MatchKind.OPTIONAL, MatchKind.TERNARY)
"""p4c writes an optional match of P4Info as a ternary one into the JSON."""


@dataclass(frozen=True, slots=True)
class KeySchema:
    """One match field; `offset` is where its packed bytes begin in the table's key."""

    id: int
    name: str
    bits: int
    size: int
    kind: MatchKind
    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class ActionSchema:
    """An action; parameters in packing order with their P4Info ids."""

    id: int
    name: str
    params: tuple[tuple[int, Field], ...]
    index_by_id: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table, and which of its actions may stand in an entry or be the default."""

    id: int
    name: str
    keys: tuple[KeySchema, ...]
    entry_actions: Mapping[int, ActionSchema]
    default_actions: Mapping[int, ActionSchema]
    action_ids: Mapping[str, int]
    needs_priority: bool
    is_const: bool
    default_is_const: bool
    has_counter: bool
    has_timeout: bool
    profile: int
    """Id of its action profile; 0 for a direct table."""
    meter: int
    """Id of its direct meter, or 0."""

    @property
    def is_plain(self) -> bool:
        """True if all that its entries need is a match and an action of its own."""
        return bool(self.keys) and not self.is_const and not self.profile and not self.meter

    def wire(self) -> WireTable:
        """What the data plane needs to read its entries by itself."""
        return WireTable(
            name=self.name,
            number=self.id,
            fields=tuple(key.id for key in self.keys),
            kinds=tuple(key.kind for key in self.keys),
            actions=tuple(
                WireAction(a.name, number, tuple(p for p, _ in a.params))
                for number, a in self.entry_actions.items()
            ),
            has_timeout=self.has_timeout,
        )


@dataclass(frozen=True, slots=True)
class ProfileSchema:
    """An action profile, with a selector (then it has groups) or without."""

    id: int
    name: str
    actions: Mapping[int, ActionSchema]
    has_selector: bool
    max_group_size: int
    """Weights of one group together; 0: no limit but the data plane's."""
    counts_members: bool
    """The limit is on the number of members instead."""
    max_member_weight: int
    weightless: bool


@dataclass(frozen=True, slots=True)
class ValueSetSchema:
    """A parser value set."""

    id: int
    name: str
    keys: tuple[KeySchema, ...]
    size: int

    @property
    def ranges(self) -> list[int]:
        """Which of its fields match ranges."""
        return [key.index for key in self.keys if key.kind is MatchKind.RANGE]


@dataclass(frozen=True, slots=True)
class Cells:
    """An indexed object: counter or meter (`shape` None), or register."""

    id: int
    name: str
    size: int
    shape: DataShape | None


@dataclass(frozen=True, slots=True)
class DigestSchema:
    """A digest and the shape of its messages."""

    id: int
    name: str
    shape: DataShape


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field of a controller header; `shift` is its distance from the header's last bit."""

    id: int
    name: str
    bits: int
    shift: int
    is_padding: bool


@dataclass(frozen=True, slots=True)
class ControllerHeader:
    """The header in front of packet-ins or packet-outs, `size` bytes."""

    fields: tuple[HeaderField, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Schema:
    """All objects of one pipeline by P4Info id."""

    tables: Mapping[int, TableSchema]
    table_by_name: Mapping[str, TableSchema]
    counters: Mapping[int, Cells]
    registers: Mapping[int, Cells]
    meters: Mapping[int, Cells]
    profiles: Mapping[int, ProfileSchema]
    value_sets: Mapping[int, ValueSetSchema]
    digests: Mapping[int, DigestSchema]
    digest_by_name: Mapping[str, DigestSchema]
    packet_in: ControllerHeader
    packet_out: ControllerHeader
    names: Mapping[EntityKind, Mapping[int, str]] = field(default_factory=dict)

    def name(self, kind: EntityKind, p4_id: int) -> str:
        """Name of an object for error texts, with its id where the name isn't known."""
        known = self.names[kind].get(p4_id)
        return known if known is not None else f"id {p4_id}"


def build_schema(p4info: p4i.P4Info, program: Program) -> Schema:
    """Bind P4Info to the program; INVALID_ARGUMENT names the first object that doesn't fit."""
    names = {
        kind: {o.preamble.id: o.preamble.name for o in getattr(p4info, kind.value)}
        for kind in EntityKind
    }
    actions = {a.preamble.id: _action(a, program) for a in p4info.actions}
    tables = {t.preamble.id: _table(t, p4info, actions, program) for t in p4info.tables}
    counters = {
        c.preamble.id: _cells("counter", c, program.counters.get(c.preamble.name))
        for c in p4info.counters
    }
    meters = {
        m.preamble.id: _cells("meter", m, program.meters.get(m.preamble.name))
        for m in p4info.meters
    }
    profiles = {p.preamble.id: _profile(p, tables, program) for p in p4info.action_profiles}
    value_sets = {v.preamble.id: _value_set(v, program) for v in p4info.value_sets}
    registers = {r.preamble.id: _register(r, p4info, program) for r in p4info.registers}
    digests = {d.preamble.id: _digest(d, p4info, program) for d in p4info.digests}
    headers = {
        m.preamble.name: _controller_header(m, p4info) for m in p4info.controller_packet_metadata
    }
    return Schema(
        tables=tables,
        table_by_name={t.name: t for t in tables.values()},
        counters=counters,
        registers=registers,
        meters=meters,
        profiles=profiles,
        value_sets=value_sets,
        digests=digests,
        digest_by_name={d.name: d for d in digests.values()},
        packet_in=headers.get("packet_in", ControllerHeader()),
        packet_out=headers.get("packet_out", ControllerHeader()),
        names=names,
    )


def _mismatch(kind: str, name: str, what: str) -> P4RuntimeError:
    return invalid(f"P4Info doesn't match p4_device_config: {kind} {name!r} {what}")


def _width(
    where: tuple[str, str], name: str, bitwidth: int, device_bits: int, type_name: str
) -> None:
    """A field's width must agree, unless its type is translated (then the value's must fit)."""
    if bitwidth != device_bits and not type_name:
        raise _mismatch(*where, f"field {name!r} has {bitwidth} bits, the program {device_bits}")
    if bitwidth == 0:
        raise _mismatch(
            *where, f"field {name!r} of type {type_name!r} is translated to strings, without a map"
        )


def _action(info: p4i.Action, program: Program) -> ActionSchema:
    name = info.preamble.name
    device: ActionInfo | None = program.actions.get(name)
    if device is None:
        raise _mismatch("action", name, "is not in the program")
    if [p.name for p in info.params] != [p.name for p in device.params]:
        raise _mismatch("action", name, f"has parameters {[p.name for p in device.params]} there")
    for param, target in zip(info.params, device.params, strict=True):
        _width(("action", name), param.name, param.bitwidth, target.bits, param.type_name.name)
    params = tuple((p.id, f) for p, f in zip(info.params, device.params, strict=True))
    return ActionSchema(
        info.preamble.id, name, params, {p.id: i for i, p in enumerate(info.params)}
    )


def _table(
    info: p4i.Table, p4info: p4i.P4Info, actions: Mapping[int, ActionSchema], program: Program
) -> TableSchema:
    name = info.preamble.name
    device = program.tables.get(name)
    if device is None:
        raise _mismatch("table", name, "is not in the program")
    entry_actions: dict[int, ActionSchema] = {}
    default_actions: dict[int, ActionSchema] = {}
    for ref in info.action_refs:
        action = actions.get(ref.id)
        if action is None:
            raise invalid(f"P4Info: table {name!r} refers to action id {ref.id}, which it lacks")
        if action.name not in device.actions:
            raise _mismatch("table", name, f"has no action {action.name!r} there")
        if ref.scope != p4i.ActionRef.DEFAULT_ONLY:
            entry_actions[ref.id] = action
        if ref.scope != p4i.ActionRef.TABLE_ONLY:
            default_actions[ref.id] = action
    direct = set(info.direct_resource_ids)
    has_counter = any(c.preamble.id in direct for c in p4info.direct_counters)
    if has_counter and not device.has_counter:
        raise _mismatch("table", name, "has no direct counter there")
    return TableSchema(
        id=info.preamble.id,
        name=name,
        keys=_keys(info, device),
        entry_actions=entry_actions,
        default_actions=default_actions,
        action_ids={actions[ref.id].name: ref.id for ref in info.action_refs},
        needs_priority=device.needs_priority,
        is_const=info.is_const_table,
        default_is_const=info.const_default_action_id != 0 or device.default_is_const,
        has_counter=has_counter,
        has_timeout=info.idle_timeout_behavior == p4i.Table.NOTIFY_CONTROL,
        profile=info.implementation_id,
        meter=next((m.preamble.id for m in p4info.direct_meters if m.preamble.id in direct), 0),
    )


def _keys(info: p4i.Table, device: TableInfo) -> tuple[KeySchema, ...]:
    name = info.preamble.name
    if [m.name for m in info.match_fields] != [k.name for k in device.key]:
        raise _mismatch("table", name, f"has match fields {[k.name for k in device.key]} there")
    keys: list[KeySchema] = []
    offset = 0
    for match, key in zip(info.match_fields, device.key, strict=True):
        kind = _MATCH_KINDS.get(match.match_type)
        if kind is None or (kind is not key.match and (kind, key.match) != _LOWERED):
            raise _mismatch("table", name, f"matches {match.name!r} {key.match.value} there")
        _width(("table", name), match.name, match.bitwidth, key.bits, match.type_name.name)
        keys.append(KeySchema(match.id, match.name, key.bits, key.size, kind, len(keys), offset))
        offset += key.size
    return tuple(keys)


def _cells(kind: str, info: p4i.Counter | p4i.Meter, size: int | None) -> Cells:
    name = info.preamble.name
    if size is None:
        raise _mismatch(kind, name, "is not in the program")
    if info.size != size:
        raise _mismatch(kind, name, f"has {size} cells there, {info.size} in P4Info")
    return Cells(info.preamble.id, name, size, None)


def _profile(
    info: p4i.ActionProfile, tables: Mapping[int, TableSchema], program: Program
) -> ProfileSchema:
    name = info.preamble.name
    device = program.profiles.get(name)
    if device is None:
        raise _mismatch("action profile", name, "is not in the program")
    if info.with_selector != device.selector:
        raise _mismatch("action profile", name, "differs there in whether it has a selector")
    actions: dict[int, ActionSchema] = {}
    for table in tables.values():
        if table.profile == info.preamble.id:
            actions.update(table.entry_actions)
    return ProfileSchema(
        info.preamble.id,
        name,
        actions,
        info.with_selector,
        info.max_group_size,
        counts_members=info.HasField("sum_of_members"),
        max_member_weight=info.sum_of_members.max_member_weight,
        weightless=info.weights_disallowed,
    )


def _value_set(info: p4i.ValueSet, program: Program) -> ValueSetSchema:
    name = info.preamble.name
    device = program.value_sets.get(name)
    if device is None:
        raise _mismatch("value set", name, "is not in the program")
    if [m.bitwidth for m in info.match] != [k.bits for k in device.key]:
        raise _mismatch(
            "value set", name, f"has fields of {[k.bits for k in device.key]} bits there"
        )
    keys: list[KeySchema] = []
    offset = 0
    for match, key in zip(info.match, device.key, strict=True):
        kind = _MATCH_KINDS.get(match.match_type)
        if kind is None:
            raise invalid(f"P4Info: value set {name!r}: field {match.name!r} has no match type")
        keys.append(KeySchema(match.id, match.name, key.bits, key.size, kind, len(keys), offset))
        offset += key.size
    return ValueSetSchema(info.preamble.id, name, tuple(keys), info.size)


def _register(info: p4i.Register, p4info: p4i.P4Info, program: Program) -> Cells:
    name = info.preamble.name
    device = program.registers.get(name)
    if device is None:
        raise _mismatch("register", name, "is not in the program")
    size, bits = device
    if info.size != size:
        raise _mismatch("register", name, f"has {size} cells there, {info.size} in P4Info")
    shape = shape_of(info.type_spec, p4info.type_info, f"register {name!r}")
    if shape.bits != bits:
        raise _mismatch("register", name, f"has {bits} bits there, {shape.bits} in P4Info")
    return Cells(info.preamble.id, name, size, shape)


def _digest(info: p4i.Digest, p4info: p4i.P4Info, program: Program) -> DigestSchema:
    name = info.preamble.name
    device = program.digests.get(name)
    if device is None:
        raise _mismatch("digest", name, "is not in the program")
    shape = shape_of(info.type_spec, p4info.type_info, f"digest {name!r}")
    if list(shape.leaf_bits()) != [f.bits for f in device]:
        raise _mismatch(
            "digest",
            name,
            f"has fields of {[f.bits for f in device]} bits there, "
            f"{list(shape.leaf_bits())} in P4Info",
        )
    return DigestSchema(info.preamble.id, name, shape)


def _controller_header(info: p4i.ControllerPacketMetadata, p4info: p4i.P4Info) -> ControllerHeader:
    widths: list[int] = []
    for metadata in info.metadata:
        type_name = metadata.type_name.name
        new_type = p4info.type_info.new_types.get(type_name) if type_name else None
        bits = metadata.bitwidth
        if new_type is not None and new_type.HasField("original_type"):
            bits = bits or new_type.original_type.bitstring.bit.bitwidth
        if bits <= 0 or (new_type is not None and new_type.HasField("translated_type")):
            raise invalid(
                f"P4Info: field {metadata.name!r} of {info.preamble.name!r} has a translated type; "
                "its width in the packet can't be known"
            )
        widths.append(bits)
    total = sum(widths)
    size = (total + 7) // 8
    shift = size * 8
    fields: list[HeaderField] = []
    for metadata, bits in zip(info.metadata, widths, strict=True):
        shift -= bits
        padding = metadata.name.startswith("_pad") or "@padding" in metadata.annotations
        fields.append(HeaderField(metadata.id, metadata.name, bits, shift, padding))
    return ControllerHeader(tuple(fields), size)
