"""Read: entities that match a request, taken at one moment, encoded while they are sent (13).

    select (device's lock held)  -->  snapshots  -->  chunks (no lock, as the client takes them)

What is read is a list of the data plane's own values; making messages of them, which takes most
of the time, holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from finsy.proto import p4r

from softnic.dataplane import CounterValue, DataPlane, Entry
from softnic.p4runtime import pre
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid, unimplemented
from softnic.p4runtime.pipeline import NO_METADATA, Pipeline
from softnic.p4runtime.roles import RoleConfig
from softnic.p4runtime.schema import Cells
from softnic.p4runtime.tables import TableCodec
from softnic.p4runtime.writer import UNOFFERED, cell_indices

_CHUNK_ENTITIES = 512
_CHUNK_BYTES = 1 << 20
"""A client takes messages of 4 MiB by default."""

_Row = tuple[Entry, CounterValue, int | None]


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
        with_counter = wanted.HasField("counter_data")
        with_idle = wanted.HasField("time_since_last_hit")
        codecs = self._select_codecs(wanted.table_id)
        if wanted.table_id:
            schema = codecs[0].schema if codecs else None
            if with_idle and schema is not None and not schema.has_timeout:
                raise invalid(f"table {schema.name}: it has no idle timeouts")
        if wanted.is_default_action:
            defaults = [self._default(codec) for codec in codecs]
            return (p4r.Entity(table_entry=d) for d in defaults)
        rows = [
            (codec, self._rows(codec, wanted, with_idle and codec.schema.has_timeout))
            for codec in codecs
        ]
        return (
            p4r.Entity(table_entry=_entry_message(codec, row, with_counter))
            for codec, found in rows
            for row in found
        )

    def _rows(self, codec: TableCodec, wanted: p4r.TableEntry, with_idle: bool) -> list[_Row]:
        name = codec.schema.name
        keep = _filter(codec, wanted) if wanted.table_id else None
        rows: list[_Row] = []
        for entry, counter in self._candidates(codec, wanted):
            if keep is None or keep(entry):
                idle = self._dp.idle_ns(name, entry.match) if with_idle else None
                rows.append((entry, counter, idle))
        return rows

    def _candidates(
        self, codec: TableCodec, wanted: p4r.TableEntry
    ) -> Iterable[tuple[Entry, CounterValue]]:
        """The one entry if the request names it fully, otherwise all."""
        schema = codec.schema
        if not wanted.table_id or not wanted.match:
            return self._dp.entries(schema.name)
        if schema.needs_priority and not wanted.priority:
            key, mask = codec.key(wanted.match)
            return (
                row
                for row in self._dp.entries(schema.name)
                if row[0].match.key == key and row[0].match.mask == mask
            )
        found = self._dp.entry(schema.name, codec.match(wanted))
        return () if found is None else (found,)

    def _default(self, codec: TableCodec) -> p4r.TableEntry:
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
        return message

    def _direct_counters(self, wanted: p4r.DirectCounterEntry) -> Iterable[p4r.Entity]:
        entry = wanted.table_entry
        if entry.is_default_action:
            raise unimplemented("direct counters of default actions are not supported")
        codecs = [c for c in self._select_codecs(entry.table_id) if c.schema.has_counter]
        if entry.table_id and not codecs:
            name = self._pipeline.codecs[entry.table_id].schema.name
            raise invalid(f"table {name}: it has no direct counter")
        rows = [(codec, row) for codec in codecs for row in self._rows(codec, entry, False)]
        if entry.match and not rows:
            name = codecs[0].schema.name
            raise P4RuntimeError(Code.NOT_FOUND, f"table {name}: no entry has this match")
        return (_direct_counter_entity(codec, row) for codec, row in rows)

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
    if wanted.HasField("action"):
        action_id = wanted.action.action.action_id
        ids = codec.schema.action_ids
        if action_id not in ids.values():
            raise invalid(f"table {codec.schema.name}: action id {action_id} is none of its own")
        tests.append(lambda entry: ids.get(entry.action) == action_id)
    if not tests:
        return None
    return lambda entry: all(test(entry) for test in tests)


def _entry_message(codec: TableCodec, row: _Row, with_counter: bool) -> p4r.TableEntry:
    entry, counter, idle = row
    message = codec.decode(entry)
    message.metadata = entry.metadata
    message.controller_metadata = entry.controller_metadata
    if codec.schema.is_const:
        message.is_const = True
    if with_counter and codec.schema.has_counter:
        message.counter_data.CopyFrom(_counter_data(counter))
    if idle is not None:
        message.time_since_last_hit.elapsed_ns = idle
    return message


def _direct_counter_entity(codec: TableCodec, row: _Row) -> p4r.Entity:
    entry, counter, _ = row
    table_entry = p4r.TableEntry(table_id=codec.schema.id)
    codec.decode_match(entry.match, table_entry)
    return p4r.Entity(
        direct_counter_entry=p4r.DirectCounterEntry(
            table_entry=table_entry, data=_counter_data(counter)
        )
    )


def _counter_data(value: CounterValue) -> p4r.CounterData:
    return p4r.CounterData(byte_count=value.bytes, packet_count=value.packets)
