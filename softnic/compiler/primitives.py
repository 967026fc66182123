"""The steps of actions (and of parser states) as C statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from softnic.compiler import ir
from softnic.compiler.calculations import Calculations
from softnic.compiler.expressions import (
    Expressions,
    Val,
    byte_literal,
    const,
    describe,
    exact,
    mask_of,
)
from softnic.compiler.layout import Layout, Slot
from softnic.compiler.probes import Probes
from softnic.dataplane import UnsupportedConstructError

Statement = list[str]


def store(slot: Slot, value: Val) -> str:
    """`slot` = `value`, cut to the field's width."""
    if slot.varbit:
        raise UnsupportedConstructError("arithmetic on a varbit field")
    if slot.wide and value.low >= 0 and value.high < 1 << 128 and not value.modular:
        return f"sn_stn({slot.code}, {slot.size}, {value.cast('sn_u128')});"
    if slot.wide:
        return f"sn_w_st({slot.code}, {slot.size}, {slot.bits}, {value.cast('sn_wide')});"
    inside = value.low >= 0 and value.high <= mask_of(slot.bits) and not value.modular
    whole = slot.bits in (8, 16, 32, 64, 128) and _stored_bits(slot) == slot.bits
    if inside or whole:
        return f"{slot.code} = {value.cast(slot.ctype)};"
    wide = "uint64_t" if slot.bits <= 64 else "sn_u128"
    return f"{slot.code} = ({slot.ctype})({value.cast(wide)} & {const(mask_of(slot.bits)).code});"


def _stored_bits(slot: Slot) -> int:
    # Standard metadata is kept in words that are wider than the program's fields.
    return 0 if "->std." in slot.code else slot.bits


class Primitives:
    """Writes one step at a time; `program` wide tables of what exists are shared."""

    def __init__(self, layout: Layout, calculations: Calculations, probes: Probes) -> None:
        self.layout = layout
        self.calculations = calculations
        self.probes = probes
        self._registers = {r.name: i for i, r in enumerate(layout.program.registers)}
        self._counters = {c.name: i for i, c in enumerate(layout.program.counters)}
        self._meters = {m.name: i for i, m in enumerate(layout.program.meters)}
        self.messages: list[str] = []
        """What the program can say, by number; arguments go where `{}` stands."""
        self._table: Mapping[str, Callable[[ir.Primitive, Expressions], Statement]] = {
            "assign": self._assign,
            "modify_field": self._assign,
            "set": self._assign,
            "assign_VL": self._assign_varbit,
            "assign_header": self._assign_header,
            "copy_header": self._assign_header,
            "assign_header_stack": self._assign_stack,
            "assign_union_stack": self._assign_stack,
            "assign_union": self._assign_union,
            "add_header": self._add_header,
            "remove_header": self._remove_header,
            "push": self._push,
            "pop": self._pop,
            "mark_to_drop": self._drop,
            "drop": self._drop,
            "exit": lambda _p, _x: ["c->exit = 1;"],
            "no_op": lambda _p, _x: [],
            "assert": self._assert,
            "assume": self._assert,
            "log_msg": self._log,
            "clone_ingress_pkt_to_egress": self._clone,
            "clone_egress_pkt_to_egress": self._clone,
            "resubmit": lambda p, x: [f"c->resubmit_list = {self._u32(p, 0, x)};"],
            "recirculate": lambda p, x: [f"c->recirculate_list = {self._u32(p, 0, x)};"],
            "generate_digest": lambda p, x: [f"c->digest_list = {self._u32(p, 1, x)};"],
            "truncate": self._truncate,
            "count": self._count,
            "execute_meter": self._meter,
            "register_read": self._register_read,
            "register_write": self._register_write,
            "modify_field_rng_uniform": self._random,
            "modify_field_with_hash_based_offset": self._hash,
        }

    def write(self, p: ir.Primitive, x: Expressions, where: str) -> Statement:
        """The statements for one step. Raises `UnsupportedConstructError`, naming `where`."""
        step = self._table.get(p.op)
        if step is None:
            raise UnsupportedConstructError(f"extern or primitive '{p.op}' in {where}{p.source}")
        try:
            return [*self.probes.step(p, x), *step(p, x)]
        except UnsupportedConstructError as e:
            raise UnsupportedConstructError(f"{e}, in {where}{p.source}") from None

    # ---- values

    @staticmethod
    def _u32(p: ir.Primitive, i: int, x: Expressions) -> str:
        return f"(uint32_t){x.number(p.params[i]).code}"

    def _target(self, e: ir.Expr, x: Expressions) -> Slot:
        slot = x.slot(e)
        if slot is None:
            raise UnsupportedConstructError(f"assignment to {describe(e)}")
        return slot

    def _assign(self, p: ir.Primitive, x: Expressions) -> Statement:
        to, value = self._target(p.params[0], x), p.params[1]
        source = x.slot(value)
        if to.wide and source is not None and source.wide:
            if to.varbit or source.varbit or to.size != source.size:
                raise UnsupportedConstructError("assignment between fields of different length")
            return [f"sn_copy({to.code}, {source.code}, {to.size});"]
        if to.wide and isinstance(value, ir.Const):
            return [f"sn_copy({to.code}, {byte_literal(value.value, to.size)}, {to.size});"]
        if to.wide and isinstance(value, ir.Lookahead) and value.bits == to.bits:
            return [f"sn_get_wide({to.code}, d + off, {value.offset}, {value.bits});"]
        return [store(to, x.number(value, to.bits))]

    def _assign_varbit(self, p: ir.Primitive, x: Expressions) -> Statement:
        to, source = self._target(p.params[0], x), self._target(p.params[1], x)
        if not (to.varbit and source.varbit and source.size <= to.size):
            raise UnsupportedConstructError("assignment between varbit fields of different length")
        return [
            f"sn_copy({to.code}, {source.code}, {source.size});",
            f"{to.code}_n = {source.code}_n;",
        ]

    # ---- headers

    def _assign_header(self, p: ir.Primitive, x: Expressions) -> Statement:
        (to, kind), (source, other) = x.header(p.params[0]), x.header(p.params[1])
        if kind.name == other.name:
            out = [f"    {to} = {source};"]
        else:
            out = [f"    {to}.valid = 1;"]
            for a, b in zip(
                self.layout.slots(to, kind), self.layout.slots(source, other), strict=True
            ):
                if a.bits != b.bits or a.varbit != b.varbit:
                    raise UnsupportedConstructError("assignment between different headers")
                out.append(f"__builtin_memcpy(&{a.code}, &{b.code}, sizeof {a.code});")
                out += [f"{a.code}_n = {b.code}_n;"] if a.varbit else []
        # The values of a header that becomes invalid stay, as in bmv2.
        others = self._others(p.params[0])
        return [
            f"if ({source}.valid) {{",
            *out,
            f"    {others}",
            f"}} else {{ {to}.valid = 0; }}",
        ]

    def _others(self, e: ir.Expr) -> str:
        match e:
            case ir.Named("header" | "regular", name):
                return " ".join(f"{s}.valid = 0;" for s in self.layout.siblings(name))
        return ""

    def _assign_stack(self, p: ir.Primitive, x: Expressions) -> Statement:
        del x
        match p.params:
            case (ir.Named(_, to), ir.Named(_, source)):
                a, b = self.layout.stack(to), self.layout.stack(source)
                return [
                    f'_Static_assert(sizeof {a} == sizeof {b}, "stacks of one type");',
                    f"__builtin_memcpy(&{a}, &{b}, sizeof {a});",
                ]
        raise UnsupportedConstructError("assignment of a computed header stack")

    def _assign_union(self, p: ir.Primitive, x: Expressions) -> Statement:
        del x
        match p.params:
            case (ir.Named(_, to), ir.Named(_, source)):
                unions = self.layout.program.unions
                pairs = zip(unions[to].headers, unions[source].headers, strict=True)
                moves = ((self.layout.header(a), self.layout.header(b)) for a, b in pairs)
                return [f"if ({b}.valid) {a} = {b}; else {a}.valid = 0;" for a, b in moves]
        raise UnsupportedConstructError("assignment of a computed header union")

    def _header_size(self, code: str, kind: ir.HeaderType) -> str:
        fixed = kind.fixed_bits // 8
        var = next((s for s in self.layout.slots(code, kind) if s.varbit), None)
        return f"{fixed}u + {var.code}_n / 8" if var else f"{fixed}u"

    def _add_header(self, p: ir.Primitive, x: Expressions) -> Statement:
        code, kind = x.header(p.params[0])
        return [
            f"if (!{code}.valid) {{",
            f"    sn_zero(&{code}, sizeof {code});",
            f"    {code}.valid = 1; {self._others(p.params[0])}",
            f"    c->pkt_len += {self._header_size(code, kind)};",
            "}",
        ]

    def _remove_header(self, p: ir.Primitive, x: Expressions) -> Statement:
        code, kind = x.header(p.params[0])
        size = self._header_size(code, kind)
        return [f"if ({code}.valid) {{ c->pkt_len -= {size}; {code}.valid = 0; }}"]

    def _shift_by(self, p: ir.Primitive) -> tuple[str, int, int]:
        match p.params:
            case (ir.Named(_, name), ir.Const(count)):
                size = self.layout.stack_size(name)
                return self.layout.stack(name), size, min(count, size)
        raise UnsupportedConstructError(f"'{p.op}' on a computed stack or by a variable")

    def _push(self, p: ir.Primitive, x: Expressions) -> Statement:
        del x
        s, size, n = self._shift_by(p)
        return [
            f"__builtin_memmove(&{s}.e[{n}], &{s}.e[0], sizeof {s}.e[0] * {size - n});",
            f"sn_zero(&{s}.e[0], sizeof {s}.e[0] * {n});",
            f"{s}.next = {s}.next + {n} > {size} ? {size} : {s}.next + {n};",
        ]

    def _pop(self, p: ir.Primitive, x: Expressions) -> Statement:
        del x
        s, size, n = self._shift_by(p)
        return [
            f"__builtin_memmove(&{s}.e[0], &{s}.e[{n}], sizeof {s}.e[0] * {size - n});",
            f"sn_zero(&{s}.e[{size - n}], sizeof {s}.e[0] * {n});",
            f"{s}.next = {s}.next > {n} ? {s}.next - {n} : 0;",
        ]

    # ---- the packet's fate

    def _drop(self, p: ir.Primitive, x: Expressions) -> Statement:
        if not p.params:
            return ["c->std.egress_spec = c->drop_port; c->std.mcast_grp = 0;"]
        # The argument may be a control's own copy of standard metadata, written back at its end.
        match p.params[0]:
            case ir.Named("header", name):
                kind = self.layout.header_type(name)
            case other:
                raise UnsupportedConstructError(f"dropping with {describe(other)}")
        drop = exact("(uint64_t)c->drop_port", 0, mask_of(9))
        fate = {"egress_spec": drop, "mcast_grp": const(0)}
        declared = {field.name for field in kind.fields}
        return [
            store(self.layout.slot(name, field), value)
            for field, value in fate.items()
            if field in declared
        ]

    def _clone(self, p: ir.Primitive, x: Expressions) -> Statement:
        kept = self._u32(p, 1, x) if len(p.params) > 1 else "0"
        return [
            f"c->clone_session = {self._u32(p, 0, x)} & 0x7fff;",
            f"c->clone_list = {kept};",
        ]

    def _truncate(self, p: ir.Primitive, x: Expressions) -> Statement:
        n = self._u32(p, 0, x)
        return [f"if ({n} < c->trunc) c->trunc = {n};"]

    # ---- externs

    def _object(self, e: ir.Expr, kind: str, known: Mapping[str, int]) -> int:
        match e:
            case ir.Named(k, name) if k == kind and name in known:
                return known[name]
        raise UnsupportedConstructError(f"{kind} {describe(e)}")

    def _count(self, p: ir.Primitive, x: Expressions) -> Statement:
        n = self._object(p.params[0], "counter_array", self._counters)
        return [f"sn_count(c, {n}, {x.number(p.params[1]).cast('uint64_t')});"]

    def _cell(self, e: ir.Expr, index: ir.Expr, x: Expressions) -> tuple[str, Slot]:
        n = self._object(e, "register_array", self._registers)
        bits = self.layout.program.registers[n].bits
        kind, fn = ("uint64_t", "64") if bits <= 64 else ("sn_u128", "128")
        if bits > 128:
            kind, fn = "uint8_t", "_wide"
        at = x.number(index).cast("uint64_t")
        slot = Slot("cell" if bits > 128 else "*cell", bits)
        return f"{kind} *cell = sn_register{fn}(c, {n}, {at}); if (cell)", slot

    def _register_read(self, p: ir.Primitive, x: Expressions) -> Statement:
        to = self._target(p.params[0], x)
        open_, cell = self._cell(p.params[1], p.params[2], x)
        return [f"{{ {open_} {store(to, x.read(cell, to.bits))} }}"]

    def _register_write(self, p: ir.Primitive, x: Expressions) -> Statement:
        open_, cell = self._cell(p.params[0], p.params[1], x)
        value = x.number(p.params[2], cell.bits)
        if not cell.wide:
            # A cell is a whole word or two, whatever its width.
            t = "uint64_t" if cell.bits <= 64 else "sn_u128"
            cut = f"{value.cast(t)} & {const(mask_of(cell.bits)).code}"
            return [f"{{ {open_} *cell = {cut}; }}"]
        return [f"{{ {open_} {store(cell, value)} }}"]

    def _random(self, p: ir.Primitive, x: Expressions) -> Statement:
        to = self._target(p.params[0], x)
        low, high = (x.number(e).cast("uint64_t") for e in p.params[1:3])
        draw = store(to, exact(f"sn_random(c, {low}, {high})", 0, mask_of(64)))
        return [f"if ({low} <= {high}) {{ {draw} }}"]  # else bmv2 leaves the field as it is

    def _hash(self, p: ir.Primitive, x: Expressions) -> Statement:
        to = self._target(p.params[0], x)
        calc = p.params[2]
        if not isinstance(calc, ir.Named):
            raise UnsupportedConstructError(f"hash {describe(calc)}")
        base, size = x.number(p.params[1]).cast("uint64_t"), x.number(p.params[3])
        lines, result = self.calculations.write(calc.name)
        return [
            "{",
            *(f"    {line}" for line in lines),
            # As bmv2: the limit is taken in 64 bits, and 0 is as 1.
            f"    uint64_t max_ = {size.cast('uint64_t')}, hash_ = {result};",
            f"    hash_ = {base} + (max_ ? hash_ % max_ : 0);",
            f"    {store(to, exact('hash_', 0, mask_of(64)))}",
            "}",
        ]

    def _meter(self, p: ir.Primitive, x: Expressions) -> Statement:
        n = self._object(p.params[0], "meter_array", self._meters)
        to = self._target(p.params[2], x)
        old = x.read(to).cast("uint32_t") if to.bits <= 32 else "0"
        run = f"sn_meter(c, {n}, {x.number(p.params[1]).cast('uint64_t')}, {old})"
        return [store(to, exact(f"(uint64_t){run}", 0, mask_of(32)))]

    # ---- messages

    def _message(self, text: str) -> int:
        if text not in self.messages:
            self.messages.append(text)
        return self.messages.index(text)

    def _log(self, p: ir.Primitive, x: Expressions) -> Statement:
        match p.params:
            case (ir.Text(text), *rest):
                values = [v for r in rest if isinstance(r, ir.Vector) for v in r.items]
            case _:
                raise UnsupportedConstructError("log_msg without a text")
        n = self._message(text)
        args = ", ".join(x.number(v, 128).cast("sn_u128") for v in values)
        data = f"(const sn_u128[]){{{args}}}" if values else "0"
        return ["sn_note(c, SN_EV_LOG);", f"sn_say(c, {n}, {data}, {len(values)});"]

    def _assert(self, p: ir.Primitive, x: Expressions) -> Statement:
        n = self._message(f"{p.op} failed{p.source}")
        bad = f"{{ sn_note(c, SN_EV_ASSERT); sn_say(c, {n}, 0, 0); }}"
        return [f"if (!{x.boolean(p.params[0])}) {bad}"]
