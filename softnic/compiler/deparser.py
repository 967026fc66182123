"""The deparser, checksums, and what copies or reports fields, as C functions."""

from __future__ import annotations

from softnic.compiler import ir
from softnic.compiler.calculations import Calculations, pack
from softnic.compiler.expressions import Expressions, exact, mask_of
from softnic.compiler.layout import Layout
from softnic.compiler.primitives import store
from softnic.dataplane import UnsupportedConstructError


class DeparserWriter:
    """Writes everything after the pipelines."""

    def __init__(self, layout: Layout, calculations: Calculations) -> None:
        self.layout = layout
        self.program = layout.program
        self.calculations = calculations
        self.x = Expressions(layout)

    # ---- checksums

    def _condition(self, c: ir.Checksum, *, target_valid: bool) -> str:
        parts = [] if c.condition is None else [self.x.boolean(c.condition)]
        if target_valid and not self.layout.is_metadata(c.target.header):
            parts.append(f"{self.layout.header(c.target.header)}.valid")
        return " && ".join(parts) or "1"

    def verify(self) -> list[str]:
        """Statements that check what arrived, for the parser's end."""
        out: list[str] = []
        for c in self.program.checksums:
            if not c.verify:
                continue
            lines, result = self.calculations.write(c.calculation)
            target = self.layout.slot(c.target.header, c.target.field)
            out += [
                f"if ({self._condition(c, target_valid=True)}) {{",
                *(f"    {line}" for line in lines),
                f"    if ({target.code} != {result}) c->std.checksum_error = 1;",
                "}",
            ]
        return out

    def _update(self) -> list[str]:
        out: list[str] = []
        for c in self.program.checksums:
            if not c.update:
                continue
            lines, result = self.calculations.write(c.calculation)
            target = self.layout.slot(c.target.header, c.target.field)
            out += [
                f"if ({self._condition(c, target_valid=False)}) {{",
                *(f"    {line}" for line in lines),
                f"    {store(target, exact(f'(uint64_t){result}', 0, mask_of(64)))}",
                "}",
            ]
        return out

    # ---- deparser

    def max_headers(self) -> int:
        """The most bytes that the deparser can write."""
        return sum(self.layout.header_type(h).max_bytes for h in self._order())

    def _order(self) -> list[str]:
        out: list[str] = []
        for name in self.program.deparser:
            if name in self.program.stacks:
                out += self.program.stacks[name].headers
            elif name in self.program.headers:
                out.append(name)
            else:
                raise UnsupportedConstructError(f"emit of '{name}'")
        return out

    def write(self) -> list[str]:
        """The function `deparse`."""
        out = [
            "static uint32_t deparse(struct sn_ctx *c, uint8_t *out) {",
            "    struct phv *p = c->phv;",
            "    uint32_t n = 0;",
            "    (void)p;",
            *(f"    {line}" for line in self._update()),
        ]
        for name in self._order():
            code, number = self.layout.header(name), self.program.headers[name].id
            fields = pack(self.layout.slots(code, self.layout.header_type(name)), "out + n", "n")
            out += [
                f"    if ({code}.valid) {{",
                f"        if (c->first_header == {number}) c->first_out = n;",
                f"        if (SN_UNLIKELY(c->l4_header == {number})) c->l4_out = n;",
                *(f"        {line}" for line in fields),
                "    }",
            ]
        return [*out, "    return n;", "}"]

    # ---- metadata kept and reported

    def reset_metadata(self) -> list[str]:
        """The function that zeroes the program's metadata."""
        zero = [f"    sn_zero(&{h}, sizeof {h});" for h in map(self.layout.header, self._meta())]
        return [
            "static void reset_metadata(struct sn_ctx *c) {",
            "    struct phv *p = c->phv;",
            "    (void)p;",
            *zero,
            "}",
        ]

    def _meta(self) -> list[str]:
        return self.layout.metadata()

    def copy_list(self) -> list[str]:
        """The function that copies the fields of a list between packets."""
        out = [
            "static void copy_list(struct sn_ctx *to, const struct sn_ctx *from, uint32_t list) {",
            "    struct phv *tp = to->phv; const struct phv *fp = from->phv;",
            "    (void)tp; (void)fp;",
            "    switch (list) {",
        ]
        for fl in self.program.field_lists.values():
            out.append(f"    case {fl.id}:")
            for e in fl.elements:
                out += [f"        {line}" for line in self._copy(e)]
            out.append("        break;")
        return [*out, "    default: break;", "    }", "}"]

    def _copy(self, e: ir.Expr) -> list[str]:
        match e:
            case ir.FieldRef(header, field):
                a = self.layout.slot(header, field, "tp", "to")
                b = self.layout.slot(header, field, "fp", "from")
                if a.wide:
                    n = [f"{a.code}_n = {b.code}_n;"] if a.varbit else []
                    return [f"sn_copy({a.code}, {b.code}, {a.size});", *n]
                return [f"{a.code} = {b.code};"]
            case ir.Named("header", name):
                a_, b_ = self.layout.header(name, "tp"), self.layout.header(name, "fp")
                std = ["to->std = from->std;"] if name == "standard_metadata" else []
                return [f"{a_} = {b_};", *std]
            case ir.Const():
                return []
        raise UnsupportedConstructError("a field list with a computed value")

    def digest_size(self, fl: ir.FieldList) -> int:
        """Bytes of a digest's packed fields."""
        return sum((bits + 7) // 8 for _, bits in self.digest_fields(fl))

    def digest_fields(self, fl: ir.FieldList) -> list[tuple[str, int]]:
        """Name and width of each field of a digest."""
        out = []
        for i, e in enumerate(fl.elements):
            match e:
                case ir.FieldRef(_, field):
                    slot = self.x.slot(e)
                    assert slot is not None
                    if slot.varbit:
                        raise UnsupportedConstructError(f"varbit field in digest '{fl.name}'")
                    out.append((field, slot.bits))
                case ir.Const(_, bits) if bits is not None:
                    out.append((f"field{i}", bits))
                case _:
                    raise UnsupportedConstructError(f"such a value in digest '{fl.name}'")
        return out

    def digest(self) -> list[str]:
        """The function that packs a digest's fields."""
        out = [
            "static uint32_t digest(struct sn_ctx *c, uint32_t list, uint8_t *out) {",
            "    struct phv *p = c->phv;",
            "    uint32_t n = 0;",
            "    (void)p; (void)out;",
            "    switch (list) {",
        ]
        for fl in self.program.digests:
            out.append(f"    case {fl.id}:")
            for e, (_, bits) in zip(fl.elements, self.digest_fields(fl), strict=True):
                size = (bits + 7) // 8
                slot = self.x.slot(e)
                if slot is not None and slot.wide:
                    out.append(f"        sn_copy(out + n, {slot.code}, {size});")
                else:
                    out.append(f"        sn_stn(out + n, {size}, {self.x.number(e).code});")
                out.append(f"        n += {size};")
            out.append("        break;")
        return [*out, "    default: break;", "    }", "    return n;", "}"]
