"""Puts the parts together: one C file, and what the control plane needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from softnic.compiler import ir
from softnic.compiler.ahead import NOTHING, ahead_of
from softnic.compiler.calculations import Calculations
from softnic.compiler.deparser import DeparserWriter
from softnic.compiler.jsonread import well_formed
from softnic.compiler.layout import Layout
from softnic.compiler.parsers import ParserWriter
from softnic.compiler.primitives import Primitives
from softnic.compiler.probes import Probed, Probes
from softnic.compiler.tables import TableWriter, c_text
from softnic.dataplane import (
    GROUP,
    MEMBER,
    ActionInfo,
    Field,
    KeyField,
    ProfileInfo,
    TableInfo,
    ValueSetInfo,
)

VERSION = 4
"""Of the generated code: part of the name under which compiled programs are cached."""

_HEAD = """\
/* Generated from bmv2 JSON; see softnic/compiler. */
#define SN_LIMBS %d
#include "softnic.h"
#include "wide.h"

static inline uint64_t sn_idx(struct sn_ctx *c, uint64_t i, uint64_t n) {
    if (SN_LIKELY(i < n)) return i;
    sn_note(c, SN_EV_INDEX);
    return n;
}
"""


@dataclass(frozen=True, slots=True)
class Generated:
    """A program in C and its description; lists are in the order of the C tables."""

    source: str
    tables: dict[str, TableInfo]
    actions: dict[str, ActionInfo]
    digests: dict[str, tuple[Field, ...]]
    counters: dict[str, int]
    registers: dict[str, tuple[int, int]]
    meters: dict[str, int]
    profiles: dict[str, ProfileInfo]
    value_sets: dict[str, ValueSetInfo]
    messages: tuple[str, ...]
    probed: Probed | None
    """Of the traced build."""


def _arrays(name: str, arrays: tuple[ir.Array, ...]) -> str:
    rows = ", ".join(f'{{"{c_text(a.name)}", {a.cells}, {a.bits}}}' for a in arrays)
    return f"static const struct sn_array_desc {name}[] = {{{rows or '{0}'}}};"


def _table_info(w: TableWriter, t: ir.Table) -> TableInfo:
    key = tuple(KeyField(k.name, s.bits, k.match) for k, s, _ in w.key(t).fields)
    return TableInfo(
        name=t.name,
        key=key,
        actions=(*_action_names(w, w.actions(t)), *(() if t.profile is None else (MEMBER, GROUP))),
        size=t.size,
        has_counter=t.with_counters,
        has_timeout=t.support_timeout,
        is_const=t.is_const,
        default_is_const=t.default_const,
        has_meter=t.meter is not None,
        profile=t.profile,
    )


def _action_names(w: TableWriter, actions: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(w.program.actions[a].name for a in actions)


_REFERENCES = {name: ActionInfo(name, (Field("id", 32),)) for name in (MEMBER, GROUP)}


def _action_infos(program: ir.Program) -> dict[str, ActionInfo]:
    out = {
        a.name: ActionInfo(a.name, tuple(Field(n, b) for n, b in a.params))
        for a in program.actions.values()
    }
    return out | _REFERENCES if program.profiles else out


def _value_sets(parser: ParserWriter) -> dict[str, ValueSetInfo]:
    return {
        name: ValueSetInfo(name, tuple(Field(f"f{i}", w) for i, w in enumerate(widths)), size)
        for (name, widths), size in zip(
            parser.value_sets.items(), parser.program.value_sets.values(), strict=True
        )
    }


def generate(program: ir.Program, *, traced: bool = False) -> Generated:
    """Write the program; `traced`: with the calls that tell what a packet goes through.

    Raises `UnsupportedConstructError` or `BadProgramError`.
    """
    with well_formed():
        return _generate(program, traced)


def _generate(program: ir.Program, traced: bool) -> Generated:
    layout = Layout(program)
    probes = Probes(layout, on=traced)
    calculations = Calculations(layout)
    primitives = Primitives(layout, calculations, probes)
    tables = TableWriter(layout, primitives, probes)
    deparser = DeparserWriter(layout, calculations)
    out = [_HEAD % (layout.wide_bits // 64), *layout.declarations()]
    parser = ParserWriter(layout, primitives, probes)
    out += parser.write(deparser.verify())
    for a in program.actions.values():
        out += tables.action(a)
    ahead = NOTHING if traced else ahead_of(program)
    lines, ahead_name = tables.ahead(ahead)
    out += lines
    out += tables.pipeline(program.ingress, 0, ahead)
    out += tables.pipeline(program.egress, len(program.ingress.tables))
    out += deparser.write() + deparser.reset_metadata() + deparser.copy_list() + deparser.digest()
    rows = []
    for n, t in enumerate(tables.tables):
        pre, init = tables.descriptor(n, t)
        out += pre
        rows.append(init)
    out.append(f"static const struct sn_table_desc tables[] = {{{', '.join(rows) or '{0}'}}};")
    out.append(_arrays("registers", program.registers))
    out.append(_arrays("counters", program.counters))
    out.append(_arrays("meters", program.meters))
    profiles = [tables.profile(p) for p in program.profiles]
    out += [pre for pre, _ in profiles]
    inits = ", ".join(init for _, init in profiles)
    out.append(f"static const struct sn_profile_desc profiles[] = {{{inits or '{0}'}}};")
    value_sets = _value_sets(parser)
    vsets = ", ".join(
        f'{{"{c_text(v.name)}", {sum(f.size for f in v.key)}, {v.size}}}'
        for v in value_sets.values()
    )
    out.append(f"static const struct sn_vset_desc vsets[] = {{{vsets or '{0}'}}};")
    digests = ", ".join(
        f'{{"{c_text(d.name)}", {d.id}, {deparser.digest_size(d)}}}' for d in program.digests
    )
    out.append(f"static const struct sn_digest_desc digests[] = {{{digests or '{0}'}}};")
    fields, n_fields = probes.fields()
    out += fields
    out.append(
        f"""\
__attribute__((visibility("default"))) const struct sn_program sn_program = {{
    SN_ABI, sizeof(struct phv), {deparser.max_headers()},
    {len(rows)}, {len(program.registers)}, {len(program.counters)}, {len(program.digests)},
    {len(program.meters)}, {len(program.profiles)}, {len(program.value_sets)},
    tables, registers, counters, digests, meters, profiles, vsets,
    parse, {ahead_name}, ingress, egress, deparse, reset_metadata, copy_list, digest,
    trace_fields, {n_fields},
}};
"""
    )
    return Generated(
        source="\n".join(out),
        tables={t.name: _table_info(tables, t) for t in tables.tables},
        actions=_action_infos(program),
        digests={
            d.name: tuple(Field(n, b) for n, b in deparser.digest_fields(d))
            for d in program.digests
        },
        counters={c.name: c.cells for c in program.counters},
        registers={r.name: (r.cells, r.bits) for r in program.registers},
        meters={m.name: m.cells for m in program.meters},
        profiles={
            p.name: ProfileInfo(
                p.name,
                _action_names(tables, tables.profile_actions(p.name)),
                p.size,
                p.selector is not None,
            )
            for p in program.profiles
        },
        value_sets=value_sets,
        messages=tuple(primitives.messages),
        probed=probes.probed() if traced else None,
    )
