"""Expressions as C, exact as bmv2's arithmetic without end: each value carries its range, from
which the C type follows: 64 or 128 bits, signed or not, or words as many as the program's widest
field needs (runtime/wide.h). Where only the low bits of a value are asked for (`need`), sums,
products and the like are computed modulo a power of two that covers those: `modular`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.compiler.jsonread import BadProgramError
from softnic.compiler.layout import Layout, Slot
from softnic.dataplane import UnsupportedConstructError

_U64, _U128 = 1 << 64, 1 << 128
_WIDE = "sn_wide"
_COMPARE = {"==", "!=", "<", "<=", ">", ">="}
_LOGIC = {"and": "&&", "or": "||"}
_BOOL_OPS = _COMPARE | set(_LOGIC) | {"not", "d2b", "valid", "valid_union"}
_WIDE_OPS = {
    "+": "sn_w_add",
    "-": "sn_w_sub",
    "*": "sn_w_mul",
    "&": "sn_w_and",
    "|": "sn_w_or",
    "^": "sn_w_xor",
}


@dataclass(frozen=True, slots=True)
class Val:
    """A number in C: between `low` and `high`; `modular`: only its low bits are right."""

    code: str
    low: int
    high: int
    ctype: str
    modular: bool = False

    def cast(self, ctype: str) -> str:
        """The value in another C type."""
        if ctype == self.ctype:
            return self.code
        if ctype == _WIDE:
            signed = self.ctype in ("int64_t", "sn_i128")
            return f"sn_w_i128({self.code})" if signed else f"sn_w_u128({self.code})"
        code = f"sn_w_low({self.code})" if self.ctype == _WIDE else self.code
        return f"(({ctype}){code})"


def type_for(low: int, high: int) -> str:
    """The C type for a range."""
    if low >= 0:
        return "uint64_t" if high < _U64 else "sn_u128" if high < _U128 else _WIDE
    if low >= -(1 << 63) and high < 1 << 63:
        return "int64_t"
    return "sn_i128" if low >= -(1 << 127) and high < 1 << 127 else _WIDE


def exact(code: str, low: int, high: int) -> Val:
    """A value whose code has the C type of its range."""
    return Val(code, low, high, type_for(low, high))


def const(value: int) -> Val:
    """A literal."""
    if -(1 << 63) < value < 0:
        return exact(f"(-{-value:#x}ll)", value, value)
    if 0 <= value < _U64:
        return exact(f"{value:#x}ull", value, value)
    ctype = type_for(value, value)
    if ctype != _WIDE:
        v = value % _U128
        code = f"(({ctype})((sn_u128){v >> 64:#x}ull << 64 | {v % _U64:#x}ull))"
        return Val(code, value, value, ctype)
    size = (value.bit_length() + 8) // 8
    loaded = f"sn_w_ld({byte_literal(value, size)}, {size})"
    return Val(loaded if value >= 0 else f"sn_w_sext({loaded}, {8 * size})", value, value, _WIDE)


def mask_of(bits: int) -> int:
    """`bits` ones."""
    return (1 << bits) - 1


class Expressions:
    """Writes expressions that stand in one place: an action (with its parameters), or elsewhere."""

    def __init__(
        self, layout: Layout, params: Sequence[Slot] = (), *, lookahead: bool = False
    ) -> None:
        self.layout = layout
        self._params = params
        self._lookahead = lookahead

    # ---- places

    def header(self, e: ir.Expr) -> tuple[str, ir.HeaderType]:
        """The struct and type of a header that an expression denotes."""
        match e:
            case ir.Named("header" | "regular", name):
                return self.layout.header(name), self.layout.header_type(name)
            case ir.Op("dereference_header_stack", ir.Named(_, name), right):
                stack = self.layout.program.stacks[name]
                return f"{self.layout.stack(name)}.e[{self._index(name, right)}]", stack.type
            case ir.StackField(name, "last"):
                return self.last(name), self.layout.program.stacks[name].type
            case ir.Op("access_union_header", left, ir.Const(member)) if left is not None:
                stack_name, code = self._union(left)
                us = self.layout.program.union_stacks[stack_name]
                kind = self.layout.union_member(stack_name, us.members[member])[1]
                return f"{code}.m{member}", kind
        raise UnsupportedConstructError(f"header expression {describe(e)}")

    def _union(self, e: ir.Expr) -> tuple[str, str]:
        match e:
            case ir.Op("dereference_union_stack", ir.Named(_, name), right):
                return name, f"{self.layout.stack(name)}.e[{self._index(name, right)}]"
        raise UnsupportedConstructError(f"header union expression {describe(e)}")

    def _index(self, stack: str, e: ir.Expr) -> str:
        size = self.layout.stack_size(stack)
        return f"sn_idx(c, {self.number(e).cast('uint64_t')}, {size})"

    def last(self, stack: str) -> str:
        """The element of a stack that was extracted last."""
        s, size = self.layout.stack(stack), self.layout.stack_size(stack)
        return f"{s}.e[sn_idx(c, (uint64_t){s}.next - 1, {size})]"

    def slot(self, e: ir.Expr) -> Slot | None:
        """The field that an expression denotes, or None where it is a computed value."""
        match e:
            case ir.FieldRef(header, field):
                return self.layout.slot(header, field)
            case ir.StackField(stack, field):
                kind = self.layout.program.stacks[stack].type
                return self.layout.member(self.last(stack), kind, field)
            case ir.UnionStackField(stack, member, field):
                m, kind = self.layout.union_member(stack, member)
                return self.layout.member(f"{self.last(stack)}.m{m}", kind, field)
            case ir.Op("access_field", left, ir.Const(index)) if left is not None:
                code, kind = self.header(left)
                return self.layout.member(code, kind, kind.fields[index].name)
            case ir.Local(index):
                return self._params[index]
        return None

    # ---- numbers

    def number(self, e: ir.Expr, need: int | None = None) -> Val:
        """A value; of `need` bits only the low ones where more don't matter."""
        slot = self.slot(e)
        if slot is not None:
            return self.read(slot, need)
        match e:
            case ir.Const(value):
                return const(value)
            case ir.Bool(value):
                return const(int(value))
            case ir.Lookahead(offset, bits):
                return self._ahead(offset, bits)
            case ir.Op(op, _, _, _) if op in _BOOL_OPS:
                return exact(f"(uint64_t){self.boolean(e)}", 0, 1)
            case ir.Op():
                return self._operation(e, need)
        raise UnsupportedConstructError(f"value {describe(e)}")

    def _result(self, low: int, high: int, need: int | None, *of: Val) -> Val:
        """The type of an operation whose low bits follow from its operands' low bits."""
        ctype = type_for(low, high)
        if not any(v.modular for v in of) and ctype != _WIDE:
            return Val("", low, high, ctype)
        if need is not None and need <= 128:
            return Val("", low, high, "sn_u128", True)
        room = 1 << (self.layout.wide_bits - 1)
        return Val("", low, high, _WIDE, not -room <= low <= high < room)

    def read(self, slot: Slot, need: int | None = None) -> Val:
        """The value of a field."""
        if slot.varbit:
            raise UnsupportedConstructError("arithmetic on a varbit field")
        half = 1 << (slot.bits - 1)
        low, high = (-half, half - 1) if slot.signed else (0, mask_of(slot.bits))
        if slot.wide and need is not None and need <= 128:
            return Val(f"sn_wide_shr({slot.code}, {slot.size}, 0)", low, high, "sn_u128", True)
        if slot.wide:
            code = f"sn_w_ld({slot.code}, {slot.size})"
            return exact(f"sn_w_sext({code}, {slot.bits})" if slot.signed else code, low, high)
        if slot.signed:
            fn = "sn_sext" if slot.bits <= 64 else "sn_sext128"
            return exact(f"{fn}({slot.code}, {slot.bits})", low, high)
        return exact(f"({type_for(low, high)}){slot.code}", low, high)

    def _ahead(self, offset: int, bits: int) -> Val:
        if not self._lookahead:
            raise UnsupportedConstructError("lookahead here")
        high = mask_of(bits)
        if bits <= 128:
            return exact(f"({type_for(0, high)}){load_bits('(d + off)', offset, bits)}", 0, high)
        size = (bits + 7) // 8
        get = f"uint8_t t_[{size}]; sn_get_wide(t_, d + off, {offset}, {bits});"
        return exact(f"({{ {get} sn_w_ld(t_, {size}); }})", 0, high)

    def _operation(self, e: ir.Op, need: int | None) -> Val:
        op = e.op
        match op:
            case "b2d":
                return exact(f"(uint64_t){self.boolean(e.right)}", 0, 1)
            case "?":
                return self._choice(e, need)
            case "last_stack_index" if isinstance(e.right, ir.Named):
                code = f"((uint64_t){self.layout.stack(e.right.name)}.next - 1)"
                return exact(f"(uint64_t)(uint32_t){code}", 0, mask_of(32))
            case "size_stack" if isinstance(e.right, ir.Named):
                return exact(f"(uint64_t){self.layout.stack(e.right.name)}.next", 0, mask_of(32))
            case "two_comp_mod" | "sat_cast" | "usat_cast":
                return self._convert(e)
            case "<<" | ">>":
                return self._shift(e, need)
            case "&" | "|" | "^":
                return self._bitwise(e, need)
            case "+" | "-" | "*" | "~":
                return self._arithmetic(e, need)
            case "/" | "%":
                return self._divide(e)
        raise UnsupportedConstructError(f"operator '{op}'")

    def _choice(self, e: ir.Op, need: int | None) -> Val:
        if e.left is None or e.cond is None:
            raise UnsupportedConstructError("operator '?' without operands")
        a, b = self.number(e.left, need), self.number(e.right, need)
        r = self._result(min(a.low, b.low), max(a.high, b.high), need, a, b)
        code = f"({self.boolean(e.cond)} ? {a.cast(r.ctype)} : {b.cast(r.ctype)})"
        return Val(code, r.low, r.high, r.ctype, r.modular)

    @staticmethod
    def _apply(op: str, a: Val, b: Val, r: Val) -> Val:
        x, y = a.cast(r.ctype), b.cast(r.ctype)
        code = f"{_WIDE_OPS[op]}({x}, {y})" if r.ctype == _WIDE else f"({x} {op} {y})"
        return Val(code, r.low, r.high, r.ctype, r.modular)

    def _arithmetic(self, e: ir.Op, need: int | None) -> Val:
        b = self.number(e.right, need)
        if e.op == "~":
            r = self._result(-b.high - 1, -b.low - 1, need, b)
            x = b.cast(r.ctype)
            code = f"sn_w_not({x})" if r.ctype == _WIDE else f"(~{x})"
            return Val(code, r.low, r.high, r.ctype, r.modular)
        a = const(0) if e.left is None else self.number(e.left, need)
        if e.op == "+":
            low, high = a.low + b.low, a.high + b.high
        elif e.op == "-":
            low, high = a.low - b.high, a.high - b.low
        else:
            ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
            low, high = min(ends), max(ends)
        return self._apply(e.op, a, b, self._result(low, high, need, a, b))

    def _divide(self, e: ir.Op) -> Val:
        if e.left is None:
            raise UnsupportedConstructError(f"unary operator '{e.op}'")
        a, b = self.number(e.left), self.number(e.right)
        if min(a.low, b.low) < 0:
            raise UnsupportedConstructError(f"operator '{e.op}' on signed numbers")
        self._exact(a, e.op)
        self._exact(b, e.op)
        high = a.high if e.op == "/" else min(a.high, max(b.high - 1, 0))
        if _WIDE in (a.ctype, b.ctype):
            code = f"sn_w_divmod({a.cast(_WIDE)}, {b.cast(_WIDE)}, {int(e.op == '%')})"
            whole = Val(code, 0, high, _WIDE)
            return exact(whole.cast(type_for(0, high)), 0, high)
        fn = "sn_div" if e.op == "/" else "sn_mod"
        return exact(f"(({type_for(0, high)}){fn}({a.code}, {b.code}))", 0, high)

    def _bitwise(self, e: ir.Op, need: int | None) -> Val:
        if e.left is None:
            raise UnsupportedConstructError(f"unary operator '{e.op}'")
        if e.op == "&" and isinstance(e.right, ir.Const) and e.right.value >= 0:
            need = min(e.right.value.bit_length(), need or self.layout.wide_bits)
        a, b = self.number(e.left, need), self.number(e.right, need)
        if e.op == "&" and (a.low >= 0 or b.low >= 0):
            mask = min((x for x in (a, b) if x.low >= 0), key=lambda x: x.high)
            return self._apply("&", a, b, self._result(0, mask.high, need, mask))
        bits = max(_bits(a), _bits(b))
        low, high = (0, mask_of(bits)) if min(a.low, b.low) >= 0 else (-(1 << bits), mask_of(bits))
        return self._apply(e.op, a, b, self._result(low, high, need, a, b))

    def _shift(self, e: ir.Op, need: int | None) -> Val:
        if e.left is None:
            raise UnsupportedConstructError(f"unary operator '{e.op}'")
        n = self.number(e.right)
        if n.ctype == _WIDE or n.low < 0:
            raise UnsupportedConstructError("a shift by more than 128 bits or a signed number")
        if e.op == "<<":
            return self._shift_left(e.left, n, need)
        slot = self.slot(e.left)
        if slot is not None and slot.wide and not slot.varbit and n.low == n.high:
            high = mask_of(slot.bits) >> n.high
            if high < _U128 and not slot.signed:
                code = f"sn_wide_shr({slot.code}, {slot.size}, {n.high})"
                return exact(f"({type_for(0, high)}){code}", 0, high)
        low_bits = need + n.high if need is not None and n.low == n.high else None
        a = self.number(e.left, low_bits if low_bits and low_bits <= 128 else None)
        if a.modular:
            if low_bits is None or low_bits > 128:
                raise UnsupportedConstructError(f"operator '>>' on over {a.high.bit_length()} bits")
            return Val(f"sn_shr({a.code}, {n.code})", a.low, a.high, "sn_u128", True)
        low = a.low >> n.low if a.low < 0 else a.low >> min(n.high, 1 << 16)
        high = a.high >> n.low if a.high >= 0 else -1
        t = type_for(low, high)
        if a.ctype == _WIDE:
            moved = Val(f"sn_w_shr({a.code}, {n.code})", low, high, _WIDE)
            return Val(moved.cast(t), low, high, t)
        if a.low < 0:
            return Val(f"(({t})sn_sar({a.cast('sn_i128')}, {n.code}))", low, high, t)
        if a.ctype == "uint64_t" and n.low == n.high and n.high < 64:
            return Val(f"({a.code} >> {n.high})", low, high, t)
        fn = "sn_shr64" if a.ctype == n.ctype == "uint64_t" else "sn_shr"
        return Val(f"(({t}){fn}({a.code}, {n.code}))", low, high, t)

    def _shift_left(self, left: ir.Expr, n: Val, need: int | None) -> Val:
        a = self.number(left, need)
        most = 1 << min(n.high, self.layout.wide_bits)
        r = self._result(min(a.low * most, a.low), a.high * most, need, a)
        x = a.cast(r.ctype)
        if r.ctype == _WIDE:
            code = f"sn_w_shl({x}, {n.code})"
        elif n.low == n.high and n.high < 64:
            code = f"({x} << {n.high})"
        else:
            code = f"(({r.ctype})sn_shl((sn_u128){x}, {n.code}))"
        return Val(code, r.low, r.high, r.ctype, r.modular)

    def _convert(self, e: ir.Op) -> Val:
        if e.left is None or not isinstance(e.right, ir.Const):
            raise UnsupportedConstructError(f"operator '{e.op}' with such operands")
        bits = e.right.value
        half = 1 << (bits - 1)
        if e.op == "two_comp_mod":
            a = self.number(e.left, bits)
            fn, t = ("sn_sext", "uint64_t") if bits <= 64 else ("sn_sext128", "sn_u128")
            if bits > 128:
                fn, t = "sn_w_sext", _WIDE
            return exact(f"{fn}({a.cast(t)}, {bits})", -half, half - 1)
        a = self.number(e.left)
        self._exact(a, e.op)
        low, high = (0, mask_of(bits)) if e.op == "usat_cast" else (-half, half - 1)
        if a.low >= low and a.high <= high:
            return a
        t = type_for(min(a.low, low), max(a.high, high))
        x, lo, hi = a.cast(t), const(low).cast(t), const(high).cast(t)
        code = f"({{ {t} x_ = {x}; x_ < {lo} ? {lo} : x_ > {hi} ? {hi} : x_; }})"
        if t == _WIDE:
            code = f"sn_w_clamp({x}, {lo}, {hi})"
        clamped = Val(code, low, high, t)
        return exact(clamped.cast(type_for(low, high)), low, high)

    def _exact(self, v: Val, op: str) -> None:
        if v.modular:
            raise UnsupportedConstructError(f"operator '{op}' on over {v.high.bit_length()} bits")

    # ---- truth

    def boolean(self, e: ir.Expr) -> str:
        """A condition, as a C expression in parentheses."""
        match e:
            case ir.Bool(value):
                return f"({int(value)})"
            case ir.Op(op, left, right, _) if op in _LOGIC and left is not None:
                return f"({self.boolean(left)} {_LOGIC[op]} {self.boolean(right)})"
            case ir.Op("not", _, right, _):
                return f"(!{self.boolean(right)})"
            case ir.Op("d2b", _, right, _):
                return f"({self.number(right).code} != 0)"
            case ir.Op("valid", _, right, _):
                return f"({self.header(right)[0]}.valid != 0)"
            case ir.Op("valid_union", _, ir.Named(_, name), _):
                union = self.layout.program.unions[name]
                return f"({' || '.join(f'{self.layout.header(h)}.valid' for h in union.headers)})"
            case ir.Op("?", left, right, cond) if left is not None and cond is not None:
                yes, no = self.boolean(left), self.boolean(right)
                return f"({self.boolean(cond)} ? {yes} : {no})"
            case ir.Op(op, left, right, _) if op in _COMPARE and left is not None:
                return self._compare(op, left, right)
            case ir.Op(op, _, _, _) if op in _BOOL_OPS:
                raise BadProgramError(f"operator '{op}' without its operands")
        return f"({self.number(e).code} != 0)"

    def _compare(self, op: str, left: ir.Expr, right: ir.Expr) -> str:
        equality = op in ("==", "!=")
        a_slot, b_slot = self.slot(left), self.slot(right)
        if equality and a_slot and b_slot and a_slot.varbit and b_slot.varbit:
            n, m = f"{a_slot.code}_n", f"{b_slot.code}_n"
            same = f"{n} == {m} && sn_wide_eq({a_slot.code}, {b_slot.code}, ({n} + 7) / 8)"
            return f"({'!' if op == '!=' else ''}({same}))"
        if equality and isinstance(left, ir.Named) and isinstance(right, ir.Named):
            raise UnsupportedConstructError(f"operator '{op}' on headers or stacks")
        a, b = self.number(left), self.number(right)
        self._exact(a, op)
        self._exact(b, op)
        t = type_for(min(a.low, b.low), max(a.high, b.high))
        if t == _WIDE:
            return f"(sn_w_cmp({a.cast(t)}, {b.cast(t)}) {op} 0)"
        return f"({a.cast(t)} {op} {b.cast(t)})"


def _bits(v: Val) -> int:
    return max(v.high.bit_length(), (-v.low - 1).bit_length() if v.low < 0 else 0)


def byte_literal(value: int, size: int) -> str:
    """A constant of `size` bytes as a C expression of type `const uint8_t *`."""
    data = (value % (1 << 8 * size)).to_bytes(size, "big")
    return "((const uint8_t[]){" + ", ".join(str(x) for x in data) + "})"


def load_bits(base: str, offset: int, bits: int) -> str:
    """Bits `offset`.. of the bytes at `base`, as a C expression (up to 128 bits)."""
    first, last = offset // 8, (offset + bits - 1) // 8
    count, shift = last - first + 1, (last + 1) * 8 - offset - bits
    at = f"{base} + {first}" if first else base
    if count in (1, 2, 3, 4, 5, 6, 7, 8, 16):
        word = f"sn_ld{count * 8}({at})"
    elif count <= 16:
        word = f"sn_ldn({at}, {count})"
    else:  # 128 bits over 17 bytes: the first part shifted out of the way
        joined = f"(sn_ldn({at}, 16) << {8 - shift} | sn_ld8({at} + 16) >> {shift})"
        return joined if bits == 128 else _masked(joined, bits)
    if shift:
        word = f"({word} >> {shift})"
    return word if bits == count * 8 - shift else _masked(word, bits)


def _masked(word: str, bits: int) -> str:
    return f"({word} & {const(mask_of(bits)).code})"


def describe(e: ir.Expr) -> str:
    """An expression for an error message."""
    match e:
        case ir.FieldRef(header, field):
            return f"'{header}.{field}'"
        case ir.Named(kind, name):
            return f"{kind} '{name}'"
        case ir.Op(op, _, _, _):
            return f"with operator '{op}'"
    return type(e).__name__
