"""What an update is about to change, kept so that it can be brought back (12.2).

    update --> Keeper.keep: how things are --> Undo: makes them so again, from whatever they became

Undos are run newest first: each then finds what its own update left. Called with the device's lock
held. An entry that is brought back has its counter, rates and counts by colour; its idle time
begins anew, and its meter's buckets are full.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from finsy.proto import p4r

from softnic.dataplane import DataPlane, Entry, Match, Op, Status, Update
from softnic.p4runtime import oneshot, pre, profiles
from softnic.p4runtime.errors import Code, P4RuntimeError
from softnic.p4runtime.pipeline import OneShot, Pipeline
from softnic.p4runtime.schema import Cells
from softnic.p4runtime.tables import KeyCodec, TableCodec
from softnic.p4runtime.writer import cell_indices

Undo = Callable[[], None]


class Keeper:
    """Keeps what updates replace. `cells`: the most of counters, meters and registers."""

    def __init__(self, dp: DataPlane, pipeline: Pipeline, cells: int) -> None:
        self._dp = dp
        self._pipeline = pipeline
        self._state = pipeline.state
        self._cells_left = cells
        self._cells_most = cells

    def keep(self, update: p4r.Update) -> Undo:
        """What takes the update back, done or half done; an update that names nothing has nothing.

        P4RuntimeError for a match or an index that the update would be refused for as well, and
        RESOURCE_EXHAUSTED for too many cells.
        """
        kind = update.entity.WhichOneof("entity") or ""
        handler = self._HANDLERS.get(kind)
        return _nothing if handler is None else handler(self, getattr(update.entity, kind))

    # -- tables ----------------------------------------------------------------------------

    def _table(self, message: p4r.TableEntry) -> Undo:
        codec = self._pipeline.codecs.get(message.table_id)
        if codec is None:
            return _nothing
        if message.is_default_action:
            return self._default(codec, message)
        if not codec.schema.keys:
            return _nothing
        match = codec.match(message)
        old = self._dp.entry(codec.schema.name, match)
        return self._absent(codec, match) if old is None else self._entry(codec, old[0], message)

    def _absent(self, codec: TableCodec, match: Match) -> Undo:
        name = codec.schema.name

        def undo() -> None:
            if self._dp.entry(name, match) is not None:
                self._put(codec, Op.DELETE, Entry(match, "", b""))
            self._drop_shot(codec, match)

        return undo

    def _entry(self, codec: TableCodec, old: Entry, message: p4r.TableEntry) -> Undo:
        name, match = codec.schema.name, codec.match(message)
        counter = self._direct_counter(codec, match)
        rates = self._direct_meter(codec, match, colors=False)
        colors = self._direct_meter(codec, match, colors=True)
        shot = self._state.one_shots.get((name, match))

        def undo() -> None:
            found = self._dp.entry(name, match)
            entry, changed = old, self._state.one_shots.get((name, match)) is not shot
            remade: OneShot | None = None
            if changed and shot is not None:
                profile = self._pipeline.schema.profiles[shot.profile]
                remade = oneshot.make(self._dp, self._state, codec, profile, shot.message)
                entry = dataclasses.replace(old, params=remade.group.to_bytes(4, "big"))
            if found is None or found[0] != entry:
                self._put(codec, Op.INSERT if found is None else Op.MODIFY, entry)
            if changed:
                self._drop_shot(codec, match)
            if remade is not None:
                self._state.one_shots[name, match] = remade
            if found is None or message.HasField("counter_data"):
                counter()
            (colors if found is None or message.HasField("meter_counter_data") else rates)()

        return undo

    def _put(self, codec: TableCodec, op: Op, entry: Entry) -> None:
        (status,) = self._dp.write([Update(op, codec.schema.name, entry)])
        _check(status, codec.describe(entry.match))

    def _drop_shot(self, codec: TableCodec, match: Match) -> None:
        """Give up the action set of an entry that hasn't it any more."""
        shot = self._state.one_shots.pop((codec.schema.name, match), None)
        if shot is not None:
            profile = self._pipeline.schema.profiles[shot.profile]
            oneshot.unmake(self._dp, self._state, profile, shot)

    def _default(self, codec: TableCodec, message: p4r.TableEntry) -> Undo:
        name, state = codec.schema.name, self._state
        old = self._dp.default(name)
        metadata = state.default_metadata.get(name)
        counter: Undo = _nothing
        if message.HasField("counter_data"):
            counter = self._direct_counter(codec, None)
        meter = self._direct_meter(codec, None, colors=message.HasField("meter_counter_data"))

        def undo() -> None:
            if not old[0]:
                _check(self._dp.reset_default(name), f"default action of table {name}")
            elif self._dp.default(name) != old:
                _check(self._dp.set_default(name, *old), f"default action of table {name}")
            state.default_metadata.pop(name, None)
            if metadata is not None:
                state.default_metadata[name] = metadata
            counter()
            meter()

        return undo

    # -- counters, meters, registers -------------------------------------------------------

    def _direct(self, message: p4r.DirectCounterEntry | p4r.DirectMeterEntry) -> Undo:
        entry = message.table_entry
        codec = self._pipeline.codecs.get(entry.table_id)
        if codec is None:
            return _nothing
        match = None if entry.is_default_action else codec.match(entry)
        if match is not None and self._dp.entry(codec.schema.name, match) is None:
            return _nothing
        if isinstance(message, p4r.DirectCounterEntry):
            return self._direct_counter(codec, match)
        return self._direct_meter(codec, match, colors=message.HasField("counter_data"))

    def _direct_counter(self, codec: TableCodec, match: Match | None) -> Undo:
        dp, name = self._dp, codec.schema.name
        if not codec.schema.has_counter:
            return _nothing
        if match is None:
            value = dp.default_counter(name)
            return lambda: dp.set_default_counter(name, value)
        found = dp.entry(name, match)
        if found is None:
            return _nothing
        count = found[1]
        return lambda: _check(dp.set_direct_counter(name, match, count), f"counter of {name}")

    def _direct_meter(self, codec: TableCodec, match: Match | None, *, colors: bool) -> Undo:
        dp, name = self._dp, codec.schema.name
        if not codec.schema.meter:
            return _nothing
        config = dp.direct_meter(name, match)
        marked = dp.direct_meter_colors(name, match) if colors else None

        def undo() -> None:
            if dp.direct_meter(name, match) != config:
                _check(dp.set_direct_meter(name, match, config), f"meter of {name}")
            if marked is not None:
                _check(dp.set_direct_meter_colors(name, match, marked), f"meter of {name}")

        return undo

    def _indices(self, cells: Cells, message: Any) -> Iterable[int]:
        index = message.index if message.HasField("index") else None
        found = cell_indices(cells.name, cells, index)
        self._cells_left -= cells.size if index is None else 1
        if self._cells_left < 0:
            raise P4RuntimeError(
                Code.RESOURCE_EXHAUSTED,
                f"{cells.name}: a batch of which all is done or nothing changes "
                f"{self._cells_most} cells at most",
            )
        return found

    def _meter(self, message: p4r.MeterEntry) -> Undo:
        cells = self._pipeline.schema.meters.get(message.meter_id)
        if cells is None:
            return _nothing
        dp, name, colored = self._dp, cells.name, message.HasField("counter_data")
        old = [
            (i, dp.meter(name, i), dp.meter_colors(name, i)) for i in self._indices(cells, message)
        ]

        def undo() -> None:
            for index, config, colors in old:
                if dp.meter(name, index) != config:
                    dp.set_meter(name, index, config)
                if colored:
                    dp.set_meter_colors(name, index, colors)

        return undo

    def _counter(self, message: p4r.CounterEntry) -> Undo:
        cells = self._pipeline.schema.counters.get(message.counter_id)
        if cells is None or not message.HasField("data"):
            return _nothing
        dp, name = self._dp, cells.name
        old = [(i, dp.counter(name, i)) for i in self._indices(cells, message)]

        def undo() -> None:
            for index, value in old:
                dp.set_counter(name, index, value)

        return undo

    def _register(self, message: p4r.RegisterEntry) -> Undo:
        cells = self._pipeline.schema.registers.get(message.register_id)
        if cells is None:
            return _nothing
        dp, name = self._dp, cells.name
        old = [(i, dp.register(name, i)) for i in self._indices(cells, message)]

        def undo() -> None:
            for index, value in old:
                dp.set_register(name, index, value)

        return undo

    # -- everything else -------------------------------------------------------------------

    def _member(self, message: p4r.ActionProfileMember) -> Undo:
        profile = self._pipeline.schema.profiles.get(message.action_profile_id)
        if profile is None:
            return _nothing
        return profiles.keep_member(self._dp, self._state, profile, message.member_id)

    def _group(self, message: p4r.ActionProfileGroup) -> Undo:
        profile = self._pipeline.schema.profiles.get(message.action_profile_id)
        if profile is None:
            return _nothing
        return profiles.keep_group(self._dp, self._state, profile, message.group_id)

    def _value_set(self, message: p4r.ValueSetEntry) -> Undo:
        schema = self._pipeline.schema.value_sets.get(message.value_set_id)
        if schema is None:
            return _nothing
        known = self._state.value_sets
        old = known.get(schema.id)

        def undo() -> None:
            if known.get(schema.id) is old:
                return
            codec = KeyCodec(schema.name, schema.keys)
            packed = [codec.key(member.match) for member in old.members] if old else []
            status = self._dp.set_value_set(schema.name, packed, schema.ranges)
            _check(status, f"value set {schema.name}")
            known.pop(schema.id)
            if old is not None:
                known[schema.id] = old

        return undo

    def _replication(self, message: p4r.PacketReplicationEngineEntry) -> Undo:
        return pre.keep(self._dp, self._state, message)

    def _digest(self, message: p4r.DigestEntry) -> Undo:
        return self._pipeline.digests.keep(message.digest_id)

    _HANDLERS: ClassVar[Mapping[str, Callable[[Keeper, Any], Undo]]] = {
        "table_entry": _table,
        "direct_counter_entry": _direct,
        "direct_meter_entry": _direct,
        "counter_entry": _counter,
        "meter_entry": _meter,
        "register_entry": _register,
        "action_profile_member": _member,
        "action_profile_group": _group,
        "value_set_entry": _value_set,
        "packet_replication_engine_entry": _replication,
        "digest_entry": _digest,
    }


def _nothing() -> None:
    return


def _check(status: Status, what: str) -> None:
    if status is not Status.OK:
        raise P4RuntimeError(Code.INTERNAL, f"{what} can't be brought back: {status.name}")
