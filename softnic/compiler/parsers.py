"""The parser as one C function: a label for each state, bounded where states form a loop."""

from __future__ import annotations

from softnic.compiler import ir
from softnic.compiler.expressions import Expressions, const, load_bits
from softnic.compiler.layout import Layout, Slot, c_name
from softnic.compiler.primitives import Primitives
from softnic.compiler.probes import Probes
from softnic.dataplane import UnsupportedConstructError

LOOP_LIMIT = 512
"""States that a packet may pass; a parser with loops ends there with ParserTimeout."""

_CORE_ERRORS = {
    "NoError": 0,
    "PacketTooShort": 1,
    "NoMatch": 2,
    "StackOutOfBounds": 3,
    "HeaderTooShort": 4,
    "ParserTimeout": 5,
    "ParserInvalidArgument": 6,
}


class ParserWriter:
    """Writes the parser of a program."""

    def __init__(self, layout: Layout, primitives: Primitives, probes: Probes) -> None:
        self.layout = layout
        self.program = layout.program
        self.primitives = primitives
        self.probes = probes
        self.x = Expressions(layout, lookahead=True)
        self._ids = {h.name: h.id for h in self.program.headers.values()}
        self._states = {s.name: i for i, s in enumerate(self.program.parser.states)}
        self._vset_no = {name: i for i, name in enumerate(self.program.value_sets)}
        self.value_sets: dict[str, tuple[int, ...]] = dict.fromkeys(self.program.value_sets, ())
        """Widths of each value set's fields, known once `write` has been called."""

    def write(self, verify: list[str]) -> list[str]:
        """The function `parse`; `verify`: statements at the end (checksums)."""
        out = [
            "static void parse(struct sn_ctx *c) {",
            "    struct phv *p = c->phv;",
            "    const uint8_t *d = c->data;",
            f"    uint32_t off = 0, len = c->len, error = 0, states = {LOOP_LIMIT};",
            "    (void)p; (void)d; (void)states;",
            f"    goto st{self._states[self.program.parser.start]};",
        ]
        for s in self.program.parser.states:
            out.append(f"st{self._states[s.name]}: /* {c_name(s.name)} */")
            out += [f"    {line}" for line in self._state(s)]
        out += [
            "done:",
            "    c->parsed = off > len ? len : off;",
            "    c->std.parser_error = error;",
            *(f"    {line}" for line in [*self.probes.parsed(), *verify]),
            "}",
        ]
        return out

    def _error(self, name: str) -> str:
        return f"{{ error = {self.program.errors.get(name, _CORE_ERRORS[name])}; goto done; }}"

    def _state(self, s: ir.ParseState) -> list[str]:
        out = [
            f"if (SN_UNLIKELY(!states--)) {{ sn_note(c, SN_EV_LOOP); "
            f"{self._error('ParserTimeout')} }}",
            *self.probes.state(self._states[s.name]),
        ]
        where = f"parser state '{s.name}'"
        for op in s.ops:
            try:
                out += self._op(op, where)
            except UnsupportedConstructError as e:
                if where in str(e):
                    raise
                raise UnsupportedConstructError(f"{e}, in {where}{op.source}") from None
        try:
            return [*out, *self._transitions(s)]
        except UnsupportedConstructError as e:
            raise UnsupportedConstructError(f"{e}, in {where}") from None

    # ---- operations

    def _op(self, op: ir.Primitive, where: str) -> list[str]:
        match op.op:
            case "extract":
                return self._extract(op.params[0], None)
            case "extract_VL":
                return self._extract(op.params[0], op.params[1])
            case "verify":
                bad = self.x.number(op.params[1]).code
                return [
                    f"if (!{self.x.boolean(op.params[0])}) "
                    f"{{ error = (uint32_t){bad}; goto done; }}"
                ]
            case "shift":
                return self._advance(f"{self.x.number(op.params[0]).code} * 8")
            case "advance":
                return self._advance(self.x.number(op.params[0]).cast("uint64_t"))
            case "set":
                return [*self._lookahead_checks(op), *self.primitives.write(op, self.x, where)]
        return self.primitives.write(op, self.x, where)

    def _lookahead_checks(self, op: ir.Primitive) -> list[str]:
        need = max((_ahead(p) for p in op.params), default=0)
        return [self._need(need)] if need else []

    def _need(self, n: int) -> str:
        return f"if (SN_UNLIKELY(len - off < {n}u)) {self._error('PacketTooShort')}"

    def _advance(self, bits: str) -> list[str]:
        return [
            "{",
            f"    uint64_t bits_ = {bits};",
            f"    if (bits_ % 8) {self._error('ParserInvalidArgument')}",
            f"    if (bits_ / 8 > len - off) {self._error('PacketTooShort')}",
            "    off += (uint32_t)(bits_ / 8);",
            "}",
        ]

    def _extract(self, target: ir.Expr, length: ir.Expr | None) -> list[str]:
        match target:
            case ir.Named("regular" | "header", name):
                code, kind = self.layout.header(name), self.layout.header_type(name)
                n = self._ids[name]
                note = [
                    f"if (off == 0) c->first_header = {n};",
                    f"if (SN_UNLIKELY(off == c->l4_start)) c->l4_header = {n};",
                ]
                others = [f"{s}.valid = 0;" for s in self.layout.siblings(name)]
                return [*note, *self._load(code, kind, length), *others]
            case ir.Named("stack" | "header_stack", name):
                kind = self.program.stacks[name].type
                s = self.layout.stack(name)
                return self._to_stack(name, self._load(f"{s}.e[{s}.next]", kind, length))
            case ir.Vector((ir.Named("union_stack", name), ir.Named("member", member))):
                m, kind = self.layout.union_member(name, member)
                s = self.layout.stack(name)
                return self._to_stack(name, self._load(f"{s}.e[{s}.next].m{m}", kind, length))
        raise UnsupportedConstructError("extract to such a target")

    def _to_stack(self, name: str, load: list[str]) -> list[str]:
        s, size = self.layout.stack(name), self.layout.stack_size(name)
        full = self._error("StackOutOfBounds")
        return [f"if ({s}.next >= {size}) {full}", *load, f"{s}.next++;"]

    def _load(self, code: str, kind: ir.HeaderType, length: ir.Expr | None) -> list[str]:
        slots = self.layout.slots(code, kind)
        var = next((i for i, s in enumerate(slots) if s.varbit), None)
        fixed = kind.fixed_bits // 8
        if kind.fixed_bits % 8:
            raise UnsupportedConstructError(
                f"header '{kind.name}', which isn't a whole number of bytes"
            )
        if var is None or length is None:
            used = slots if var is None else slots[:var] + slots[var + 1 :]
            loads = self._load_fixed(used, 0)
            empty = [f"{slots[var].code}_n = 0;"] if var is not None else []
            return [self._need(fixed), *loads, *empty, f"{code}.valid = 1;", f"off += {fixed};"]
        v = slots[var]
        ahead = sum(s.bits for s in slots[:var])
        if ahead % 8:
            raise UnsupportedConstructError(f"varbit field of '{kind.name}' within a byte")
        n = self.x.number(length).cast("uint64_t")
        return [
            "{",
            f"    uint64_t bits_ = {n};",
            f"    if (bits_ % 8) {self._error('ParserInvalidArgument')}",
            f"    if (len - off < {fixed}ull + bits_ / 8) {self._error('PacketTooShort')}",
            f"    if (bits_ > {v.bits}) {self._error('HeaderTooShort')}",
            "    uint32_t var_ = (uint32_t)(bits_ / 8);",
            *(f"    {line}" for line in self._load_fixed(slots[:var], 0)),
            f"    sn_copy({v.code}, d + off + {ahead // 8}, var_);",
            f"    {v.code}_n = (uint32_t)bits_;",
            "    off += var_;",
            *(f"    {line}" for line in self._load_fixed(slots[var + 1 :], ahead)),
            f"    {code}.valid = 1;",
            f"    off += {fixed};",
            "}",
        ]

    @staticmethod
    def _load_fixed(slots: list[Slot], start: int) -> list[str]:
        out, at = [], start
        for s in slots:
            if not s.wide:
                out.append(f"{s.code} = ({s.ctype}){load_bits('d + off', at, s.bits)};")
            elif at % 8 == 0 and s.bits % 8 == 0:
                out.append(f"sn_copy({s.code}, d + off + {at // 8}, {s.size});")
            else:
                out.append(f"sn_get_wide({s.code}, d + off, {at}, {s.bits});")
            at += s.bits
        return out

    # ---- transitions

    def _transitions(self, s: ir.ParseState) -> list[str]:
        out: list[str] = []
        widths = [self._width(k) for k in s.key]
        need = max((_ahead(k) for k in s.key), default=0)
        if need:
            out.append(self._need(need))
        out.append("{")
        for i, k in enumerate(s.key):
            v = self.x.number(k)
            if widths[i] > 128:
                raise UnsupportedConstructError(f"select on {widths[i]} bits")
            out.append(f"    {'uint64_t' if widths[i] <= 64 else 'sn_u128'} k{i} = {v.code};")
        for t in s.transitions:
            go = "goto done;" if t.next is None else f"goto st{self._states[t.next]};"
            if t.vset is not None:
                out += [f"    {line}" for line in self._vset(t, t.vset, widths, go)]
                continue
            if t.value is None:
                out.append(f"    {go}")
                break
            out.append(f"    if ({_matches(t, widths)}) {go}")
        else:
            out.append("    goto done;")  # as bmv2: no match ends the parser, without an error
        return [*out, "}"]

    def _vset(self, t: ir.Transition, name: str, widths: list[int], go: str) -> list[str]:
        known = self.value_sets[name]
        if t.mask is not None or known not in ((), tuple(widths)):
            raise UnsupportedConstructError(f"value set '{name}' with a mask or for other fields")
        self.value_sets[name] = tuple(widths)
        sizes = [(w + 7) // 8 for w in widths]
        puts, at = [], 0
        for i, n in enumerate(sizes):
            puts.append(f"sn_stn(key_ + {at}, {n}, k{i});")
            at += n
        return [
            f"{{ uint8_t key_[{at}]; {' '.join(puts)}",
            f"  if (sn_vset_has(c, {self._vset_no[name]}, key_)) {go} }}",
        ]

    def _width(self, k: ir.Expr) -> int:
        if isinstance(k, ir.Lookahead):
            return k.bits
        slot = self.x.slot(k)
        if slot is None:
            raise UnsupportedConstructError("select on a computed value")
        return slot.bits


def _matches(t: ir.Transition, widths: list[int]) -> str:
    assert t.value is not None
    total = sum((w + 7) // 8 for w in widths) * 8
    parts = []
    for i, w in enumerate(widths):
        total -= (w + 7) // 8 * 8
        ones = (1 << w) - 1
        value = t.value >> total & ones
        mask = ones if t.mask is None else t.mask >> total & ones
        if mask == ones:
            parts.append(f"k{i} == {const(value).code}")
        elif mask:
            parts.append(f"(k{i} & {const(mask).code}) == {const(value & mask).code}")
    return " && ".join(parts) or "1"


def _ahead(e: ir.Expr) -> int:
    """Bytes that the expression looks ahead."""
    match e:
        case ir.Lookahead(offset, bits):
            return (offset + bits + 7) // 8
        case ir.Op(_, left, right, cond):
            return max(_ahead(x) for x in (left, right, cond) if x is not None)
    return 0
