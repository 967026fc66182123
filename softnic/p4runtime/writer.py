"""Write: the updates of one batch, in order, into the data plane (12).

    WriteRequest --> data plane: plain entries, read by native code (runtime/wire.c)
                        '--> one: everything else, and whatever is wrong with an entry

Called with the device's lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from finsy.proto import p4r
from google.protobuf.message import DecodeError

from softnic.dataplane import (
    GROUP,
    MAX_METADATA,
    CounterValue,
    DataPlane,
    Entry,
    Match,
    Op,
    Status,
    Update,
)
from softnic.p4runtime import meters, oneshot, pre, profiles
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid, unimplemented
from softnic.p4runtime.pipeline import NO_METADATA, Metadata, OneShot, Pipeline
from softnic.p4runtime.roles import ANY, RoleConfig
from softnic.p4runtime.schema import Cells, EntityKind, ProfileSchema
from softnic.p4runtime.tables import KeyCodec, TableCodec

_STATUS = {
    Status.EXISTS: (Code.ALREADY_EXISTS, "an entry with this match exists"),
    Status.NOT_FOUND: (Code.NOT_FOUND, "no entry has this match"),
    Status.FULL: (Code.RESOURCE_EXHAUSTED, "the table is full"),
    Status.INVALID: (Code.INVALID_ARGUMENT, "the data plane refuses the entry"),
}

UNOFFERED = {"extern_entry": "extern entries"}


class Writer:
    """Applies one batch for one role."""

    def __init__(self, dp: DataPlane, pipeline: Pipeline, role: RoleConfig = ANY) -> None:
        self._dp = dp
        self._pipeline = pipeline
        self._state = pipeline.state
        self._role = role

    def apply(self, request: bytes, count: int) -> list[P4RuntimeError | None]:
        """Try each of the `count` updates of a WriteRequest; the error of each that failed."""
        results: list[P4RuntimeError | None] = [None] * count

        def other(index: int, data: bytes) -> None:
            try:
                self.one(decoded(data))
            except P4RuntimeError as error:
                results[index] = error

        plan = self._pipeline.plan if self._role.ids is None else None
        failed = self._dp.write_encoded(plan, request, count, other)
        for index, error in refusals(self._pipeline, failed):
            results[index] = error
        return results

    def one(self, update: p4r.Update) -> None:
        """Apply one update of any kind."""
        kind = update.entity.WhichOneof("entity")
        if not update.type:
            raise invalid("the update has no type")
        op = Op(update.type)
        if kind == "table_entry":
            self._table(op, update.entity.table_entry)
            return
        handler = self._HANDLERS.get(kind or "")
        if handler is None:
            what = UNOFFERED.get(kind or "")
            raise (
                unimplemented(f"{what} are not supported")
                if what
                else invalid("the update has no entity")
            )
        handler(self, op, getattr(update.entity, str(kind)))

    # -- tables ----------------------------------------------------------------------------

    def _table(self, op: Op, message: p4r.TableEntry) -> None:
        codec = self._codec(message.table_id)
        if message.is_default_action:
            self._default(op, codec, message)
            return
        schema = codec.schema
        if op is not Op.DELETE:
            _check_entry_fields(codec, message)
        if not schema.keys:
            raise invalid(f"table {schema.name}: it has no key, only a default action")
        if schema.is_const:
            if op is not Op.MODIFY or message.HasField("action"):
                raise P4RuntimeError(
                    Code.PERMISSION_DENIED, f"table {schema.name}: its entries are const"
                )
            self._modify_const(codec, message)
            return
        match = codec.match(message)
        entry, shot = self._wanted(op, codec, match, message)
        (status,) = self._dp.write([Update(op, schema.name, entry)])
        if shot is not None or (schema.name, match) in self._state.one_shots:
            self._settle_shots(codec, entry, shot, done=status is Status.OK)
        if status is not Status.OK:
            raise _refusal(codec, match, status)
        if op is not Op.DELETE:
            self._set_direct_resources(op, codec, match, message)

    def _wanted(
        self, op: Op, codec: TableCodec, match: Match, message: p4r.TableEntry
    ) -> tuple[Entry, OneShot | None]:
        """The entry, and what was made for it alone."""
        if op is Op.DELETE:
            return Entry(match, "", b""), None
        if message.action.HasField("action_profile_action_set"):
            self._check_room(op, codec, match)
            shot = self._shoot(codec, message.action.action_profile_action_set)
            return self._entry(match, GROUP, shot.group.to_bytes(4, "big"), message), shot
        if message.HasField("action"):
            action, params = codec.action(message.action, default=False)
            return self._entry(match, action, params, message), None
        if op is Op.INSERT:
            raise codec.error("an INSERT needs an action")
        return self._keep_action(codec, match, message), None

    def _check_room(self, op: Op, codec: TableCodec, match: Match) -> None:
        """Whether there is such an entry is found out before anything is made for it."""
        exists = self._dp.entry(codec.schema.name, match) is not None
        if exists is (op is Op.INSERT):
            raise _refusal(codec, match, Status.EXISTS if exists else Status.NOT_FOUND)

    def _shoot(self, codec: TableCodec, message: p4r.ActionProfileActionSet) -> OneShot:
        profile = self._pipeline.schema.profiles.get(codec.schema.profile)
        if profile is None:
            raise codec.error("its entries take an action, not a set of them")
        self._allow(EntityKind.ACTION_PROFILE, profile.id)
        return oneshot.make(self._dp, self._state, codec, profile, message)

    def _settle_shots(
        self, codec: TableCodec, entry: Entry, made: OneShot | None, *, done: bool
    ) -> None:
        """After a write: of the old group and the new one, give up what no entry has."""
        key = (codec.schema.name, entry.match)
        old = self._state.one_shots.get(key)
        kept = old is not None and entry.params == old.group.to_bytes(4, "big")
        if done and not kept:
            self._state.one_shots.pop(key, None)
            if made is not None:
                self._state.one_shots[key] = made
        lost = (None if kept else old) if done else made
        if lost is not None:
            profile = self._pipeline.schema.profiles[lost.profile]
            oneshot.unmake(self._dp, self._state, profile, lost)

    def _set_direct_resources(
        self, op: Op, codec: TableCodec, match: Match | None, message: p4r.TableEntry
    ) -> None:
        if message.HasField("counter_data"):
            self._set_direct_counter(codec, match, message.counter_data)
        # A MODIFY without rates takes the meter back to its default (9.1.2).
        if codec.schema.meter and (op is Op.MODIFY or message.HasField("meter_config")):
            config = message.meter_config if message.HasField("meter_config") else None
            self._set_direct_meter(codec, match, config)
        if message.HasField("meter_counter_data"):
            self._clear_colors(codec, match)

    @staticmethod
    def _entry(match: Match, action: str, params: bytes, message: p4r.TableEntry) -> Entry:
        return Entry(
            match,
            action,
            params,
            message.idle_timeout_ns,
            message.metadata,
            message.controller_metadata,
        )

    def _keep_action(self, codec: TableCodec, match: Match, message: p4r.TableEntry) -> Entry:
        found = self._dp.entry(codec.schema.name, match)
        if found is None:
            raise _refusal(codec, match, Status.NOT_FOUND)
        return self._entry(match, found[0].action, found[0].params, message)

    def _modify_const(self, codec: TableCodec, message: p4r.TableEntry) -> None:
        match = codec.match(message)
        if self._dp.entry(codec.schema.name, match) is None:
            raise _refusal(codec, match, Status.NOT_FOUND)
        if message.HasField("counter_data"):
            self._set_direct_counter(codec, match, message.counter_data)

    def _default(self, op: Op, codec: TableCodec, message: p4r.TableEntry) -> None:
        schema = codec.schema
        where = f"table {schema.name}, default action"
        if op is not Op.MODIFY:
            raise invalid(f"{where}: it always exists, only MODIFY is possible")
        if message.match or message.priority:
            raise invalid(f"{where}: it has neither match nor priority")
        if message.idle_timeout_ns or message.HasField("time_since_last_hit"):
            raise invalid(f"{where}: it has no idle timeout")
        _check_entry_fields(codec, message)
        if schema.default_is_const:
            raise P4RuntimeError(Code.PERMISSION_DENIED, f"{where}: it is const")
        if message.HasField("action"):
            action, params = codec.action(message.action, default=True)
            status = self._dp.set_default(schema.name, action, params)
            metadata = Metadata(message.metadata, message.controller_metadata)
        else:
            status = self._dp.reset_default(schema.name)
            metadata = NO_METADATA
        if status is not Status.OK:
            code, text = _STATUS[status]
            raise P4RuntimeError(code, f"{where}: {text}")
        self._state.default_metadata[schema.name] = metadata
        self._set_direct_resources(op, codec, None, message)

    # -- everything else -------------------------------------------------------------------

    def _direct_counter(self, op: Op, message: p4r.DirectCounterEntry) -> None:
        entry = message.table_entry
        codec = self._codec(entry.table_id)
        where = f"direct counter of table {codec.schema.name}"
        _only_modify(op, where)
        if not codec.schema.has_counter:
            raise invalid(f"table {codec.schema.name}: it has no direct counter")
        match = self._existing(codec, entry)
        if message.HasField("data"):
            self._set_direct_counter(codec, match, message.data)

    def _existing(self, codec: TableCodec, entry: p4r.TableEntry) -> Match | None:
        """The match of an entry that must be there; None for the default action."""
        if entry.is_default_action:
            return None
        match = codec.match(entry)
        if self._dp.entry(codec.schema.name, match) is None:
            raise _refusal(codec, match, Status.NOT_FOUND)
        return match

    def _set_direct_counter(
        self, codec: TableCodec, match: Match | None, data: p4r.CounterData
    ) -> None:
        value = _counter_value(f"direct counter of table {codec.schema.name}", data)
        if match is None:
            self._dp.set_default_counter(codec.schema.name, value)
            return
        status = self._dp.set_direct_counter(codec.schema.name, match, value)
        if status is not Status.OK:
            raise _refusal(codec, match, status)

    def _direct_meter(self, op: Op, message: p4r.DirectMeterEntry) -> None:
        entry = message.table_entry
        codec = self._codec(entry.table_id)
        where = f"direct meter of table {codec.schema.name}"
        _only_modify(op, where)
        if not codec.schema.meter:
            raise invalid(f"table {codec.schema.name}: it has no direct meter")
        match = self._existing(codec, entry)
        config = message.config if message.HasField("config") else None
        _check_colors(where, message)
        self._set_direct_meter(codec, match, config)
        if message.HasField("counter_data"):
            self._clear_colors(codec, match)

    def _clear_colors(self, codec: TableCodec, match: Match | None) -> None:
        self._dp.clear_direct_meter_colors(codec.schema.name, match)

    def _set_direct_meter(
        self, codec: TableCodec, match: Match | None, message: p4r.MeterConfig | None
    ) -> None:
        where = f"direct meter of table {codec.schema.name}"
        config = None if message is None else meters.encode(where, message)
        status = self._dp.set_direct_meter(codec.schema.name, match, config)
        if status is not Status.OK and match is not None:
            raise _refusal(codec, match, status)

    def _meter(self, op: Op, message: p4r.MeterEntry) -> None:
        cells = self._cells(self._pipeline.schema.meters, EntityKind.METER, message.meter_id)
        where = f"meter {cells.name}"
        _only_modify(op, where)
        config = meters.encode(where, message.config) if message.HasField("config") else None
        index = message.index if message.HasField("index") else None
        _check_colors(where, message)
        for cell in cell_indices(where, cells, index):
            self._dp.set_meter(cells.name, cell, config)
            if message.HasField("counter_data"):
                self._dp.clear_meter_colors(cells.name, cell)

    def _profile(self, p4_id: int) -> ProfileSchema:
        profile = self._pipeline.schema.profiles.get(p4_id)
        if profile is None:
            raise invalid(f"no action profile has id {p4_id}")
        self._allow(EntityKind.ACTION_PROFILE, p4_id)
        return profile

    def _member(self, op: Op, message: p4r.ActionProfileMember) -> None:
        profile = self._profile(message.action_profile_id)
        profiles.write_member(self._dp, self._state, op, profile, message)

    def _group(self, op: Op, message: p4r.ActionProfileGroup) -> None:
        profile = self._profile(message.action_profile_id)
        profiles.write_group(self._dp, self._state, op, profile, message)

    def _value_set(self, op: Op, message: p4r.ValueSetEntry) -> None:
        schema = self._pipeline.schema.value_sets.get(message.value_set_id)
        if schema is None:
            raise invalid(f"no value set has id {message.value_set_id}")
        self._allow(EntityKind.VALUE_SET, message.value_set_id)
        where = f"value set {schema.name}"
        _only_modify(op, where)
        if len(message.members) > schema.size:
            raise P4RuntimeError(
                Code.RESOURCE_EXHAUSTED,
                f"{where}: {len(message.members)} members, {schema.size} are the most",
            )
        codec = KeyCodec(where, schema.keys)
        packed = [codec.key(member.match) for member in message.members]
        status = self._dp.set_value_set(schema.name, packed, schema.ranges)
        if status is not Status.OK:
            code, text = _STATUS[status]
            raise P4RuntimeError(code, f"{where}: {text}")
        kept = p4r.ValueSetEntry(value_set_id=message.value_set_id)
        for key, mask in packed:
            codec.decode_key(key, mask, kept.members.add().match)
        self._state.value_sets[message.value_set_id] = kept

    def _counter(self, op: Op, message: p4r.CounterEntry) -> None:
        cells = self._cells(self._pipeline.schema.counters, EntityKind.COUNTER, message.counter_id)
        where = f"counter {cells.name}"
        _only_modify(op, where)
        indices = cell_indices(where, cells, message.index if message.HasField("index") else None)
        if message.HasField("data"):
            value = _counter_value(where, message.data)
            for index in indices:
                self._dp.set_counter(cells.name, index, value)

    def _register(self, op: Op, message: p4r.RegisterEntry) -> None:
        schema = self._pipeline.schema
        cells = self._cells(schema.registers, EntityKind.REGISTER, message.register_id)
        where = f"register {cells.name}"
        _only_modify(op, where)
        indices = cell_indices(where, cells, message.index if message.HasField("index") else None)
        if cells.shape is None or cells.shape.members:
            raise unimplemented(f"{where}: cells with structured types can't be written")
        value = cells.shape.encode_int(message.data, where)
        for index in indices:
            self._dp.set_register(cells.name, index, value)

    def _replication(self, op: Op, message: p4r.PacketReplicationEngineEntry) -> None:
        pre.write(self._dp, self._state, op, message)

    def _digest(self, op: Op, message: p4r.DigestEntry) -> None:
        self._allow(EntityKind.DIGEST, message.digest_id)
        digests = self._pipeline.digests
        match op:
            case Op.INSERT:
                digests.insert(message.digest_id, message.config)
            case Op.MODIFY:
                digests.modify(message.digest_id, message.config)
            case Op.DELETE:
                digests.delete(message.digest_id)

    _HANDLERS: ClassVar[Mapping[str, Callable[[Writer, Op, Any], None]]] = {
        "action_profile_member": _member,
        "action_profile_group": _group,
        "meter_entry": _meter,
        "direct_meter_entry": _direct_meter,
        "value_set_entry": _value_set,
        "direct_counter_entry": _direct_counter,
        "counter_entry": _counter,
        "register_entry": _register,
        "packet_replication_engine_entry": _replication,
        "digest_entry": _digest,
    }

    # -- checks ----------------------------------------------------------------------------

    def _codec(self, table_id: int) -> TableCodec:
        codec = self._pipeline.codecs.get(table_id)
        if codec is None:
            raise invalid(f"no table has id {table_id}")
        self._allow(EntityKind.TABLE, table_id)
        return codec

    def _cells(self, known: Mapping[int, Cells], kind: EntityKind, p4_id: int) -> Cells:
        cells = known.get(p4_id)
        if cells is None:
            raise invalid(f"no {kind.name.lower()} has id {p4_id}")
        self._allow(kind, p4_id)
        return cells

    def _allow(self, kind: EntityKind, p4_id: int) -> None:
        if self._role.ids is not None and not self._role.covers(p4_id):
            name = self._pipeline.schema.name(kind, p4_id)
            raise P4RuntimeError(
                Code.PERMISSION_DENIED,
                f"{kind.name.lower().replace('_', ' ')} {name} is not in this role",
            )


def refusals(
    pipeline: Pipeline, failed: Iterable[tuple[int, Status, bytes]]
) -> Iterator[tuple[int, P4RuntimeError]]:
    """The errors of plain entries that native code tried and that failed."""
    for index, status, data in failed:
        message = decoded(data).entity.table_entry
        codec = pipeline.codecs[message.table_id]
        yield index, _refusal(codec, codec.match(message), status)


def decoded(data: bytes) -> p4r.Update:
    """The message of one update; INVALID_ARGUMENT where it is none."""
    try:
        return p4r.Update.FromString(data)
    except DecodeError as error:
        raise invalid(f"the update is damaged: {error}") from error


def _refusal(codec: TableCodec, match: Match, status: Status) -> P4RuntimeError:
    code, text = _STATUS[status]
    return P4RuntimeError(code, f"table {codec.schema.name}: {text}: {codec.describe(match)}")


def _check_entry_fields(codec: TableCodec, message: p4r.TableEntry) -> None:
    """Refuse what the table doesn't have; the plain entry passes with a few tests."""
    schema = codec.schema
    text = ""
    if message.is_const:
        text = "is_const can't be written"
    elif not schema.has_timeout and message.idle_timeout_ns:
        text = "it has no idle timeouts"
    elif message.idle_timeout_ns < 0:
        text = f"idle_timeout_ns {message.idle_timeout_ns} is negative"
    elif message.HasField("time_since_last_hit"):
        text = "time_since_last_hit can't be written"
    elif not schema.has_counter and message.HasField("counter_data"):
        text = "it has no direct counter"
    elif not schema.meter and (
        message.HasField("meter_config") or message.HasField("meter_counter_data")
    ):
        text = "it has no direct meter"
    elif message.HasField("meter_counter_data") and not meters.is_zero(message.meter_counter_data):
        text = "counters by colour can only be set to 0"
    elif len(message.metadata) > MAX_METADATA:
        text = f"{len(message.metadata)} bytes of metadata, {MAX_METADATA} are the most"
    if text:
        raise invalid(f"table {schema.name}: {text}")


def _check_colors(where: str, message: p4r.MeterEntry | p4r.DirectMeterEntry) -> None:
    if not meters.is_zero(message.counter_data):
        raise invalid(f"{where}: counters by colour can only be set to 0")


def _only_modify(op: Op, where: str) -> None:
    if op is not Op.MODIFY:
        raise invalid(f"{where}: only MODIFY is possible, not {op.name}")


def cell_indices(where: str, cells: Cells, index: p4r.Index | None) -> Iterable[int]:
    """The cells that an optional index names; all without one."""
    if index is None:
        return range(cells.size)
    if index.index < 0:
        raise invalid(f"{where}: index {index.index} is negative")
    if index.index >= cells.size:
        raise P4RuntimeError(
            Code.OUT_OF_RANGE, f"{where}: index {index.index} is beyond its {cells.size} cells"
        )
    return (index.index,)


def _counter_value(where: str, data: p4r.CounterData) -> CounterValue:
    if data.packet_count < 0 or data.byte_count < 0:
        raise invalid(f"{where}: a count is negative")
    return CounterValue(data.packet_count, data.byte_count)
