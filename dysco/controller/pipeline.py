"""The compiled P4 program: names to ids, and table rows to P4Runtime messages and back.

Static entries (ports, routes, policies) are written as `Row`s, which can be compared; session
entries, where time counts, have an encoder of their own (`mappings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from finsy import P4Schema
from finsy.proto import p4i, p4r
from google.protobuf import text_format

P4INFO_NAME = "dysco.p4info.txtpb"
JSON_NAME = "dysco.json"

Match = tuple[int, int]
"""(value, 0) for exact, (value, prefix length) for lpm, (value, mask) for ternary."""


class PipelineError(ValueError):
    """The compiled program can't be read, or is not the one this controller is written for."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """What identifies an entry: table, match (in the order of the table's key), priority."""

    table: str
    match: tuple[Match, ...]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A static table entry."""

    key: RowKey
    action: str
    params: tuple[int, ...] = ()


def packed(value: int) -> bytes:
    """Canonical P4Runtime bytes of an unsigned value: the shortest (P4Runtime 1.4, 8.4)."""
    return value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")


class Action:
    """An action's ids."""

    def __init__(self, info: p4i.Action) -> None:
        self.id = info.preamble.id
        self.name = _suffix(info.preamble.name)
        self.params = tuple(p.id for p in info.params)
        self.param_names = tuple(p.name for p in info.params)
        self._empty = p4r.Action(
            action_id=self.id, params=[p4r.Action.Param(param_id=number) for number in self.params]
        )
        """Copied and filled in: a third of the time of making each."""

    def fill(self, entry: p4r.TableEntry, params: Iterable[int]) -> None:
        """Make it the entry's action, with parameters in the order of its declaration."""
        action = entry.action.action
        action.CopyFrom(self._empty)
        for param, value in zip(action.params, params, strict=True):
            param.value = packed(value)


class Table:
    """A table's ids and key."""

    def __init__(self, info: p4i.Table, actions: Mapping[int, Action]) -> None:
        self.id = info.preamble.id
        self.name = _suffix(info.preamble.name)
        self.size = info.size
        self.fields = tuple((f.id, f.match_type) for f in info.match_fields)
        self.field_names = tuple(f.name for f in info.match_fields)
        self.bits = tuple(f.bitwidth for f in info.match_fields)
        self.actions = {actions[ref.id].name: actions[ref.id] for ref in info.action_refs}
        self._is_exact = all(kind == p4i.MatchField.EXACT for _, kind in self.fields)
        self._empty = p4r.TableEntry(
            table_id=self.id,
            match=[
                p4r.FieldMatch(field_id=number, exact=p4r.FieldMatch.Exact())
                for number, _ in self.fields
            ],
        )

    def entry(self, row: Row) -> p4r.TableEntry:
        """The row as a message."""
        entry = self.key_entry(row.key)
        self.actions[row.action].fill(entry, row.params)
        return entry

    def key_entry(self, key: RowKey) -> p4r.TableEntry:
        """The message that names an entry, as a delete needs it."""
        if self._is_exact:
            entry = p4r.TableEntry()
            entry.CopyFrom(self._empty)
            for field, (value, _) in zip(entry.match, key.match, strict=True):
                field.exact.value = packed(value)
            return entry
        fields = []
        for (number, kind), (value, extent) in zip(self.fields, key.match, strict=True):
            field = p4r.FieldMatch(field_id=number)
            if kind == p4i.MatchField.EXACT:
                field.exact.value = packed(value)
            elif kind == p4i.MatchField.LPM:
                field.lpm.value, field.lpm.prefix_len = packed(value), extent
            else:
                field.ternary.value, field.ternary.mask = packed(value), packed(extent)
            # A field that matches everything is left out (P4Runtime 1.4, 9.1.1).
            if kind == p4i.MatchField.EXACT or extent:
                fields.append(field)
        return p4r.TableEntry(table_id=self.id, match=fields, priority=key.priority)

    def row(self, entry: p4r.TableEntry) -> Row:
        """The message as a row. Raises PipelineError for an action that the table has not."""
        given = {field.field_id: field for field in entry.match}
        match: list[Match] = []
        for number, kind in self.fields:
            field = given.get(number)
            if field is None:
                match.append((0, 0))
            elif kind == p4i.MatchField.EXACT:
                match.append((int.from_bytes(field.exact.value, "big"), 0))
            elif kind == p4i.MatchField.LPM:
                match.append((int.from_bytes(field.lpm.value, "big"), field.lpm.prefix_len))
            else:
                value = int.from_bytes(field.ternary.value, "big")
                match.append((value, int.from_bytes(field.ternary.mask, "big")))
        action_id = entry.action.action.action_id
        action = next((a for a in self.actions.values() if a.id == action_id), None)
        if action is None:
            raise PipelineError(f"table {self.name} holds an entry with unknown action {action_id}")
        values = {p.param_id: int.from_bytes(p.value, "big") for p in entry.action.action.params}
        params = tuple(values.get(number, 0) for number in action.params)
        return Row(RowKey(self.name, tuple(match), entry.priority), action.name, params)


class Pipeline:
    """The program with everything that messages need."""

    def __init__(self, schema: P4Schema) -> None:
        self.config = schema.get_pipeline_config()
        self.cookie = schema.p4cookie
        info = schema.p4info
        self.p4info = info
        actions = {a.preamble.id: Action(a) for a in info.actions}
        self.tables = {t.name: t for t in (Table(t, actions) for t in info.tables)}
        # Every place that drops has an instance of its own.
        self.drop_counters = tuple(
            c.preamble.id for c in info.counters if _suffix(c.preamble.name) == "drops"
        )
        self.leg_counters = tuple(
            c.preamble.id for c in info.counters if _suffix(c.preamble.name) == "legs"
        )
        self.metadata = {
            header.preamble.name: {m.name: m.id for m in header.metadata}
            for header in info.controller_packet_metadata
        }
        if missing := _REQUIRED_TABLES - self.tables.keys():
            raise PipelineError(
                f"the P4 program has no table {', '.join(sorted(missing))}: "
                "it is not Dysco's, or of another version; give --pipeline the right folder"
            )

    def update(self, kind: p4r.Update.Type.ValueType, row: Row) -> p4r.Update:
        """An insert, modify or delete of a row."""
        table = self.tables[row.key.table]
        entry = table.key_entry(row.key) if kind == p4r.Update.DELETE else table.entry(row)
        return p4r.Update(type=kind, entity=p4r.Entity(table_entry=entry))


_REQUIRED_TABLES = frozenset(
    {
        "port",
        "bridge",
        *(f"{t}_{v}" for t in ("outbound", "inbound", "policy", "route") for v in ("v4", "v6")),
    }
)


def load(folder: Path | None = None) -> Pipeline:
    """The compiled program in `folder`, or the one that comes with the package.

    Raises PipelineError.
    """
    folder = folder or _default_folder()
    p4info, blob = folder / P4INFO_NAME, folder / JSON_NAME
    for path in (p4info, blob):
        if not path.is_file():
            raise PipelineError(f"{path}: no such file; give --pipeline the folder that holds it")
    try:
        return Pipeline(P4Schema(p4info, blob))
    except PipelineError as error:
        raise PipelineError(f"{p4info}: {error}") from error
    except (OSError, ValueError, text_format.ParseError) as error:
        raise PipelineError(f"{p4info}: can't be read: {error}") from error


def _default_folder() -> Path:
    package = Path(str(resources.files("dysco")))
    installed = package / "pipeline"
    return installed if installed.is_dir() else package.parent / "p4src" / "v1model" / "build"


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]
