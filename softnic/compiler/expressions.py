"""Expressions as C, exact as bmv2's arithmetic without end: each value carries its range, from
which the C type follows. What needs more than 128 bits is kept modulo 2^128 as long as only its
low bits are asked for (`modular`), and refused where the rest would matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.compiler.layout import Layout, Slot
from softnic.dataplane import UnsupportedConstructError

_U64, _U128 = 1 << 64, 1 << 128
_COMPARE = {"==", "!=", "<", "<=", ">", ">="}
_LOGIC = {"and": "&&", "or": "||"}
_BOOL_OPS = _COMPARE | set(_LOGIC) | {"not", "d2b", "valid", "valid_union"}


@dataclass(frozen=True, slots=True)
class Val:
    """A number in C: between `low` and `high`; `modular`: right only modulo 2^128."""

    code: str
    low: int
    high: int
    modular: bool = False

    @property
    def ctype(self) -> str:
        """The C type that it is computed in."""
        return "sn_u128" if self.modular else type_for(self.low, self.high)

    def cast(self, ctype: str) -> str:
        """The value in another C type."""
        return self.code if ctype == self.ctype else f"(({ctype}){self.code})"


def type_for(low: int, high: int) -> str:
    """The C type for a range; modulo 2^128 where none is large enough."""
    if low >= 0:
        return "uint64_t" if high < _U64 else "sn_u128"
    if low >= -(1 << 63) and high < 1 << 63:
        return "int64_t"
    return "sn_i128" if low >= -(1 << 127) and high < 1 << 127 else "sn_u128"


def fits(low: int, high: int) -> bool:
    """True if some C type holds the range."""
    return (low >= 0 and high < _U128) or (low >= -(1 << 127) and high < 1 << 127)


def const(value: int) -> Val:
    """A literal."""
    if -(1 << 63) < value < 0:
        return Val(f"(-{-value:#x}ll)", value, value)
    if value < 0:
        return _low(value)
    if value < _U64:
        return Val(f"{value:#x}ull", value, value)
    return _low(value)


def _low(value: int) -> Val:
    v = value % _U128
    code = f"((sn_u128){v >> 64:#x}ull << 64 | {v % _U64:#x}ull)"
    return Val(code, min(value, 0), max(value, 0), not 0 <= value < _U128)


def _value(code: str, low: int, high: int, modular: bool = False) -> Val:
    return Val(code, low, high, modular or not fits(low, high))


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

    def number(self, e: ir.Expr) -> Val:
        """A value of 128 bits or less (or the low bits of a longer one)."""
        slot = self.slot(e)
        if slot is not None:
            return self._read(slot)
        match e:
            case ir.Const(value):
                return const(value)
            case ir.Bool(value):
                return const(int(value))
            case ir.Lookahead(offset, bits):
                return self._ahead(offset, bits)
            case ir.Op(op, _, _, _) if op in _BOOL_OPS:
                return Val(f"(uint64_t){self.boolean(e)}", 0, 1)
            case ir.Op():
                return self._operation(e)
        raise UnsupportedConstructError(f"value {describe(e)}")

    def _read(self, slot: Slot) -> Val:
        if slot.varbit:
            raise UnsupportedConstructError("arithmetic on a varbit field")
        if slot.wide:
            code = f"sn_wide_shr({slot.code}, {slot.size}, 0)"
            return Val(code, 0, mask_of(slot.bits), True)
        if slot.signed:
            fn = "sn_sext" if slot.bits <= 64 else "sn_sext128"
            half = 1 << (slot.bits - 1)
            return Val(f"{fn}({slot.code}, {slot.bits})", -half, half - 1)
        wide = "uint64_t" if slot.bits <= 64 else "sn_u128"
        return Val(f"({wide}){slot.code}", 0, mask_of(slot.bits))

    def _ahead(self, offset: int, bits: int) -> Val:
        if not self._lookahead or bits > 128:
            raise UnsupportedConstructError(f"lookahead of {bits} bits here")
        wide = "uint64_t" if bits <= 64 else "sn_u128"
        return Val(f"({wide}){load_bits('(d + off)', offset, bits)}", 0, mask_of(bits))

    def _operation(self, e: ir.Op) -> Val:
        op = e.op
        match op:
            case "b2d":
                return Val(f"(uint64_t){self.boolean(e.right)}", 0, 1)
            case "?":
                return self._choice(e)
            case "last_stack_index" if isinstance(e.right, ir.Named):
                code = f"((uint64_t){self.layout.stack(e.right.name)}.next - 1)"
                return Val(f"(uint64_t)(uint32_t){code}", 0, mask_of(32))
            case "size_stack" if isinstance(e.right, ir.Named):
                return Val(f"(uint64_t){self.layout.stack(e.right.name)}.next", 0, mask_of(32))
            case "two_comp_mod" | "sat_cast" | "usat_cast":
                return self._convert(e)
            case "<<" | ">>":
                return self._shift(e)
            case "&" | "|" | "^":
                return self._bitwise(e)
            case "+" | "-" | "*" | "/" | "%" | "~":
                return self._arithmetic(e)
        raise UnsupportedConstructError(f"operator '{op}'")

    def _choice(self, e: ir.Op) -> Val:
        if e.left is None or e.cond is None:
            raise UnsupportedConstructError("operator '?' without operands")
        a, b = self.number(e.left), self.number(e.right)
        low, high = min(a.low, b.low), max(a.high, b.high)
        r = _value("", low, high, a.modular or b.modular)
        t = r.ctype
        code = f"({self.boolean(e.cond)} ? {a.cast(t)} : {b.cast(t)})"
        return Val(code, low, high, r.modular)

    def _arithmetic(self, e: ir.Op) -> Val:
        b = self.number(e.right)
        a = const(0) if e.left is None else self.number(e.left)
        op = e.op
        if op == "~":
            low, high = -b.high - 1, -b.low - 1
            r = _value("", low, high, b.modular)
            return Val(f"(~{b.cast(r.ctype)})", low, high, r.modular)
        if op == "+":
            low, high = a.low + b.low, a.high + b.high
        elif op == "-":
            low, high = a.low - b.high, a.high - b.low
        elif op == "*":
            ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
            low, high = min(ends), max(ends)
        else:
            if a.modular or b.modular or a.low < 0 or b.low < 0:
                raise UnsupportedConstructError(f"operator '{op}' on such values")
            fn = "sn_div" if op == "/" else "sn_mod"
            high = a.high if op == "/" else min(a.high, max(b.high - 1, 0))
            return _value(f"({type_for(0, high)}){fn}({a.code}, {b.code})", 0, high)
        r = _value("", low, high, a.modular or b.modular)
        return Val(f"({a.cast(r.ctype)} {op} {b.cast(r.ctype)})", low, high, r.modular)

    def _bitwise(self, e: ir.Op) -> Val:
        if e.left is None:
            raise UnsupportedConstructError(f"unary operator '{e.op}'")
        a, b = self.number(e.left), self.number(e.right)
        if e.op == "&" and (a.low >= 0 or b.low >= 0):
            high = min(x.high for x in (a, b) if x.low >= 0)
            r = _value("", 0, high)
            return Val(f"({a.cast(r.ctype)} & {b.cast(r.ctype)})", 0, high, r.modular)
        bits = max(_bits(a), _bits(b))
        low, high = (0, mask_of(bits)) if min(a.low, b.low) >= 0 else (-(1 << bits), mask_of(bits))
        r = _value("", low, high, a.modular or b.modular)
        return Val(f"({a.cast(r.ctype)} {e.op} {b.cast(r.ctype)})", low, high, r.modular)

    def _shift(self, e: ir.Op) -> Val:
        if e.left is None:
            raise UnsupportedConstructError(f"unary operator '{e.op}'")
        n = self.number(e.right)
        if e.op == "<<":
            a = self.number(e.left)
            most = 1 << min(n.high, 256)
            low, high = min(a.low * most, a.low), a.high * most
            r = _value("", low, high, a.modular)
            if n.low == n.high and n.high < 64 and r.ctype != "sn_u128":
                return Val(f"({a.cast(r.ctype)} << {n.high})", low, high)
            return Val(f"sn_shl({a.cast('sn_u128')}, {n.code})", low, high, True)
        slot = self.slot(e.left)
        if slot is not None and slot.wide and not slot.varbit:
            if n.low != n.high:
                raise UnsupportedConstructError(f"shift of {slot.bits} bits by a variable")
            high = mask_of(slot.bits) >> n.high
            return _value(f"sn_wide_shr({slot.code}, {slot.size}, {n.high})", 0, high)
        a = self.number(e.left)
        self._exact(a, ">>")
        if a.low < 0:
            low, high = a.low >> n.low, a.high >> n.low if a.high >= 0 else -1
            t = type_for(low, high)
            return Val(f"({t})sn_sar({a.cast('sn_i128')}, {n.code})", low, high)
        high = a.high >> n.low
        if a.ctype == "uint64_t":
            if n.low == n.high and n.high < 64:
                return Val(f"({a.code} >> {n.high})", 0, high)
            return Val(f"sn_shr64({a.code}, {n.cast('uint64_t')})", 0, high)
        return Val(f"({type_for(0, high)})sn_shr({a.code}, {n.code})", 0, high)

    def _convert(self, e: ir.Op) -> Val:
        if e.left is None or not isinstance(e.right, ir.Const) or e.right.value > 128:
            raise UnsupportedConstructError(f"operator '{e.op}' with such operands")
        a, bits = self.number(e.left), e.right.value
        half = 1 << (bits - 1)
        if e.op == "two_comp_mod":
            if bits <= 64:
                return Val(f"sn_sext({a.cast('uint64_t')}, {bits})", -half, half - 1)
            return Val(f"sn_sext128({a.cast('sn_u128')}, {bits})", -half, half - 1)
        self._exact(a, e.op)
        low, high = (0, mask_of(bits)) if e.op == "usat_cast" else (-half, half - 1)
        if a.low >= low and a.high <= high:
            return a
        t = type_for(min(a.low, low), max(a.high, high))
        x, lo, hi = a.cast(t), const(low).cast(t), const(high).cast(t)
        code = f"({{ {t} x_ = {x}; x_ < {lo} ? {lo} : x_ > {hi} ? {hi} : x_; }})"
        return Val(f"({type_for(low, high)}){code}", low, high)

    def _exact(self, v: Val, op: str) -> None:
        if v.modular:
            raise UnsupportedConstructError(f"operator '{op}' on more than 128 bits")

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
        return f"({self.number(e).code} != 0)"

    def _compare(self, op: str, left: ir.Expr, right: ir.Expr) -> str:
        equality = op in ("==", "!=")
        a_slot, b_slot = self.slot(left), self.slot(right)
        if equality and ((a_slot and a_slot.wide) or (b_slot and b_slot.wide)):
            return f"({'!' if op == '!=' else ''}{self._same_bytes(left, right)})"
        if equality and isinstance(left, ir.Named) and isinstance(right, ir.Named):
            raise UnsupportedConstructError(f"operator '{op}' on headers or stacks")
        a, b = self.number(left), self.number(right)
        self._exact(a, op)
        self._exact(b, op)
        low, high = min(a.low, b.low), max(a.high, b.high)
        if not fits(low, high):
            raise UnsupportedConstructError(f"operator '{op}' on more than 128 bits")
        t = type_for(low, high)
        return f"({a.cast(t)} {op} {b.cast(t)})"

    def _same_bytes(self, left: ir.Expr, right: ir.Expr) -> str:
        sides = [self.slot(left), self.slot(right)]
        a, b = sides
        if a and b and a.varbit and b.varbit:
            n = f"{a.code}_n"
            return f"({n} == {b.code}_n && sn_wide_eq({a.code}, {b.code}, ({n} + 7) / 8))"
        known = next(s for s in sides if s is not None and s.wide)
        other_expr, other = (right, b) if known is a else (left, a)
        if known.varbit or (other is not None and other.bits != known.bits):
            raise UnsupportedConstructError("comparison of fields of different length")
        if other is not None:
            return f"sn_wide_eq({known.code}, {other.code}, {known.size})"
        if isinstance(other_expr, ir.Const):
            literal = byte_literal(other_expr.value, known.size)
            return f"sn_wide_eq({known.code}, {literal}, {known.size})"
        raise UnsupportedConstructError(f"comparison of {known.bits} bits with a computed value")


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
