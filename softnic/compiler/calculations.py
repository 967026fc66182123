"""Hashes and checksums: gathering their input, packed as bmv2 packs it, and calling the sum."""

from __future__ import annotations

from softnic.compiler import ir
from softnic.compiler.expressions import Expressions
from softnic.compiler.layout import Layout, Slot
from softnic.dataplane import UnsupportedConstructError

_ALGORITHMS = {
    "crc32": "sn_crc32_2",
    "crc32_custom": "sn_crc32_2",  # what it is unless told otherwise, which only Thrift can
    "crc16": "sn_crc16_2",
    "crc16_custom": "sn_crc16_2",
    "csum16": "sn_csum16_2",
    "xor16": "sn_xor16_2",
    "identity": "sn_identity_2",
}


class Calculations:
    """Writes the named calculations of a program."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def write(self, name: str) -> tuple[list[str], str]:
        """Statements that fill a buffer, and the expression of the result."""
        return self.of(self.layout.program.calculations[name])

    def of(self, calc: ir.Calculation) -> tuple[list[str], str]:
        """As `write`, of a calculation."""
        fn = _ALGORITHMS.get(calc.algo)
        if fn is None:
            raise UnsupportedConstructError(f"hash algorithm '{calc.algo}'{calc.source}")
        payload = any(isinstance(i, ir.Payload) for i in calc.inputs)
        lines: list[str] = []
        most = self._inputs(calc, lines)
        start = [f"uint8_t buf_[{most // 8 + 17}]; uint32_t n_ = 0, pos_ = 0;"]
        rest = "c->data + c->parsed, c->len - c->parsed" if payload else "buf_, 0"
        return [*start, *lines], f"{fn}(buf_, n_, {rest})"

    def _inputs(self, calc: ir.Calculation, lines: list[str]) -> int:
        """Appends the statements; returns the most bits that there can be."""
        groups: list[tuple[str, list[Slot]]] = []
        for item in calc.inputs:
            for header, slot in self._items(item, calc):
                if groups and groups[-1][0] == header:
                    groups[-1][1].append(slot)
                else:
                    groups.append((header, [slot]))
        aligned = all(
            sum(s.bits for s in slots if not s.varbit) % 8 == 0 and not _split_varbit(slots)
            for _, slots in groups
        )
        for header, slots in groups:
            valid = self._validity(header)
            lines.append(f"if ({valid}) {{" if valid else "{")
            put = pack(slots, "buf_ + n_", "n_") if aligned else _pack_bits(slots)
            lines += [f"    {line}" for line in put]
            lines.append("}")
        if not aligned:
            lines.insert(0, "sn_zero(buf_, sizeof buf_);")
            lines.append("n_ = (pos_ + 7) / 8;")
        return sum(s.bits for _, slots in groups for s in slots)

    def _validity(self, header: str) -> str | None:
        if not header or self.layout.is_metadata(header):
            return None
        return f"{self.layout.header(header)}.valid"

    def _items(self, item: ir.Expr, calc: ir.Calculation) -> list[tuple[str, Slot]]:
        match item:
            case ir.Payload():
                return []
            case ir.FieldRef(header, field):
                return [(header, self.layout.slot(header, field))]
            case ir.Named("header", name):
                kind = self.layout.header_type(name)
                return [(name, s) for s in self.layout.slots(self.layout.header(name), kind)]
            case ir.Op("d2b", _, right, _):
                return [("", Slot(Expressions(self.layout).boolean(right), 1))]
            case ir.Const(value, bits) if bits is not None and bits <= 64:
                return [("", Slot(f"{value % (1 << bits):#x}ull", bits))]
        raise UnsupportedConstructError(f"input of '{calc.algo}'{calc.source}")


def _split_varbit(slots: list[Slot]) -> bool:
    """True if a varbit field doesn't start at a whole byte."""
    bits = 0
    for s in slots:
        if s.varbit and bits % 8:
            return True
        bits += 0 if s.varbit else s.bits
    return False


def _pack_bits(slots: list[Slot]) -> list[str]:
    out = []
    for s in slots:
        if s.varbit:
            out.append(f"sn_put_wide(buf_, &pos_, {s.code}, {s.code}_n);")
        elif s.wide:
            out.append(f"sn_put_wide(buf_, &pos_, {s.code}, {s.bits});")
        else:
            out.append(f"sn_put_bits(buf_, &pos_, {s.code}, {s.bits});")
    return out


def pack(slots: list[Slot], base: str, cursor: str) -> list[str]:
    """Statements that write fields, together whole bytes, at `base` and move `cursor` on."""
    out: list[str] = []
    at = 0
    group: list[Slot] = []
    bits = 0
    for s in slots:
        if s.wide and not group and (s.varbit or s.bits % 8 == 0):
            n = f"{s.code}_n / 8" if s.varbit else str(s.size)
            out.append(f"sn_copy({base} + {at}, {s.code}, {n});")
            if s.varbit:
                out.append(f"{cursor} += {n};")
            else:
                at += s.size
            continue
        group.append(s)
        bits += s.bits
        if bits % 8 == 0:
            out += _group(group, bits, f"{base} + {at}")
            at += bits // 8
            group, bits = [], 0
    if group:
        raise UnsupportedConstructError("a header that isn't a whole number of bytes")
    return [*out, f"{cursor} += {at};"]


def _group(group: list[Slot], bits: int, at: str) -> list[str]:
    if bits > 128 or any(s.wide for s in group):
        lines = ["{ uint32_t bit_ = 0;", f"sn_zero({at}, {bits // 8});"]
        for s in group:
            fn = "sn_put_wide" if s.wide else "sn_put_bits"
            lines.append(f"{fn}({at}, &bit_, {s.code}, {s.bits});")
        return [*lines, "}"]
    wide = "uint64_t" if bits <= 64 else "sn_u128"
    terms, left = [], bits
    for s in group:
        left -= s.bits
        terms.append(f"({wide}){s.code} << {left}" if left else f"({wide}){s.code}")
    value = " | ".join(terms)
    if bits in (8, 16, 24, 32, 40, 48, 56, 64, 128):
        return [f"sn_st{bits}({at}, {value});"]
    return [f"sn_stn({at}, {bits // 8}, {value});"]
