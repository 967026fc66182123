"""The calls of the traced build (`runtime/trace.c`), and what the numbers in its records mean.

In the ordinary build every method answers with nothing, so that it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.compiler.expressions import Expressions
from softnic.compiler.layout import STD, Layout, Slot
from softnic.dataplane import UnsupportedConstructError

_NO_PLACE = "SN_NONE"

_STEPS: Mapping[str, Mapping[str, int]] = {
    "count": {"index": 1},
    "execute_meter": {"index": 1},
    "register_read": {"index": 2},
    "register_write": {"index": 1, "value": 2},
    "modify_field_rng_uniform": {"from": 1, "to": 2},
    "modify_field_with_hash_based_offset": {"base": 1, "max": 3},
    "clone_ingress_pkt_to_egress": {"session": 0},
    "clone_egress_pkt_to_egress": {"session": 0},
    "resubmit": {},
    "recirculate": {},
    "generate_digest": {},
    "truncate": {"length": 0},
    "log_msg": {},
    "assert": {},
    "assume": {},
    "exit": {},
    "mark_to_drop": {},
    "drop": {},
    "push": {"count": 1},
    "pop": {"count": 1},
}
"""What is told of a step by itself, with its arguments; others show in what they change."""


@dataclass(frozen=True, slots=True)
class Step:
    """An extern or the like: `where` is the object or the text it is about."""

    op: str
    where: str
    arguments: tuple[str, ...]
    source: ir.Source


@dataclass(frozen=True, slots=True)
class Value:
    """A field whose changes are told; `$valid$` is the header's validity."""

    header: str
    field: str
    bits: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What the numbers in the records of a traced program stand for."""

    states: tuple[str, ...]
    errors: Mapping[int, str]
    actions: Mapping[int, ir.Action]
    conditionals: tuple[ir.Conditional, ...]
    steps: tuple[Step, ...]
    values: tuple[Value, ...]


class Probes:
    """Writes the calls, and remembers what they are about."""

    def __init__(self, layout: Layout, *, on: bool) -> None:
        self.layout = layout
        self.on = on
        self._conditionals: list[ir.Conditional] = []
        self._steps: list[Step] = []
        self._values: list[Value] = []

    @property
    def apply(self) -> str:
        """The function that looks a key up in a table."""
        return "sn_trace_apply" if self.on else "sn_table_apply"

    def state(self, number: int) -> list[str]:
        """A parser state begins."""
        return [f"sn_trace_state(c, {number});"] if self.on else []

    def parsed(self) -> list[str]:
        """The parser is done."""
        return ["sn_trace_parsed(c);"] if self.on else []

    def action(self, number: int, size: int) -> list[str]:
        """An action begins; `size` bytes of parameters."""
        return [f"sn_trace_action(c, {number}, prm, {size});"] if self.on else []

    def conditional(self, c: ir.Conditional) -> list[str]:
        """An `if` was decided: `yes`."""
        if not self.on:
            return []
        self._conditionals.append(c)
        return [f"sn_trace_if(c, {len(self._conditionals) - 1}, yes);"]

    def pick(self, profile: int, picked: str) -> list[str]:
        """Statements that replace `r` by what its member or group stands for."""
        if not self.on:
            return [f"r = {picked};"]
        return [
            f"struct sn_result picked_ = {picked};",
            f"sn_trace_pick(c, {profile}, r, picked_);",
            "r = picked_;",
        ]

    def step(self, p: ir.Primitive, x: Expressions) -> list[str]:
        """Before a step of an action."""
        wanted = _STEPS.get(p.op)
        if not self.on or wanted is None:
            return []
        values = {name: x.number(p.params[i], 128).cast("sn_u128") for name, i in wanted.items()}
        if p.op in ("assert", "assume"):
            values["holds"] = f"(sn_u128){x.boolean(p.params[0])}"
        if p.op == "log_msg":
            given = [v for r in p.params[1:] if isinstance(r, ir.Vector) for v in r.items]
            values = {str(i): x.number(v, 128).cast("sn_u128") for i, v in enumerate(given)}
        self._steps.append(Step(p.op, self._about(p), tuple(values), p.source))
        data = f"(const sn_u128[]){{{', '.join(values.values())}}}" if values else "0"
        return [f"sn_trace_step(c, {len(self._steps) - 1}, {data}, {len(values)});"]

    def _about(self, p: ir.Primitive) -> str:
        if p.op == "generate_digest" and isinstance(p.params[1], ir.Const):
            number = p.params[1].value
            return next((d.name for d in self.layout.program.digests if d.id == number), "")
        for e in p.params:
            match e:
                case ir.Named(kind, name) if kind != "header":
                    return name
                case ir.Text(text):
                    return text
        return ""

    # ---- fields

    def fields(self) -> tuple[list[str], str]:
        """The table of fields in C, and how many there are."""
        rows = self._rows() if self.on else []
        body = ",\n    ".join(rows) or "{0}"
        declaration = f"static const struct sn_trace_field trace_fields[] = {{\n    {body}\n}};"
        return [declaration], str(len(rows))

    def _rows(self) -> list[str]:
        rows = []
        for name, h in self.layout.program.headers.items():
            if not h.metadata:
                rows.append(self._row(name, "$valid$", self.layout.slot(name, "$valid$"), None))
            valid = None if h.metadata else self.layout.slot(name, "$valid$")
            for f in h.type.fields:
                slot = self.layout.slot(name, f.name)
                if f.name != "_padding" and not f.name.startswith("_padding_"):
                    rows.append(self._row(name, f.name, slot, valid))
        return rows

    def _row(self, header: str, field: str, slot: Slot, valid: Slot | None) -> str:
        self._values.append(Value(header, field, slot.bits))
        if slot.code.startswith("c->std."):
            member = slot.code.removeprefix("c->std.")
            if member not in STD:
                raise UnsupportedConstructError(f"standard metadata '{member}'")
            at = f"__builtin_offsetof(struct sn_std, {member})"
            return (
                f"{{{at}, sizeof(((struct sn_std *)0)->{member}), {_NO_PLACE}, {_NO_PLACE}, 1, 0}}"
            )
        at, size = _offset(slot.code), f"sizeof(((struct phv *)0)->{_path(slot.code)})"
        valid_at = _NO_PLACE if valid is None else _offset(valid.code)
        bits_at = _offset(f"{slot.code}_n") if slot.varbit else _NO_PLACE
        return f"{{{at}, {size}, {valid_at}, {bits_at}, 0, {int(slot.wide)}}}"

    def probed(self) -> Probed:
        """What the numbers mean; after all has been written."""
        program = self.layout.program
        return Probed(
            states=tuple(s.name for s in program.parser.states),
            errors={number: name for name, number in program.errors.items()},
            actions=program.actions,
            conditionals=tuple(self._conditionals),
            steps=tuple(self._steps),
            values=tuple(self._values),
        )


def _path(code: str) -> str:
    return code.removeprefix("p->")


def _offset(code: str) -> str:
    return f"__builtin_offsetof(struct phv, {_path(code)})"
