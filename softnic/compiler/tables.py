"""Actions, and the pipelines as C functions: a label for each table and condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.compiler.ahead import NOTHING, Ahead, looked_up
from softnic.compiler.expressions import Expressions, exact, mask_of
from softnic.compiler.jsonread import BadProgramError
from softnic.compiler.layout import Layout, Slot, c_name, c_uint
from softnic.compiler.primitives import Primitives, store
from softnic.compiler.probes import Probes
from softnic.dataplane import MatchKind, UnsupportedConstructError

MAX_KEY = 256
"""Bytes of a packed key: the runtime's limit."""
LOOP_LIMIT = 4096
"""Rounds of the loops in one run of an action; an action that wants more ends (noted)."""

_KINDS = {
    MatchKind.EXACT: "SN_EXACT",
    MatchKind.LPM: "SN_LPM",
    MatchKind.TERNARY: "SN_TERNARY",
    MatchKind.RANGE: "SN_RANGE",
    MatchKind.OPTIONAL: "SN_OPTIONAL",
}


def packed(values: list[tuple[int, int]]) -> bytes:
    """Values and their widths, each big-endian in whole bytes."""
    return b"".join((v & mask_of(w)).to_bytes((w + 7) // 8, "big") for v, w in values)


def c_bytes(data: bytes) -> str:
    """A byte array as an expression."""
    return "(const uint8_t[]){" + (", ".join(map(str, data)) or "0") + "}"


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """Key fields with their width and offset in the packed key."""

    fields: tuple[tuple[ir.TableKey, Slot, int], ...]
    size: int


class TableWriter:
    """Writes actions and pipelines of a program."""

    def __init__(self, layout: Layout, primitives: Primitives, probes: Probes) -> None:
        self.layout = layout
        self.program = layout.program
        self.primitives = primitives
        self.probes = probes
        self.x = Expressions(layout)
        self.tables = [*self.program.ingress.tables, *self.program.egress.tables]
        self._profile_no = {p.name: i for i, p in enumerate(self.program.profiles)}
        self._members: dict[str, tuple[int, ...]] = {}
        for t in self.tables:
            if t.profile is not None:
                if t.profile not in self._profile_no:
                    raise BadProgramError(f"table '{t.name}' without profile '{t.profile}'")
                have = self._members.setdefault(t.profile, ())
                self._members[t.profile] = have + tuple(a for a in t.actions if a not in have)
        self._exits = {
            a.id for a in self.program.actions.values() if any(p.op == "exit" for p in a.primitives)
        }

    # ---- actions

    def action(self, a: ir.Action) -> list[str]:
        """One action as a function of the packet and its packed parameters."""
        out = [
            f"/* {c_name(a.name)} */",
            f"static inline void act{a.id}(struct sn_ctx *c, const uint8_t *prm) {{",
            "    struct phv *p = c->phv;",
            f"    uint32_t loops = {LOOP_LIMIT};",
            "    (void)p; (void)prm; (void)loops;",
            *(f"    {line}" for line in self.probes.action(a.id, self._action_size(a.id))),
        ]
        slots, at = [], 0
        for i, (_, bits) in enumerate(a.params):
            size = (bits + 7) // 8
            if bits > 128:
                out.append(f"    const uint8_t *a{i} = prm + {at};")
            else:
                load = f"sn_ld{size * 8}(prm + {at})"
                if size not in (1, 2, 3, 4, 5, 6, 7, 8, 16):
                    load = f"sn_ldn(prm + {at}, {size})"
                out.append(f"    {c_uint(bits)} a{i} = ({c_uint(bits)}){load}; (void)a{i};")
            slots.append(Slot(f"a{i}", bits))
            at += size
        x = Expressions(self.layout, slots)
        labels = self._labels(a)
        for i, p in enumerate(a.primitives):
            if i in labels:
                out.append(f"l{i}:;")
            out += [f"    {line}" for line in self._step(p, i, x, a)]
        if len(a.primitives) in labels:
            out.append(f"l{len(a.primitives)}:;")
        return [*out, "}"]

    def _step(self, p: ir.Primitive, at: int, x: Expressions, a: ir.Action) -> list[str]:
        match p.op, p.params:
            case "_jump", (ir.Const(to),):
                if to > at:
                    return [f"goto l{to};"]
                out = "{ sn_note(c, SN_EV_LOOP); return; }"
                return [f"if (SN_UNLIKELY(!loops--)) {out}", f"goto l{to};"]
            case "_jump_if_zero", (cond, ir.Const(to)):
                return [f"if (!{x.boolean(cond)}) goto l{to};"]
        return self.primitives.write(p, x, f"action '{a.name}'")

    @staticmethod
    def _labels(a: ir.Action) -> set[int]:
        out = set()
        for p in a.primitives:
            if p.op in ("_jump", "_jump_if_zero") and isinstance(p.params[-1], ir.Const):
                out.add(p.params[-1].value)
        return out

    # ---- tables

    def actions(self, t: ir.Table) -> tuple[int, ...]:
        """The table's actions by id, in the order of their numbers in C."""
        return t.actions if t.profile is None else self._members[t.profile]

    def profile_actions(self, name: str) -> tuple[int, ...]:
        """All actions that members of a profile may have."""
        return self._members.get(name, ())

    def _action_size(self, action: int) -> int:
        return sum((bits + 7) // 8 for _, bits in self.program.actions[action].params)

    def key(self, t: ir.Table) -> KeyLayout:
        """Where each key field is in the packed key."""
        fields, at = [], 0
        for k in t.key:
            slot = self.layout.slot(k.target.header, k.target.field)
            if slot.varbit:
                raise UnsupportedConstructError(f"varbit key '{k.name}' of '{t.name}'{t.source}")
            fields.append((k, slot, at))
            at += slot.size
        if at > MAX_KEY:
            raise UnsupportedConstructError(
                f"key of {at} bytes of table '{t.name}'{t.source}: {MAX_KEY} at most"
            )
        return KeyLayout(tuple(fields), at)

    def param_sizes(self, t: ir.Table) -> list[int]:
        """Bytes of each action's parameters; a member or group of a profile is told by its id."""
        sizes = [self._action_size(a) for a in self.actions(t)]
        return sizes if t.profile is None else [*sizes, 4, 4]

    def profile(self, p: ir.Profile) -> tuple[str, str]:
        """Declaration for one profile, and its initializer."""
        n, sizes = self._profile_no[p.name], [*map(self._action_size, self.profile_actions(p.name))]
        pre = f"static const uint32_t pp{n}[] = {{{', '.join(map(str, sizes)) or '0'}}};"
        most = max(sizes, default=0)
        return pre, f'{{"{c_text(p.name)}", {p.size}, {len(sizes)}, {most}, pp{n}}}'

    def descriptor(self, n: int, t: ir.Table) -> tuple[list[str], str]:
        """Declarations for one table, and its initializer."""
        key = self.key(t)
        rows = ", ".join(
            f"{{{at}, {s.size}, {s.bits}, {_KINDS[k.match]}}}" for k, s, at in key.fields
        )
        sizes = self.param_sizes(t)
        pre = [
            f"static const struct sn_field_desc tf{n}[] = {{{rows or '{0}'}}};",
            f"static const uint32_t tp{n}[] = {{{', '.join(map(str, sizes)) or '0'}}};",
        ]
        entries = [self._entry(t, key, e) for e in t.entries]
        pre.append(
            f"static const struct sn_const_entry te{n}[] = {{{', '.join(entries) or '{0}'}}};"
        )
        default, data = "SN_NONE", b""
        if t.default_action is not None:
            default = str(self.actions(t).index(t.default_action))
            data = self._params(t.default_action, t.default_params)
        profile = "SN_NONE" if t.profile is None else str(self._profile_no[t.profile])
        meter = 0 if t.meter is None else self._meter(t.meter, t).kind
        init = (
            f'{{"{c_text(t.name)}", tf{n}, {len(key.fields)}, {key.size}, '
            f"{max(sizes, default=0)}, {max(t.size, len(t.entries))}, tp{n}, {len(sizes)}, "
            f"{default}, {c_bytes(data)}, {int(t.with_counters)}, {int(t.support_timeout)}, "
            f"te{n}, {len(t.entries)}, {profile}, {meter}}}"
        )
        return pre, init

    def _meter(self, name: str, t: ir.Table) -> ir.DirectMeter:
        if name not in self.program.direct_meters:
            raise BadProgramError(f"table '{t.name}' without its direct meter '{name}'")
        return self.program.direct_meters[name]

    def _params(self, action: int, values: tuple[int, ...]) -> bytes:
        widths = [bits for _, bits in self.program.actions[action].params]
        return packed(list(zip(values, widths, strict=True)))

    def _entry(self, t: ir.Table, key: KeyLayout, e: ir.ConstEntry) -> str:
        widths = [s.bits for _, s, _ in key.fields]
        low = packed([(v, w) for (v, _), w in zip(e.key, widths, strict=True)])
        high = packed([(m, w) for (_, m), w in zip(e.key, widths, strict=True)])
        params = self._params(e.action, e.params)
        action = self.actions(t).index(e.action)
        return f"{{{c_bytes(low)}, {c_bytes(high)}, {c_bytes(params)}, {e.priority}, {action}}}"

    def _fill_key(self, key: KeyLayout) -> list[str]:
        words = (key.size + 7) // 8
        out = [f"uint64_t kw[{words}] = {{0}}; uint8_t *kb = (uint8_t *)kw;"]
        for k, s, at in key.fields:
            masked = f" & {mask_of(s.bits) & k.mask:#x}ull" if k.mask is not None else ""
            if s.wide:
                out.append(f"sn_copy(kb + {at}, {s.code}, {s.size});")
            elif s.size in (1, 2, 3, 4, 5, 6, 7, 8, 16):
                out.append(f"sn_st{s.size * 8}(kb + {at}, {s.code}{masked});")
            else:
                out.append(f"sn_stn(kb + {at}, {s.size}, {s.code}{masked});")
        return out

    def _pick(self, profile: str) -> list[str]:
        n = self._profile_no[profile]
        selector = self.program.profiles[n].selector
        if selector is None:
            return self.probes.pick(n, f"sn_profile_pick(c, {n}, r, 0)")
        lines, result = self.primitives.calculations.of(selector)
        return ["{", *lines, *self.probes.pick(n, f"sn_profile_pick(c, {n}, r, {result})"), "}"]

    # ---- pipelines

    def pipeline(self, p: ir.Pipeline, first: int, ahead: Ahead = NOTHING) -> list[str]:
        """A pipeline as a function; its tables are numbered from `first`."""
        go_on = [f"    case {number}: {_go(name)}" for name, number in ahead.stops.items()]
        if go_on:
            go_on = ["    switch (c->resume) {", *go_on, f"    case {ahead.end}: return;"]
            go_on += ["    default: break;", "    }"]
        return [
            f"static void {p.name}(struct sn_ctx *c) {{",
            "    struct phv *p = c->phv;",
            "    (void)p;",
            *go_on,
            f"    {_go(p.init)}",
            *_labelled(self._nodes(p, first)),
            "}",
        ]

    def ahead(self, ahead: Ahead) -> tuple[list[str], str]:
        """The function `ahead` of ingress (runtime/softnic.h) and its name, or 0."""
        if not ahead.stops:
            return [], "0"
        p = self.program.ingress
        nodes = self._nodes(p, 0, ahead)
        return [
            "static void ahead(struct sn_ctx *c) {",
            "    struct phv *p = c->phv;",
            "    (void)p;",
            f"    {_go(p.init)}",
            *_labelled({name: nodes[name] for name in ahead.stops}),
            f"end: c->resume = {ahead.end};",
            "}",
        ], "ahead"

    def _nodes(self, p: ir.Pipeline, first: int, ahead: Ahead = NOTHING) -> dict[str, list[str]]:
        """The statements of each table, condition and call; of `ahead`, as far as it runs."""
        leave = "goto end;" if ahead.stops else "return;"
        nodes: dict[str, list[str]] = {}
        for i, t in enumerate(p.tables):
            nodes[t.name] = self._table_node(first + i, t, leave, ahead)
        for c in p.conditionals:
            nodes[c.name] = [
                f"int yes = {self.x.boolean(c.expression)};",
                *self.probes.conditional(c),
                f"if (yes) {_go(c.true_next, leave)}",
                _go(c.false_next, leave),
            ]
        for call in p.calls:
            nodes[call.name] = [
                f"act{call.action}(c, 0);",
                *(["if (c->exit) return;"] if call.action in self._exits else []),
                _go(call.next, leave),
            ]
        for name in ahead.stops:
            if name not in ahead.runs and not any(t.name == name for t in p.tables):
                nodes[name] = [_stop(ahead, name)]
        return nodes

    def _table_node(self, n: int, t: ir.Table, leave: str, ahead: Ahead) -> list[str]:
        key = self.key(t)
        fill = self._fill_key(key) if key.fields else []
        if t.name in ahead.stops and t.name not in ahead.runs:
            foreseen = [*fill, f"sn_table_ahead(c, {n}, kw);"] if looked_up(t) else []
            return [*foreseen, _stop(ahead, t.name)]
        if not t.key and t.default_const and t.default_action is not None:
            data = self._params(t.default_action, t.default_params)
            out = [f"act{t.default_action}(c, {c_bytes(data)});"]
            out += ["if (c->exit) return;"] if t.default_action in self._exits else []
            name = self.program.actions[t.default_action].name
            following = t.next.get("__MISS__", t.next.get(name, t.base_next))
            return [*out, _go(following, leave)]
        words = "kw" if key.fields else "0"
        out = [*fill, f"struct sn_result r = {self.probes.apply}(c, {n}, {words});"]
        if t.meter is not None:
            target = self._meter(t.meter, t).target
            slot = self.layout.slot(target.header, target.field)
            out.append(f"if (r.metered) {{ {store(slot, exact('(uint64_t)c->color', 0, 2))} }}")
        if t.profile is not None:
            out += self._pick(t.profile)
        return [*out, *self._branches(t, leave)]

    def _branches(self, t: ir.Table, leave: str) -> list[str]:
        by_hit = "__HIT__" in t.next or "__MISS__" in t.next
        out = ["switch (r.action) {"]
        for i, a in enumerate(self.actions(t)):
            exits = " if (c->exit) return;" if a in self._exits else ""
            name = self.program.actions[a].name
            go = "break;" if by_hit else _go(t.next.get(name, t.base_next), leave)
            out.append(f"case {i}: act{a}(c, r.params);{exits} {go}")
        out += ["default: break;", "}"]
        if by_hit:
            out.append(f"if (r.hit) {_go(t.next.get('__HIT__', t.base_next), leave)}")
            out.append(_go(t.next.get("__MISS__", t.base_next), leave))
        else:
            out.append(_go(t.base_next, leave))
        return out


def _labelled(nodes: Mapping[str, list[str]]) -> list[str]:
    out = []
    for name, lines in nodes.items():
        out.append(f"{_label(name)}: {{ /* {c_name(name)} */")
        out += [f"    {line}" for line in lines]
        out.append("}")
    return out


def _stop(ahead: Ahead, name: str) -> str:
    return f"c->resume = {ahead.stops[name]}; return;"


def c_text(name: str) -> str:
    """A name within a C string."""
    plain = (
        chr(b) if 32 <= b < 127 and chr(b) not in '\\"?' else f"\\{b:03o}" for b in name.encode()
    )
    return "".join(plain)


def _label(name: str) -> str:
    return "n_" + "".join(ch if ch.isalnum() and ch.isascii() else f"_{ord(ch):x}_" for ch in name)


def _go(name: str | None, leave: str = "return;") -> str:
    return leave if name is None else f"goto {_label(name)};"
