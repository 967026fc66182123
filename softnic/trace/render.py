"""A trace as text to read, or as one JSON object a packet."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from softnic.trace.events import (
    ActionRun,
    Again,
    Change,
    Clone,
    Deparse,
    Digest,
    Drop,
    Egress,
    Extern,
    If,
    Multicast,
    Out,
    Parsed,
    Pass,
    Pick,
    State,
    TableApply,
    Trace,
    TraceEvent,
)

_VALID = "$valid$"
_NAMES: Mapping[type[TraceEvent], str] = {
    Pass: "pass",
    State: "state",
    Parsed: "parsed",
    TableApply: "table",
    Pick: "pick",
    ActionRun: "action",
    If: "if",
    Extern: "extern",
    Egress: "egress",
    Clone: "clone",
    Multicast: "multicast",
    Again: "again",
    Digest: "digest",
    Deparse: "deparse",
    Drop: "drop",
    Out: "out",
}


def as_json(trace: Trace) -> dict[str, Any]:
    """The trace as JSON's types; numbers of fields are hexadecimal strings."""
    return {
        "port": trace.port,
        "length": trace.length,
        "time_ns": trace.time_ns,
        "missing_events": trace.missing,
        "events": [_event_json(event) for event in trace.events],
    }


def _event_json(event: TraceEvent) -> dict[str, Any]:
    out: dict[str, Any] = {"event": _NAMES[type(event)]}
    for f in dataclasses.fields(event):
        value = getattr(event, f.name)
        if f.name == "changes":
            continue
        if isinstance(value, Mapping):
            value = {name: hex(number) for name, number in value.items()}
        out[f.name] = value.hex() if isinstance(value, bytes) else value
    fields = [c for c in event.changes if c.field != _VALID]
    out["valid"] = {c.header: bool(c.value) for c in event.changes if c.field == _VALID}
    out["set"] = {f"{c.header}.{c.field}": hex(c.value) for c in fields}
    return out


def as_text(trace: Trace, number: int) -> Iterator[str]:
    """The trace as lines."""
    yield f"packet {number}: port {trace.port}, {trace.length} bytes"
    for event in trace.events:
        margin = "  " * (event.depth + 1)
        yield margin + _LINES[type(event)](event)
        for line in _changes(event.changes):
            yield f"{margin}    {line}"
    if trace.missing:
        yield f"  {trace.missing} more events: the trace of one packet is limited"


def _changes(changes: list[Change]) -> Iterator[str]:
    """Headers that became valid in one line each; of what p4c made up only the last name."""
    born = [c.header for c in changes if c.field == _VALID and c.value]
    for header in born:
        fields = [c for c in changes if c.header == header and c.field != _VALID]
        yield " ".join([f"+ {header}", *(f"{c.field}={c.value:#x}" for c in fields)])
    for c in changes:
        if c.field == _VALID and not c.value:
            yield f"- {c.header}"
        elif c.header not in born:
            yield f"{_field(c)} = {c.value:#x}"


def _field(c: Change) -> str:
    """`scalars` holds what p4c took apart: locals, and fields of metadata structs."""
    return c.field if c.header == "scalars" else f"{c.header}.{c.field}"


def _values(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value:#x}" for name, value in values.items())


def _at(source: str) -> str:
    return f"   [{source}]" if source else ""


def _table(e: TableApply) -> str:
    key = f" {_values(e.key)}" if e.key else ""
    if not e.hit:
        return f"table {e.name}{key}: miss, {e.action or 'no action'}"
    priority = "" if e.priority is None else f" of priority {e.priority}"
    return f"table {e.name}{key}: hit entry {e.entry}{priority}, {e.action or 'no action'}"


def _pick(e: Pick) -> str:
    chosen = "nobody can be chosen" if e.member is None else f"member {e.member}"
    return f"profile {e.profile}: {e.kind} {e.id}, {chosen}"


def _action(e: ActionRun) -> str:
    return f"action {e.name}({_values(e.params)}){_at(e.source)}"


def _extern(e: Extern) -> str:
    target = f" {e.target}" if e.target else ""
    return f"{e.op}{target}({_values(e.arguments)}){_at(e.source)}"


def _egress(e: Egress) -> str:
    rid = f", rid {e.rid}" if e.rid else ""
    return f"egress: port {e.port}, {e.instance}{rid}"


def _if(e: If) -> str:
    condition = re.sub(r"\s+", " ", e.condition)
    return f"if ({condition}): {'yes' if e.value else 'no'}{_at(e.source)}"


_LINES: Mapping[type[TraceEvent], Callable[[Any], str]] = {
    Pass: lambda e: f"pass: {e.instance}, port {e.port}, {e.length} bytes",
    State: lambda e: f"parser {e.name}",
    Parsed: lambda e: f"parsed {e.length} bytes: {e.error}",
    TableApply: _table,
    Pick: _pick,
    ActionRun: _action,
    If: _if,
    Extern: _extern,
    Egress: _egress,
    Clone: lambda e: f"clone from {e.where}: session {e.session}, {e.copies} copies",
    Multicast: lambda e: f"multicast: group {e.group}, {e.copies} copies",
    Again: lambda e: e.how,
    Digest: lambda e: f"digest {e.name}",
    Deparse: lambda _: "deparser",
    Drop: lambda e: f"dropped: {e.reason}, counted at port {e.port}",
    Out: lambda e: f"out: port {e.port}, {len(e.frame)} bytes {e.frame.hex()}",
}
