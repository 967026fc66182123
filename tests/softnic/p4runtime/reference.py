"""A data plane without packets: the Protocol of softnic.dataplane on dictionaries.

Says what the server expects of a data plane in the fewest words, and lets its tests run without
a C compiler or network interfaces. Tests push events with `emit` and look at `sent`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from softnic.dataplane import (
    ActionInfo,
    CounterValue,
    Entry,
    Event,
    Field,
    KeyField,
    Match,
    MatchKind,
    Op,
    PortStats,
    Program,
    Replica,
    Status,
    TableInfo,
    UnsupportedConstructError,
    Update,
)

ZERO = CounterValue(0, 0)


@dataclass
class JsonProgram:
    """What the server needs of a bmv2 JSON."""

    tables: Mapping[str, TableInfo]
    actions: Mapping[str, ActionInfo]
    digests: Mapping[str, tuple[Field, ...]]
    counters: Mapping[str, int]
    registers: Mapping[str, tuple[int, int]]
    defaults: Mapping[str, tuple[str, bytes]]
    const_entries: Mapping[str, list[Entry]]


def compile_json(text: bytes) -> JsonProgram:
    try:
        doc = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if doc.get("meter_arrays"):
        raise UnsupportedConstructError(f"meter {doc['meter_arrays'][0]['name']!r}")
    actions = {
        a["name"]: ActionInfo(
            a["name"], tuple(Field(p["name"], p["bitwidth"]) for p in a["runtime_data"])
        )
        for a in doc["actions"]
    }
    by_id = {a["id"]: a["name"] for a in doc["actions"]}
    raw = {t["name"]: t for p in doc["pipelines"] for t in p["tables"]}
    return JsonProgram(
        tables={name: _table(doc, t) for name, t in raw.items()},
        actions=actions,
        digests={
            d["name"]: tuple(
                Field(f"f{i}", _bits(doc, e["value"])) for i, e in enumerate(d["elements"])
            )
            for d in doc["learn_lists"]
        },
        counters={c["name"]: c["size"] for c in doc["counter_arrays"] if not c["is_direct"]},
        registers={r["name"]: (r["size"], r["bitwidth"]) for r in doc["register_arrays"]},
        defaults={
            name: (
                by_id[t["default_entry"]["action_id"]],
                _args(
                    actions[by_id[t["default_entry"]["action_id"]]],
                    t["default_entry"]["action_data"],
                ),
            )
            for name, t in raw.items()
            if "default_entry" in t
        },
        const_entries={
            name: [_const_entry(t, e, actions, by_id) for e in t.get("entries", ())]
            for name, t in raw.items()
        },
    )


def _bits(doc: Any, value: list[str]) -> int:
    header = next(h for h in doc["headers"] if h["name"] == value[0])
    kind = next(t for t in doc["header_types"] if t["name"] == header["header_type"])
    return next(int(f[1]) for f in kind["fields"] if f[0] == value[1])


def _table(doc: Any, table: Any) -> TableInfo:
    key = tuple(
        KeyField(k["name"], _bits(doc, k["target"]), MatchKind(k["match_type"]))
        for k in table["key"]
    )
    default = table.get("default_entry", {})
    return TableInfo(
        name=table["name"],
        key=key,
        actions=tuple(table["actions"]),
        size=table["max_size"],
        has_counter=table["with_counters"],
        has_timeout=table["support_timeout"],
        is_const="entries" in table,
        default_is_const=default.get("action_const", False),
    )


def _args(action: ActionInfo, values: list[str]) -> bytes:
    return b"".join(
        int(v, 16).to_bytes(f.size, "big") for f, v in zip(action.params, values, strict=True)
    )


def _const_entry(table: Any, entry: Any, actions: Any, by_id: Any) -> Entry:
    assert all(k["match_type"] == "exact" for k in table["key"]), "const entries: exact only"
    key = b"".join(int(k["key"], 16).to_bytes(2, "big") for k in entry["match_key"])
    name = by_id[entry["action_entry"]["action_id"]]
    args = _args(actions[name], entry["action_entry"]["action_data"])
    return Entry(Match(key, b"\x01\xff" * len(table["key"])), name, args)


@dataclass
class _Row:
    entry: Entry
    counter: CounterValue = ZERO


@dataclass
class MemoryDataPlane:
    """Entries in dictionaries; events when a test emits them."""

    running: JsonProgram | None = None
    rows: dict[str, dict[Match, _Row]] = field(default_factory=dict)
    defaults: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    counters: dict[tuple[str, int], CounterValue] = field(default_factory=dict)
    registers: dict[tuple[str, int], int] = field(default_factory=dict)
    clone_sessions: dict[int, tuple[tuple[Replica, ...], int]] = field(default_factory=dict)
    groups: dict[int, tuple[Replica, ...]] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    writes: list[list[Update]] = field(default_factory=list)
    idle: dict[Match, int] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def program(self) -> Program | None:
        return self.running

    def load(self, program: Program) -> None:
        assert isinstance(program, JsonProgram)
        self.running = program
        self.rows = {
            name: {e.match: _Row(e) for e in program.const_entries[name]} for name in program.tables
        }
        self.defaults = dict(program.defaults)
        self.counters = {(n, i): ZERO for n, size in program.counters.items() for i in range(size)}
        self.registers = {
            (n, i): 0 for n, (size, _) in program.registers.items() for i in range(size)
        }

    def write(self, updates: Sequence[Update]) -> list[Status]:
        self.writes.append(list(updates))
        return [self._write(u) for u in updates]

    def _write(self, update: Update) -> Status:
        assert self.running is not None
        rows, match = self.rows[update.table], update.entry.match
        if update.op is Op.INSERT:
            if match in rows:
                return Status.EXISTS
            if len(rows) >= self.running.tables[update.table].size:
                return Status.FULL
            rows[match] = _Row(update.entry)
        elif match not in rows:
            return Status.NOT_FOUND
        elif update.op is Op.MODIFY:
            rows[match].entry = update.entry
        else:
            del rows[match]
        return Status.OK

    def set_default(self, table: str, action: str, params: bytes) -> Status:
        self.defaults[table] = (action, params)
        return Status.OK

    def reset_default(self, table: str) -> Status:
        assert self.running is not None
        self.defaults[table] = self.running.defaults[table]
        return Status.OK

    def default(self, table: str) -> tuple[str, bytes]:
        return self.defaults[table]

    def entries(self, table: str) -> Iterator[tuple[Entry, CounterValue]]:
        return iter([(r.entry, r.counter) for r in self.rows[table].values()])

    def entry(self, table: str, match: Match) -> tuple[Entry, CounterValue] | None:
        row = self.rows[table].get(match)
        return None if row is None else (row.entry, row.counter)

    def idle_ns(self, table: str, match: Match) -> int | None:
        return self.idle.get(match, 0) if match in self.rows[table] else None

    def set_direct_counter(self, table: str, match: Match, value: CounterValue) -> Status:
        if match not in self.rows[table]:
            return Status.NOT_FOUND
        self.rows[table][match].counter = value
        return Status.OK

    def counter(self, name: str, index: int) -> CounterValue:
        return self.counters[name, index]

    def set_counter(self, name: str, index: int, value: CounterValue) -> None:
        self.counters[name, index] = value

    def register(self, name: str, index: int) -> int:
        return self.registers[name, index]

    def set_register(self, name: str, index: int, value: int) -> None:
        self.registers[name, index] = value

    def set_clone_session(
        self, session: int, replicas: Sequence[Replica], truncate: int = 0
    ) -> None:
        self.clone_sessions.pop(session, None)
        if replicas:
            self.clone_sessions[session] = (tuple(replicas), truncate)

    def set_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        self.groups.pop(group, None)
        if replicas:
            self.groups[group] = tuple(replicas)

    def packet_out(self, frame: bytes) -> None:
        with self.changed:
            self.sent.append(frame)
            self.changed.notify_all()

    def wait_sent(self, count: int, timeout: float = 5.0) -> list[bytes]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, timeout), self.sent
            return list(self.sent)

    def emit(self, *events: Event) -> None:
        with self.changed:
            self.pending.extend(events)
            self.changed.notify_all()

    def events(self, timeout: float) -> list[Event]:
        with self.changed:
            self.changed.wait_for(lambda: self.pending, timeout)
            taken, self.pending = self.pending, []
            return taken

    def ports(self) -> list[PortStats]:
        return []

    def close(self) -> None:
        self.pending.clear()
