"""Read: entities that match a request, taken at one moment, encoded while they are sent (13).

    select (device's lock held)  -->  snapshots  -->  chunks (no lock, as the client takes them)

What is read is a list of the data plane's own values; making messages of them, which takes most
of the time, holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from finsy.proto import p4r

from softnic.dataplane import Colors, CounterValue, DataPlane, Entry, Match, MeterConfig
from softnic.p4runtime import meters, pre, profiles
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid, unimplemented
from softnic.p4runtime.pipeline import NO_METADATA, Pipeline
from softnic.p4runtime.roles import RoleConfig
from softnic.p4runtime.schema import Cells, ProfileSchema
from softnic.p4runtime.tables import TableCodec
from softnic.p4runtime.writer import UNOFFERED, cell_indices

_CHUNK_ENTITIES = 512
_CHUNK_BYTES = 1 << 20
"""A client takes messages of 4 MiB by default."""

_Row = tuple[Entry, CounterValue, int]


class Reader:
    """Selects what one role sees of a pipeline."""

    def __init__(self, dp: DataPlane, pipeline: Pipeline, role: RoleConfig) -> None:
        self._dp = dp
        self._pipeline = pipeline
        self._state = pipeline.state
        self._role = role

    def select(self, request: p4r.Entity) -> Iterator[p4r.Entity]:
        """Take the entities of one request now; the iterator encodes them later."""
        kind = request.WhichOneof("entity")
        handler = self._HANDLERS.get(kind or "")
        if handler is not None:
            return iter(handler(self, getattr(request, str(kind))))
        what = UNOFFERED.get(kind or "")
        if what is None:
            raise invalid("the request has no entity")
        if any(value for _, value in getattr(request, str(kind)).ListFields()):
            raise unimplemented(f"{what} are not supported")
        return iter(())  # a wildcard asks for all there are

    # -- tables ----------------------------------------------------------------------------

    def _tables(self, wanted: p4r.TableEntry) -> Iterable[p4r.Entity]:
        codecs = self._select_codecs(wanted.table_id)
        if wanted.table_id:
            schema = codecs[0].schema if codecs else None
            with_idle = wanted.HasField("time_since_last_hit")
            if with_idle and schema is not None and not schema.has_timeout:
                raise invalid(f"table {schema.name}: it has no idle timeouts")
        if wanted.is_default_action:
            defaults = [self._default(codec, wanted) for codec in codecs]
            return (p4r.Entity(table_entry=d) for d in defaults)
        rows = [(codec, self._rows(codec, wanted)) for codec in codecs]
        return (
            p4r.Entity(table_entry=self._entry_message(codec, row, wanted))
            for codec, found in rows
            for row in found
        )

    def _entry_message(
        self, codec: TableCodec, row: _Row, wanted: p4r.TableEntry
    ) -> p4r.TableEntry:
        entry, counter, idle = row
        message = codec.decode(entry)
        one_shot = self._state.one_shots.get((codec.schema.name, entry.match))
        if one_shot is not None:
            message.action.action_profile_action_set.CopyFrom(one_shot.message)
        if codec.schema.is_const:
            message.is_const = True
        self._add_direct_resources(codec, entry.match, counter, wanted, message)
        if wanted.HasField("time_since_last_hit") and codec.schema.has_timeout:
            message.time_since_last_hit.elapsed_ns = idle
        return message

    def _add_direct_resources(
        self,
        codec: TableCodec,
        match: Match | None,
        counter: CounterValue,
        wanted: p4r.TableEntry,
        into: p4r.TableEntry,
    ) -> None:
        """What was asked for of an entry's (None: the default action's) counter and meter."""
        schema = codec.schema
        if wanted.HasField("counter_data") and schema.has_counter:
            into.counter_data.CopyFrom(_counter_data(counter))
        if wanted.HasField("meter_config") and schema.meter:
            config = self._dp.direct_meter(schema.name, match)
            if config is not None:
                into.meter_config.CopyFrom(meters.decode(config))
        if wanted.HasField("meter_counter_data") and schema.meter:
            colors = self._dp.direct_meter_colors(schema.name, match)
            if colors is not None:
                into.meter_counter_data.CopyFrom(meters.decode_colors(colors))

    def _rows(self, codec: TableCodec, wanted: p4r.TableEntry) -> Iterable[_Row]:
        """Taken now; which of them are wanted is found out while they are iterated."""
        keep = _filter(codec, wanted) if wanted.table_id else None
        rows = self._candidates(codec, wanted)
        return rows if keep is None else (row for row in rows if keep(row[0]))

    def _candidates(self, codec: TableCodec, wanted: p4r.TableEntry) -> Iterable[_Row]:
        """The one entry if the request names it fully, otherwise all."""
        name = codec.schema.name
        if not wanted.table_id or not wanted.match:
            return self._dp.snapshot(name)
        if codec.schema.needs_priority and not wanted.priority:
            key, mask = codec.key(wanted.match)
            rows = self._dp.snapshot(name)
            return (row for row in rows if row[0].match.key == key and row[0].match.mask == mask)
        match = codec.match(wanted)
        found = self._dp.entry(name, match)
        if found is None:
            return ()
        return ((*found, self._dp.idle_ns(name, match) or 0),)

    def _default(self, codec: TableCodec, wanted: p4r.TableEntry) -> p4r.TableEntry:
        schema = codec.schema
        action, params = self._dp.default(schema.name)
        metadata = self._state.default_metadata.get(schema.name, NO_METADATA)
        message = p4r.TableEntry(
            table_id=schema.id,
            is_default_action=True,
            is_const=schema.default_is_const,
            metadata=metadata.metadata,
            controller_metadata=metadata.controller_metadata,
        )
        codec.decode_action(action, params, message)
        count = self._dp.default_counter(schema.name)
        self._add_direct_resources(codec, None, count, wanted, message)
        return message

    def _direct_counters(self, wanted: p4r.DirectCounterEntry) -> Iterable[p4r.Entity]:
        entry = wanted.table_entry
        codecs = [c for c in self._select_codecs(entry.table_id) if c.schema.has_counter]
        if entry.table_id and not codecs:
            name = self._pipeline.codecs[entry.table_id].schema.name
            raise invalid(f"table {name}: it has no direct counter")
        if entry.is_default_action:
            counts = [(c, self._dp.default_counter(c.schema.name)) for c in codecs]
            return (_direct_counter_entity(c, None, count) for c, count in counts)
        rows = [(codec, row) for codec in codecs for row in self._rows(codec, entry)]
        if entry.match and not rows:
            name = codecs[0].schema.name
            raise P4RuntimeError(Code.NOT_FOUND, f"table {name}: no entry has this match")
        return (_direct_counter_entity(codec, row[0].match, row[1]) for codec, row in rows)

    # -- everything else -------------------------------------------------------------------

    def _counters(self, wanted: p4r.CounterEntry) -> Iterable[p4r.Entity]:
        index = wanted.index if wanted.HasField("index") else None
        values = [
            (cells, i, self._dp.counter(cells.name, i))
            for cells in self._select_cells(
                "counter", self._pipeline.schema.counters, wanted.counter_id
            )
            for i in cell_indices(f"counter {cells.name}", cells, index)
        ]
        return (
            p4r.Entity(
                counter_entry=p4r.CounterEntry(
                    counter_id=cells.id, index=p4r.Index(index=i), data=_counter_data(value)
                )
            )
            for cells, i, value in values
        )

    def _meters(self, wanted: p4r.MeterEntry) -> Iterable[p4r.Entity]:
        index = wanted.index if wanted.HasField("index") else None
        colored = wanted.HasField("counter_data")
        values = [
            (
                cells,
                i,
                self._dp.meter(cells.name, i),
                self._dp.meter_colors(cells.name, i) if colored else None,
            )
            for cells in self._select_cells("meter", self._pipeline.schema.meters, wanted.meter_id)
            for i in cell_indices(f"meter {cells.name}", cells, index)
        ]
        return (
            p4r.Entity(
                meter_entry=p4r.MeterEntry(
                    meter_id=cells.id,
                    index=p4r.Index(index=i),
                    config=None if config is None else meters.decode(config),
                    counter_data=None if colors is None else meters.decode_colors(colors),
                )
            )
            for cells, i, config, colors in values
        )

    def _direct_meters(self, wanted: p4r.DirectMeterEntry) -> Iterable[p4r.Entity]:
        entry = wanted.table_entry
        codecs = [c for c in self._select_codecs(entry.table_id) if c.schema.meter]
        if entry.table_id and not codecs:
            name = self._pipeline.codecs[entry.table_id].schema.name
            raise invalid(f"table {name}: it has no direct meter")
        which: list[tuple[TableCodec, Match | None]] = [(c, None) for c in codecs]
        if not entry.is_default_action:
            which = [(c, row[0].match) for c in codecs for row in self._rows(c, entry)]
        if entry.match and not which:
            raise codecs[0].error("no entry has this match", Code.NOT_FOUND)
        colored = wanted.HasField("counter_data")
        found = [
            (
                codec,
                match,
                self._dp.direct_meter(codec.schema.name, match),
                self._dp.direct_meter_colors(codec.schema.name, match) if colored else None,
            )
            for codec, match in which
        ]
        return (_direct_meter_entity(*one) for one in found)

    def _members(self, wanted: p4r.ActionProfileMember) -> Iterable[p4r.Entity]:
        chosen = self._select_profiles(wanted.action_profile_id)
        found = list(profiles.read_members(self._state, chosen, wanted))
        return (p4r.Entity(action_profile_member=m) for m in found)

    def _groups(self, wanted: p4r.ActionProfileGroup) -> Iterable[p4r.Entity]:
        chosen = self._select_profiles(wanted.action_profile_id)
        found = list(profiles.read_groups(self._state, chosen, wanted))
        return (p4r.Entity(action_profile_group=g) for g in found)

    def _value_sets(self, wanted: p4r.ValueSetEntry) -> Iterable[p4r.Entity]:
        known = self._pipeline.schema.value_sets
        if wanted.value_set_id and wanted.value_set_id not in known:
            raise invalid(f"no value set has id {wanted.value_set_id}")
        ids = [wanted.value_set_id] if wanted.value_set_id else list(known)
        found = [
            self._state.value_sets.get(i, p4r.ValueSetEntry(value_set_id=i))
            for i in ids
            if self._role.covers(i)
        ]
        return (p4r.Entity(value_set_entry=v) for v in found)

    def _registers(self, wanted: p4r.RegisterEntry) -> Iterable[p4r.Entity]:
        index = wanted.index if wanted.HasField("index") else None
        chosen = self._select_cells("register", self._pipeline.schema.registers, wanted.register_id)
        values = [
            (cells, cells.shape, i, self._dp.register(cells.name, i))
            for cells in chosen
            if cells.shape is not None
            for i in cell_indices(f"register {cells.name}", cells, index)
        ]
        return (
            p4r.Entity(
                register_entry=p4r.RegisterEntry(
                    register_id=cells.id, index=p4r.Index(index=i), data=shape.decode_int(value)
                )
            )
            for cells, shape, i, value in values
        )

    def _replication(self, wanted: p4r.PacketReplicationEngineEntry) -> Iterable[p4r.Entity]:
        found = list(pre.read(self._state, wanted))
        return (p4r.Entity(packet_replication_engine_entry=e) for e in found)

    def _digests(self, wanted: p4r.DigestEntry) -> Iterable[p4r.Entity]:
        found = self._pipeline.digests.read(wanted.digest_id)
        return (p4r.Entity(digest_entry=e) for e in found if self._role.covers(e.digest_id))

    _HANDLERS: ClassVar[Mapping[str, Callable[[Reader, Any], Iterable[p4r.Entity]]]] = {
        "table_entry": _tables,
        "action_profile_member": _members,
        "action_profile_group": _groups,
        "meter_entry": _meters,
        "direct_meter_entry": _direct_meters,
        "value_set_entry": _value_sets,
        "direct_counter_entry": _direct_counters,
        "counter_entry": _counters,
        "register_entry": _registers,
        "packet_replication_engine_entry": _replication,
        "digest_entry": _digests,
    }

    def _select_codecs(self, table_id: int) -> list[TableCodec]:
        codecs = self._pipeline.codecs
        if table_id and table_id not in codecs:
            raise invalid(f"no table has id {table_id}")
        chosen = [codecs[table_id]] if table_id else list(codecs.values())
        return [c for c in chosen if self._role.covers(c.schema.id)]

    def _select_profiles(self, p4_id: int) -> Mapping[int, ProfileSchema]:
        known = self._pipeline.schema.profiles
        if p4_id and p4_id not in known:
            raise invalid(f"no action profile has id {p4_id}")
        chosen = [p4_id] if p4_id else list(known)
        return {i: known[i] for i in chosen if self._role.covers(i)}

    def _select_cells(self, kind: str, known: Mapping[int, Cells], p4_id: int) -> list[Cells]:
        if p4_id and p4_id not in known:
            raise invalid(f"no {kind} has id {p4_id}")
        chosen = [known[p4_id]] if p4_id else list(known.values())
        return [c for c in chosen if self._role.covers(c.id)]


def chunks(entities: Iterable[p4r.Entity]) -> Iterator[p4r.ReadResponse]:
    """Responses of bounded length."""
    response, size = p4r.ReadResponse(), 0
    for entity in entities:
        response.entities.append(entity)
        size += entity.ByteSize()
        if len(response.entities) >= _CHUNK_ENTITIES or size >= _CHUNK_BYTES:
            yield response
            response, size = p4r.ReadResponse(), 0
    if response.entities:
        yield response


def _filter(codec: TableCodec, wanted: p4r.TableEntry) -> Callable[[Entry], bool] | None:
    """The test for the fields that a request sets besides its match (9.1.6); None: no test."""
    tests: list[Callable[[Entry], bool]] = []
    if wanted.priority:
        tests.append(lambda entry: entry.match.priority == wanted.priority)
    if wanted.metadata:
        tests.append(lambda entry: entry.metadata == wanted.metadata)
    if wanted.controller_metadata:
        tests.append(lambda entry: entry.controller_metadata == wanted.controller_metadata)
    if wanted.action.HasField("action"):
        action_id = wanted.action.action.action_id
        ids = codec.schema.action_ids
        if action_id not in ids.values():
            raise invalid(f"table {codec.schema.name}: action id {action_id} is none of its own")
        tests.append(lambda entry: ids.get(entry.action) == action_id)
    if not tests:
        return None
    return lambda entry: all(test(entry) for test in tests)


def _direct_meter_entity(
    codec: TableCodec, match: Match | None, config: MeterConfig | None, colors: Colors | None
) -> p4r.Entity:
    message = p4r.DirectMeterEntry(table_entry=_bare_entry(codec, match))
    if config is not None:
        message.config.CopyFrom(meters.decode(config))
    if colors is not None:
        message.counter_data.CopyFrom(meters.decode_colors(colors))
    return p4r.Entity(direct_meter_entry=message)


def _direct_counter_entity(
    codec: TableCodec, match: Match | None, value: CounterValue
) -> p4r.Entity:
    entry, data = _bare_entry(codec, match), _counter_data(value)
    message = p4r.DirectCounterEntry(table_entry=entry, data=data)
    return p4r.Entity(direct_counter_entry=message)


def _bare_entry(codec: TableCodec, match: Match | None) -> p4r.TableEntry:
    """What names an entry, or (None) the default action."""
    entry = p4r.TableEntry(table_id=codec.schema.id, is_default_action=match is None)
    if match is not None:
        codec.decode_match(match, entry)
    return entry


def _counter_data(value: CounterValue) -> p4r.CounterData:
    return p4r.CounterData(byte_count=value.bytes, packet_count=value.packets)
