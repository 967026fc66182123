"""Where each header and field lives in C, and the struct declarations for it.

    struct phv { struct t0 h0; ...  struct { struct t3 e[4 + 1]; uint32_t next; } s0; ... };

A stack has one element more than the program sees: reads and writes out of bounds end there.
Standard metadata isn't in the program's struct but in the runtime's (`c->std`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.dataplane import UnsupportedConstructError

STD = {
    "ingress_port": 9,
    "egress_spec": 9,
    "egress_port": 9,
    "instance_type": 32,
    "packet_length": 32,
    "enq_timestamp": 32,
    "enq_qdepth": 19,
    "deq_timedelta": 32,
    "deq_qdepth": 19,
    "mcast_grp": 16,
    "egress_rid": 16,
    "checksum_error": 1,
    "parser_error": 32,
    "priority": 3,
    "ingress_global_timestamp": 48,
    "egress_global_timestamp": 48,
}
_STD_HEADERS = {"standard_metadata", "intrinsic_metadata", "queueing_metadata"}


@dataclass(frozen=True, slots=True)
class Slot:
    """A field in C: an lvalue (of a varbit field its bytes; `code` + `_n` holds the length)."""

    code: str
    bits: int
    signed: bool = False
    varbit: bool = False

    @property
    def wide(self) -> bool:
        """True if it is an array of bytes, most significant first."""
        return self.bits > 128 or self.varbit

    @property
    def size(self) -> int:
        """Bytes of it when packed."""
        return (self.bits + 7) // 8

    @property
    def ctype(self) -> str:
        """C type of what is stored."""
        return c_uint(self.bits)


def c_uint(bits: int) -> str:
    """The smallest C type that holds `bits` bits (up to 128)."""
    for w in (8, 16, 32, 64):
        if bits <= w:
            return f"uint{w}_t"
    return "sn_u128"


def c_name(name: str) -> str:
    """`name` as it may stand in a C comment or identifier."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


class Layout:
    """Names in C of everything that holds a value."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        types = {h.type.name: h.type for h in program.headers.values()}
        types |= {s.type.name: s.type for s in program.stacks.values()}
        self._types = list(types.values())
        self._type_no = {t.name: i for i, t in enumerate(self._types)}
        self._fields = {
            t.name: {f.name: (i, f) for i, f in enumerate(t.fields)} for t in self._types
        }
        self._path: dict[str, str] = {}
        self._stack_no = {n: i for i, n in enumerate(program.stacks)}
        self._ustack_no = {n: i for i, n in enumerate(program.union_stacks)}
        self._siblings: dict[str, tuple[str, ...]] = {}
        widths = [f.bits for t in self._types for f in t.fields if not f.varbit]
        widths += [bits for a in program.actions.values() for _, bits in a.params]
        widths += [r.bits for r in program.registers]
        self.wide_bits = (max([191, *widths]) + 128) // 64 * 64
        """Bits that numbers of more than 128 are computed in."""
        self._place()

    def _place(self) -> None:
        for name, stack in self.program.stacks.items():
            for k, h in enumerate(stack.headers):
                self._path[h] = f"s{self._stack_no[name]}.e[{k}]"
        for name, us in self.program.union_stacks.items():
            for k, u in enumerate(us.unions):
                for m, h in enumerate(self.program.unions[u].headers):
                    self._path[h] = f"u{self._ustack_no[name]}.e[{k}].m{m}"
        for union in self.program.unions.values():
            for h in union.headers:
                self._siblings[h] = tuple(x for x in union.headers if x != h)
        for h in self.program.headers:
            self._path.setdefault(h, f"h{self.program.headers[h].id}")

    # ---- headers

    def header(self, name: str, phv: str = "p") -> str:
        """The header instance's struct."""
        if name not in self._path:
            raise UnsupportedConstructError(f"reference to header '{name}', which isn't declared")
        return f"{phv}->{self._path[name]}"

    def header_type(self, name: str) -> ir.HeaderType:
        """Type of a header instance."""
        return self.program.headers[name].type

    def struct(self, kind: ir.HeaderType) -> str:
        """C name of a header type's struct."""
        return f"struct t{self._type_no[kind.name]}"

    def siblings(self, name: str, phv: str = "p") -> list[str]:
        """The other members of the union that the header is in."""
        return [self.header(s, phv) for s in self._siblings.get(name, ())]

    def is_metadata(self, name: str) -> bool:
        """True of metadata, which is always valid and never emitted."""
        return self.program.headers[name].metadata

    def stack(self, name: str, phv: str = "p") -> str:
        """A header stack's struct."""
        if name in self._stack_no:
            return f"{phv}->s{self._stack_no[name]}"
        return f"{phv}->u{self._ustack_no[name]}"

    def stack_size(self, name: str) -> int:
        """Number of elements of a header or union stack."""
        if name in self._stack_no:
            return len(self.program.stacks[name].headers)
        return len(self.program.union_stacks[name].unions)

    def union_member(self, stack: str, member: str) -> tuple[int, ir.HeaderType]:
        """Index and type of a member of a union stack's unions."""
        us = self.program.union_stacks[stack]
        m = us.members.index(member)
        return m, self.header_type(self.program.unions[us.unions[0]].headers[m])

    def stack_of_union(self, name: str) -> str | None:
        """The union's struct where it is in a stack."""
        for s, us in self.program.union_stacks.items():
            if name in us.unions:
                return f"p->u{self._ustack_no[s]}.e[{us.unions.index(name)}]"
        return None

    # ---- fields

    def slot(self, header: str, field: str, phv: str = "p", ctx: str = "c") -> Slot:
        """A field of a header instance."""
        if field == "$valid$":
            return Slot(f"{self.header(header, phv)}.valid", 1)
        std = self.std_name(header, field)
        if std is not None:
            _, decl = self._field(self.header_type(header), field)
            return Slot(f"{ctx}->std.{std}", decl.bits)
        return self.member(self.header(header, phv), self.header_type(header), field)

    def std_name(self, header: str, field: str) -> str | None:
        """The field's name in the runtime's standard metadata, if it is one of those."""
        alias = self.program.aliases.get((header, field))
        if alias is not None and alias.rpartition(".")[2] in STD:
            return alias.rpartition(".")[2]
        if header in _STD_HEADERS and field in STD and self.is_metadata(header):
            return field
        return None

    def member(self, code: str, kind: ir.HeaderType, field: str) -> Slot:
        """A field of the header struct that `code` denotes."""
        if field == "$valid$":
            return Slot(f"{code}.valid", 1)
        i, decl = self._field(kind, field)
        return Slot(f"{code}.f{i}", decl.bits, decl.signed, decl.varbit)

    def slots(self, code: str, kind: ir.HeaderType) -> list[Slot]:
        """All fields of the header struct that `code` denotes."""
        return [self.member(code, kind, f.name) for f in kind.fields]

    def _field(self, kind: ir.HeaderType, field: str) -> tuple[int, ir.FieldDecl]:
        found = self._fields[kind.name].get(field)
        if found is None:
            raise UnsupportedConstructError(f"field '{field}' of '{kind.name}', which has none")
        return found

    # ---- declarations

    def declarations(self) -> list[str]:
        """The structs, as lines of C."""
        out = []
        for t in self._types:
            out.append(f"{self.struct(t)} {{ /* {c_name(t.name)} */")
            ordered = sorted(self.slots("", t), key=lambda s: (s.wide, -min(s.bits, 129)))
            for s in ordered:
                name = s.code[1:]
                note = f"/* {c_name(t.fields[int(name[1:])].name)} */"
                if s.wide:
                    out.append(f"    uint8_t {name}[{max(s.size, 1)}]; {note}")
                    if s.varbit:
                        out.append(f"    uint32_t {name}_n;")
                else:
                    out.append(f"    {s.ctype} {name}; {note}")
            out += ["    uint8_t valid;", "};"]
        out.append("struct phv {")
        for h in self.program.headers.values():
            if "[" not in self._path[h.name]:
                out.append(f"    {self.struct(h.type)} h{h.id}; /* {c_name(h.name)} */")
        for n, stack in self.program.stacks.items():
            e = f"{self.struct(stack.type)} e[{len(stack.headers) + 1}]"
            out.append(f"    struct {{ {e}; uint32_t next; }} s{self._stack_no[n]};")
        for n, us in self.program.union_stacks.items():
            kinds = [self.header_type(h) for h in self.program.unions[us.unions[0]].headers]
            members = " ".join(f"{self.struct(k)} m{i};" for i, k in enumerate(kinds))
            e = f"struct {{ {members} }} e[{len(us.unions) + 1}]"
            out.append(f"    struct {{ {e}; uint32_t next; }} u{self._ustack_no[n]};")
        out += ["    uint8_t end;", "};"]
        return out

    def metadata(self) -> list[str]:
        """Metadata instances."""
        return [h.name for h in self.program.headers.values() if h.metadata]
