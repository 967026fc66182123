"""Entries from a file into a data plane: an STF script, or P4Runtime messages as text.

P4Runtime text is a p4.v1.WriteRequest, or a p4.v1.ReadResponse: what a device answered to a Read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finsy.proto import p4r
from google.protobuf import text_format

from softnic.native import NativeDataPlane, NativeProgram
from softnic.p4runtime.errors import P4RuntimeError
from softnic.p4runtime.pipeline import Pipeline, prepare
from softnic.p4runtime.writer import Writer
from softnic.stf.runner import Runner
from softnic.stf.script import CheckCounter, Command, Expect, Packet, Statement, parse

_READS = frozenset({"counter_read", "register_read", "meter_get_rates", "mirroring_get"})


class EntriesError(ValueError):
    """The file can't be read, or an entry was refused; the text says which."""


def fill(plane: NativeDataPlane, program: NativeProgram, file: Path, p4info: Path | None) -> None:
    """Write what the file holds. Raises `EntriesError`, `ScriptError`, OSError."""
    if file.suffix == ".stf":
        _fill_from_script(plane, program, file)
        return
    if p4info is None:
        raise EntriesError(f"{file}: P4Runtime messages need the program's P4Info (--p4info)")
    _fill_from_messages(plane, program, file, p4info)


def _writes(s: Statement) -> bool:
    """True of a statement that isn't of the test itself."""
    if isinstance(s, Command):
        return s.name not in _READS
    return not isinstance(s, Packet | Expect | CheckCounter)


def _fill_from_script(plane: NativeDataPlane, program: NativeProgram, file: Path) -> None:
    statements = (s for s in parse(file.read_text()) if _writes(s))
    failures = Runner(plane, program).run(statements)
    if failures:
        raise EntriesError(f"{file}: {failures[0]}")


def _fill_from_messages(
    plane: NativeDataPlane, program: NativeProgram, file: Path, p4info: Path
) -> None:
    updates = _updates(file)
    try:
        pipeline = _bind(program, p4info)
        encoded = p4r.WriteRequest(updates=updates).SerializeToString()
        results = Writer(plane, pipeline).apply(encoded, len(updates))
    except P4RuntimeError as error:
        raise EntriesError(f"{p4info}: {error}") from error
    for update, result in zip(updates, results, strict=True):
        if result is not None:
            text = text_format.MessageToString(update, as_one_line=True)
            raise EntriesError(f"{file}: {result}: {text}")


def _bind(program: NativeProgram, p4info: Path) -> Pipeline:
    config = p4r.ForwardingPipelineConfig(p4_device_config=b"compiled already")
    try:
        text_format.Parse(p4info.read_text(), config.p4info)
    except text_format.ParseError as error:
        raise EntriesError(f"{p4info}: not P4Info as text: {error}") from None
    return prepare(config, lambda _: program)


def _updates(file: Path) -> list[p4r.Update]:
    """The updates of a WriteRequest; the entities of a ReadResponse as inserts."""
    text = file.read_text()
    try:
        return _typed(text_format.Parse(text, p4r.WriteRequest()).updates)
    except text_format.ParseError as error:
        why = error
    try:
        entities = text_format.Parse(text, p4r.ReadResponse()).entities
    except text_format.ParseError:
        raise EntriesError(f"{file}: not a p4.v1.WriteRequest as text: {why}") from None
    return _typed(p4r.Update(entity=entity) for entity in entities)


_ONLY_MODIFY = frozenset(
    {
        "counter_entry",
        "direct_counter_entry",
        "meter_entry",
        "direct_meter_entry",
        "register_entry",
        "value_set_entry",
    }
)


def _typed(updates: Iterable[p4r.Update]) -> list[p4r.Update]:
    """Where the type is left out: INSERT, and MODIFY of what always exists."""
    out = []
    for update in updates:
        kind = update.entity.WhichOneof("entity") or ""
        default = kind == "table_entry" and update.entity.table_entry.is_default_action
        if not update.type:
            exists = default or kind in _ONLY_MODIFY
            update.type = p4r.Update.MODIFY if exists else p4r.Update.INSERT
        out.append(update)
    return out
