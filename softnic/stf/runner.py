"""Runs STF scripts on a data plane without interfaces, packet by packet."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from softnic.dataplane import (
    Entry,
    KeyField,
    Match,
    MatchKind,
    MeterConfig,
    Op,
    Program,
    Replica,
    Status,
    TableInfo,
    Update,
)
from softnic.native import NativeDataPlane
from softnic.stf.script import (
    Add,
    Call,
    CheckCounter,
    Command,
    Expect,
    Packet,
    RemoveAll,
    ScriptError,
    SetDefault,
    Statement,
    number,
)

_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DIGIT_BITS = {"0x": 4, "0b": 1, "0o": 3}
_MICROSECONDS = 1_000_000


class Runner:
    """One run of a script; `failures` tells what was not as expected."""

    def __init__(self, plane: NativeDataPlane, program: Program) -> None:
        self.failures: list[str] = []
        self._plane = plane
        self._program = program
        self._names: dict[str, tuple[str, Match]] = {}
        self._out: dict[int, list[bytes]] = defaultdict(list)
        self._expected: dict[int, list[Expect]] = defaultdict(list)
        self._nodes: list[tuple[int, list[int]]] = []
        self._groups: dict[int, list[int]] = {}
        self._mirrors_to_groups: dict[int, int] = {}
        self._commands: Mapping[str, Callable[..., None]] = {
            "wait": lambda: None,
            "no_packet": lambda: None,
            "mirroring_add": self._mirroring_add,
            "mirroring_add_mc": self._mirroring_add_mc,
            "mirroring_delete": lambda session: self._plane.set_clone_session(session, []),
            "mirroring_get": lambda _session: None,
            "mc_mgrp_create": self._group_create,
            "mc_node_create": lambda rid, *ports: self._nodes.append((rid, list(ports))),
            "mc_node_update": self._node_update,
            "mc_node_associate": self._node_associate,
        }
        self._named_commands: Mapping[str, Callable[..., None]] = {
            "counter_read": lambda name, i: self._show(self._plane.counter(name, int(i, 0))),
            "counter_write": self._counter_write,
            "register_read": lambda name, i: self._show(self._plane.register(name, int(i, 0))),
            "register_write": self._register_write,
            "register_reset": self._register_reset,
            "meter_get_rates": lambda name, i: self._show(self._plane.meter(name, int(i, 0))),
            "meter_set_rates": self._meter_set_rates,
            "meter_array_set_rates": self._meter_array_set_rates,
        }

    def run(self, statements: Iterable[Statement]) -> list[str]:
        """Run a script to its end; what failed. Raises `ScriptError`."""
        for s in statements:
            match s:
                case Packet():
                    self._send(s)
                case Expect():
                    self._expected[s.port].append(s)
                case Add():
                    self._add(s)
                case SetDefault():
                    self._set_default(s)
                case RemoveAll():
                    self._remove_all()
                case CheckCounter():
                    self._check_counter(s)
                case Command():
                    self._command(s)
        for port, rows in self._expected.items():
            self._compare(port, rows)
        return self.failures

    # ---- packets

    def _send(self, s: Packet) -> None:
        self._expected[s.port]  # what a script names must be silent unless told otherwise
        for port, frame in self._plane.inject(s.port, s.data):
            self._out[port].append(frame)

    def _compare(self, port: int, rows: Sequence[Expect]) -> None:
        if any(r.pattern is None for r in rows):
            return
        frames = self._out.get(port, [])
        for r, frame in zip(rows, frames, strict=False):
            if not _matches(r, frame):
                self.failures.append(
                    f"line {r.line}: port {port}: expected {r.pattern}{'$' if r.exact else ''}, "
                    f"got {frame.hex()}"
                )
        for r in rows[len(frames) :]:
            self.failures.append(f"line {r.line}: port {port}: expected {r.pattern}, got nothing")
        for frame in frames[len(rows) :]:
            self.failures.append(f"port {port}: not expected: {frame.hex()}")

    # ---- tables

    def _table(self, name: str, line: int) -> TableInfo:
        return self._program.tables[_resolve(name, self._program.tables, f"line {line}: table")]

    def _action(self, info: TableInfo, call: Call, line: int) -> tuple[str, bytes]:
        name = _resolve(call.action, info.actions, f"line {line}: action")
        params = self._program.actions[name].params
        known = {p.name for p in params}
        if call.args.keys() != known:
            wanted = ", ".join(sorted(known)) or "none"
            raise ScriptError(f"line {line}: arguments of {name}: {wanted}")
        values = ((number(call.args[p.name], line), p) for p in params)
        return name, b"".join((v % (1 << p.bits)).to_bytes(p.size, "big") for v, p in values)

    def _add(self, s: Add) -> None:
        info = self._table(s.table, s.line)
        given = {_key_name(k, info, s.line): v for k, v in s.keys.items()}
        key, mask = b"", b""
        for k in info.key:
            value, m = _key_value(k, given.get(k.name), s.line)
            key += value.to_bytes(k.size, "big")
            mask += m.to_bytes(k.size, "big")
        action, params = self._action(info, s.call, s.line)
        match = Match(key, mask, s.priority if info.needs_priority else 0)
        entry = Entry(match, action, params)
        (status,) = self._plane.write([Update(Op.INSERT, info.name, entry)])
        if status != Status.OK:
            self.failures.append(f"line {s.line}: entry refused: {status.name}")
        if s.name is not None:
            self._names[s.name] = info.name, match

    def _set_default(self, s: SetDefault) -> None:
        info = self._table(s.table, s.line)
        status = self._plane.set_default(info.name, *self._action(info, s.call, s.line))
        if status != Status.OK:
            self.failures.append(f"line {s.line}: default action refused: {status.name}")

    def _remove_all(self) -> None:
        for name, info in self._program.tables.items():
            if not info.is_const:
                entries = [e for e, _ in self._plane.entries(name)]
                self._plane.write([Update(Op.DELETE, name, e) for e in entries])

    def _check_counter(self, s: CheckCounter) -> None:
        where = f"line {s.line}"
        if s.index.startswith("$"):
            table, match = self._names[s.index[1:]]
            found = self._plane.entry(table, match)
            if found is None:
                raise ScriptError(f"{where}: entry {s.index} is gone")
            value = found[1]
        else:
            name = _resolve(s.counter, self._program.counters, f"{where}: counter")
            value = self._plane.counter(name, number(s.index, s.line))
        have = value.packets if s.unit == "packets" else value.bytes
        if not _COMPARE[s.op](have, s.value):
            self.failures.append(f"{where}: {s.counter} has {have} {s.unit}, not {s.op} {s.value}")

    # ---- commands

    def _command(self, s: Command) -> None:
        try:
            if s.name in self._commands:
                self._commands[s.name](*(number(a, s.line) for a in s.args))
            elif s.name in self._named_commands:
                kind = s.name.partition("_")[0]
                objects = getattr(self._program, f"{kind}s")
                name = _resolve(s.args[0], objects, f"line {s.line}: {kind}")
                self._named_commands[s.name](name, *s.args[1:])
            else:
                raise ScriptError(f"line {s.line}: unknown statement '{s.name}'")
        except (TypeError, IndexError, KeyError, ValueError) as e:
            if isinstance(e, ScriptError):
                raise
            raise ScriptError(f"line {s.line}: {s.name}: {e}") from None

    @staticmethod
    def _show(value: object) -> None:
        print(value)

    def _mirroring_add(self, session: int, port: int) -> None:
        self._plane.set_clone_session(session, [Replica(port, 0)])

    def _mirroring_add_mc(self, session: int, group: int) -> None:
        self._mirrors_to_groups[session] = group
        self._replicate()

    def _group_create(self, group: int) -> None:
        self._groups[group] = []

    def _node_update(self, handle: int, *ports: int) -> None:
        self._nodes[handle] = self._nodes[handle][0], list(ports)
        self._replicate()

    def _node_associate(self, group: int, handle: int) -> None:
        self._groups[group].append(handle)
        self._replicate()

    def _replicate(self) -> None:
        copies = {
            group: [
                Replica(p, rid) for rid, ports in map(self._nodes.__getitem__, h) for p in ports
            ]
            for group, h in self._groups.items()
        }
        for group, replicas in copies.items():
            self._plane.set_multicast_group(group, replicas)
        for session, group in self._mirrors_to_groups.items():
            self._plane.set_clone_session(session, copies.get(group, []))

    def _counter_write(self, name: str, index: str, packets: str, octets: str) -> None:
        value = type(self._plane.counter(name, int(index, 0)))(int(packets, 0), int(octets, 0))
        self._plane.set_counter(name, int(index, 0), value)

    def _register_write(self, name: str, index: str, value: str) -> None:
        self._plane.set_register(name, int(index, 0), int(value, 0))

    def _register_reset(self, name: str) -> None:
        for i in range(self._program.registers[name][0]):
            self._plane.set_register(name, i, 0)

    def _meter_set_rates(self, name: str, index: str, low: str, high: str) -> None:
        self._plane.set_meter(name, int(index, 0), _rates(low, high))

    def _meter_array_set_rates(self, name: str, low: str, high: str) -> None:
        for i in range(self._program.meters[name]):
            self._plane.set_meter(name, i, _rates(low, high))


def _rates(low: str, high: str) -> MeterConfig:
    """Of RATE:BURST twice; bmv2's rates are by the microsecond."""
    (cir, cburst), (pir, pburst) = (text.split(":") for text in (low, high))
    per_second = [round(float(r) * _MICROSECONDS) for r in (cir, pir)]
    return MeterConfig(per_second[0], int(cburst), per_second[1], int(pburst))


def _matches(r: Expect, frame: bytes) -> bool:
    pattern, got = r.pattern or "", frame.hex()
    if len(got) < len(pattern) or (r.exact and len(got) > len(pattern)):
        return False
    return all(p in ("*", g) for p, g in zip(pattern, got, strict=False))


def _resolve(name: str, known: Iterable[str], what: str) -> str:
    """A name in full, or the one that ends with it at a dot, or at all."""
    names = list(known)
    if name in names:
        return name
    for ending in (f".{name}", name):
        found = [n for n in names if n.endswith(ending)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ScriptError(f"{what} {name}: could be {', '.join(found)}")
    raise ScriptError(f"{what} {name}: there is none, only {', '.join(names) or 'nothing'}")


def _key_name(name: str, info: TableInfo, line: int) -> str:
    head, dollar, rest = name.partition("$")
    digits = rest.partition(".")[0]
    if dollar and digits.isdigit():  # extra$0.h is extra[0].h
        name = f"{head}[{digits}]{rest[len(digits) :]}"
    names = {k.name.rstrip("$"): k.name for k in info.key}
    names |= {k.removesuffix(".$valid$") + ".valid": v for k, v in names.items() if "$valid" in k}
    names |= {k.removesuffix(".isValid()") + ".valid": v for k, v in names.items() if "isV" in k}
    return names[_resolve(name, names, f"line {line}: key")]


def _key_value(k: KeyField, text: str | None, line: int) -> tuple[int, int]:
    """Value and mask (or low and high bound) of a field of a key."""
    ones = (1 << k.bits) - 1
    if text is None:
        missing = {MatchKind.EXACT: (0, ones), MatchKind.RANGE: (0, ones)}
        return missing.get(k.match, (0, 0))
    text, slash, length = text.partition("/")
    prefix, digits = text[:2].lower(), text[2:]
    if "*" in text:
        bits = _DIGIT_BITS.get(prefix)
        if bits is None:
            raise ScriptError(f"line {line}: {text!r}: '*' only in hexadecimal or binary")
        value = number(prefix + digits.replace("*", "0"), line)
        each = [0 if d == "*" else (1 << bits) - 1 for d in digits]
        mask = sum(m << bits * i for i, m in enumerate(reversed(each)))
        full = mask | ones ^ ((1 << bits * len(digits)) - 1 & ones)
        mask = full & ones
    else:
        value, mask = number(text, line), ones
    if slash:
        mask = ones ^ (ones >> number(length, line))
    if value > ones:
        raise ScriptError(f"line {line}: {text} is more than the {k.bits} bits of {k.name}")
    if k.match == MatchKind.RANGE:
        return value, value
    return value & mask if k.match != MatchKind.EXACT else value, mask
