"""The records of a trace (runtime/trace.c) as typed events."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from softnic.dataplane import GROUP, MEMBER, Field
from softnic.native import DROP_REASONS, NativeProgram

_RECORD = struct.Struct("=IHHIIII")
_NONE = 0xFFFFFFFF
_VALUE = 16


class _Kind(IntEnum):
    """`enum sn_trace_kind` (runtime/internal.h)."""

    BEGIN = 1
    PASS = 2
    STATE = 3
    PARSED = 4
    TABLE = 5
    PICK = 6
    ACTION = 7
    IF = 8
    STEP = 9
    CHANGE = 10
    EGRESS = 11
    CLONE = 12
    MULTICAST = 13
    RESUBMIT = 14
    RECIRCULATE = 15
    DIGEST = 16
    DEPARSE = 17
    DROP = 18
    OUT = 19
    END = 20


INSTANCES = {
    0: "normal",
    1: "clone of ingress",
    2: "clone of egress",
    4: "recirculated",
    5: "replicated",
    6: "resubmitted",
}
"""`enum sn_instance` (runtime/softnic.h)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A field's value after the event; of `$valid$`: whether the header is valid."""

    header: str
    field: str
    value: int
    bits: int


@dataclass(slots=True)
class TraceEvent:
    """Anything that happened; `depth`: how many copies and rounds it is away from the packet."""

    depth: int
    changes: list[Change] = field(default_factory=list, init=False)
    """What it changed in headers and metadata."""


@dataclass(slots=True)
class Pass(TraceEvent):
    """A packet, or a copy, comes to the parser."""

    instance: str
    port: int
    length: int


@dataclass(slots=True)
class State(TraceEvent):
    """A parser state."""

    name: str


@dataclass(slots=True)
class Parsed(TraceEvent):
    """The parser's end; `length`: bytes of headers."""

    error: str
    length: int


@dataclass(slots=True)
class TableApply(TraceEvent):
    """A lookup. `entry`: a number that stands for the entry as long as it exists."""

    name: str
    key: Mapping[str, int]
    hit: bool
    action: str
    entry: int | None
    priority: int | None


@dataclass(slots=True)
class Pick(TraceEvent):
    """An entry stood for a member or a group of an action profile; None: nobody was chosen."""

    profile: str
    kind: str
    id: int
    member: int | None


@dataclass(slots=True)
class ActionRun(TraceEvent):
    """An action, or statements between tables (`name` empty where p4c made the name up)."""

    name: str
    params: Mapping[str, int]
    source: str


@dataclass(slots=True)
class If(TraceEvent):
    """A condition."""

    condition: str
    value: bool
    source: str


@dataclass(slots=True)
class Extern(TraceEvent):
    """A call of an extern or the like; `target`: the object, or the text of a message."""

    op: str
    target: str
    arguments: Mapping[str, int]
    source: str


@dataclass(slots=True)
class Egress(TraceEvent):
    """Egress begins."""

    instance: str
    port: int
    rid: int


@dataclass(slots=True)
class Clone(TraceEvent):
    """Copies by a clone session; their passes follow."""

    where: str
    session: int
    copies: int


@dataclass(slots=True)
class Multicast(TraceEvent):
    """Copies by a multicast group; their passes follow."""

    group: int
    copies: int


@dataclass(slots=True)
class Again(TraceEvent):
    """Resubmitted or recirculated."""

    how: str


@dataclass(slots=True)
class Digest(TraceEvent):
    """A message to the controller."""

    name: str


@dataclass(slots=True)
class Deparse(TraceEvent):
    """Headers are written."""


@dataclass(slots=True)
class Drop(TraceEvent):
    """The packet, or a copy, ends."""

    reason: str
    port: int


@dataclass(slots=True)
class Out(TraceEvent):
    """A frame leaves."""

    port: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Trace:
    """All of one packet. `time_ns`: since the device started; `missing`: events left out."""

    port: int
    length: int
    time_ns: int
    events: tuple[TraceEvent, ...]
    missing: int


class Decoder:
    """Reads the records of one program."""

    def __init__(self, program: NativeProgram) -> None:
        """ValueError for a program that isn't of the traced build."""
        if program.probed is None:
            raise ValueError("the program wasn't compiled for traces")
        self._program = program
        self._probed = program.probed
        self._tables = list(program.tables.values())
        self._profiles = list(program.profiles)
        self._digests = list(program.digests)

    def trace(self, data: bytes) -> Trace:
        """One packet's records."""
        port = length = time_ns = missing = 0
        events: list[TraceEvent] = []
        for kind, depth, a, b, n, body in _records(data):
            match kind:
                case _Kind.BEGIN:
                    port, length, time_ns = b, n, int.from_bytes(body, "little")
                case _Kind.END:
                    missing = b
                case _Kind.CHANGE:
                    if events:
                        value = self._probed.values[a]
                        number = int.from_bytes(body, "big")
                        change = Change(value.header, value.field, number, value.bits)
                        events[-1].changes.append(change)
                case _:
                    events.append(_READERS[kind](self, depth, a, b, n, body))
        return Trace(port, length, time_ns, tuple(events), missing)

    def _pass(self, depth: int, a: int, b: int, n: int, _body: bytes) -> TraceEvent:
        return Pass(depth, INSTANCES.get(a, str(a)), b, n)

    def _state(self, depth: int, a: int, _b: int, _n: int, _body: bytes) -> TraceEvent:
        return State(depth, self._probed.states[a])

    def _parsed(self, depth: int, _a: int, b: int, n: int, _body: bytes) -> TraceEvent:
        return Parsed(depth, self._probed.errors.get(b, "NoError" if b == 0 else str(b)), n)

    def _table(self, depth: int, a: int, b: int, n: int, body: bytes) -> TraceEvent:
        table = self._tables[a]
        entry, priority = struct.unpack_from("=II", body)
        with_priority = b and table.needs_priority
        return TableApply(
            depth,
            table.name,
            _fields(table.key, body[8:]),
            bool(b),
            table.actions[n] if n < len(table.actions) else "",
            None if entry == _NONE else entry,
            priority if with_priority else None,
        )

    def _pick(self, depth: int, a: int, b: int, _n: int, body: bytes) -> TraceEvent:
        number, member = struct.unpack("=II", body)
        kind = (MEMBER, GROUP)[b].lstrip("$")
        return Pick(depth, self._profiles[a], kind, number, None if member == _NONE else member)

    def _action(self, depth: int, a: int, _b: int, _n: int, body: bytes) -> TraceEvent:
        action = self._probed.actions[a]
        params = _fields([Field(name, bits) for name, bits in action.params], body)
        return ActionRun(depth, action.name, params, _where(str(action.source)))

    def _if(self, depth: int, a: int, b: int, _n: int, _body: bytes) -> TraceEvent:
        c = self._probed.conditionals[a]
        return If(depth, c.source.text or c.name, bool(b), _where(str(c.source)))

    def _step(self, depth: int, a: int, _b: int, _n: int, body: bytes) -> TraceEvent:
        step = self._probed.steps[a]
        values = (body[i : i + _VALUE] for i in range(0, len(body), _VALUE))
        given = {k: int.from_bytes(v, "big") for k, v in zip(step.arguments, values, strict=False)}
        return Extern(depth, step.op, step.where, given, _where(str(step.source)))

    def _egress(self, depth: int, a: int, b: int, n: int, _body: bytes) -> TraceEvent:
        return Egress(depth, INSTANCES.get(a, str(a)), b, n)

    def _clone(self, depth: int, a: int, b: int, n: int, _body: bytes) -> TraceEvent:
        return Clone(depth, ("ingress", "egress")[b], a, n)

    def _multicast(self, depth: int, a: int, b: int, _n: int, _body: bytes) -> TraceEvent:
        return Multicast(depth, a, b)

    def _resubmit(self, depth: int, *_: object) -> TraceEvent:
        return Again(depth, "resubmitted")

    def _recirculate(self, depth: int, *_: object) -> TraceEvent:
        return Again(depth, "recirculated")

    def _digest(self, depth: int, a: int, *_: object) -> TraceEvent:
        return Digest(depth, self._digests[a])

    def _deparse(self, depth: int, *_: object) -> TraceEvent:
        return Deparse(depth)

    def _drop(self, depth: int, a: int, b: int, *_: object) -> TraceEvent:
        return Drop(depth, DROP_REASONS[a], b)

    def _out(self, depth: int, _a: int, b: int, _n: int, body: bytes) -> TraceEvent:
        return Out(depth, b, body)


_Reader = Callable[[Decoder, int, int, int, int, bytes], TraceEvent]
_READERS: Mapping[int, _Reader] = {
    _Kind.PASS: Decoder._pass,
    _Kind.STATE: Decoder._state,
    _Kind.PARSED: Decoder._parsed,
    _Kind.TABLE: Decoder._table,
    _Kind.PICK: Decoder._pick,
    _Kind.ACTION: Decoder._action,
    _Kind.IF: Decoder._if,
    _Kind.STEP: Decoder._step,
    _Kind.EGRESS: Decoder._egress,
    _Kind.CLONE: Decoder._clone,
    _Kind.MULTICAST: Decoder._multicast,
    _Kind.RESUBMIT: Decoder._resubmit,
    _Kind.RECIRCULATE: Decoder._recirculate,
    _Kind.DIGEST: Decoder._digest,
    _Kind.DEPARSE: Decoder._deparse,
    _Kind.DROP: Decoder._drop,
    _Kind.OUT: Decoder._out,
}


def _records(data: bytes) -> Iterator[tuple[int, int, int, int, int, bytes]]:
    at = 0
    while at < len(data):
        size, kind, depth, a, b, n, length = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        yield kind, depth, a, b, n, data[start : start + length]
        at += size


def _fields(fields: Sequence[Field], data: bytes) -> dict[str, int]:
    out, at = {}, 0
    for f in fields:
        out[f.name] = int.from_bytes(data[at : at + f.size], "big")
        at += f.size
    return out


def _where(source: str) -> str:
    return source.strip(" ()")
