"""The program as typed values: what `load` reads from the JSON and the generators write as C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softnic.dataplane import MatchKind


@dataclass(frozen=True, slots=True)
class Source:
    """Where a construct stands in the P4 program; empty where the JSON doesn't say."""

    file: str = ""
    line: int = 0
    text: str = ""
    """How it begins there."""

    def __str__(self) -> str:
        return f" ({self.file}:{self.line})" if self.file else ""


# ---- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A number; `bits` only where the JSON tells (inputs of a calculation)."""

    value: int
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class Bool:
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field of a header or metadata instance; `$valid$` is the header's validity."""

    header: str
    field: str


@dataclass(frozen=True, slots=True)
class StackField:
    """A field of the last header extracted to a stack."""

    stack: str
    field: str


@dataclass(frozen=True, slots=True)
class UnionStackField:
    """A field of the last union extracted to a union stack."""

    stack: str
    member: str
    field: str


@dataclass(frozen=True, slots=True)
class Named:
    """An object by name: `kind` as in the JSON (header, header_stack, register_array, ...)."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Local:
    """A parameter of the action around it."""

    index: int


@dataclass(frozen=True, slots=True)
class Lookahead:
    """Bits of the packet ahead of the parser."""

    offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Text:
    """A string, as in log messages."""

    value: str


@dataclass(frozen=True, slots=True)
class Vector:
    """A list of values."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """The rest of the packet, as input of a calculation."""


@dataclass(frozen=True, slots=True)
class Op:
    """An operation; `left` is missing in unary ones, `cond` is there in `?` alone."""

    op: str
    left: Expr | None
    right: Expr
    cond: Expr | None = None


Expr = (
    Const
    | Bool
    | FieldRef
    | StackField
    | UnionStackField
    | Named
    | Local
    | Lookahead
    | Text
    | Vector
    | Payload
    | Op
)

# ---- headers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldDecl:
    """A field of a header type; `bits` of a varbit field is the most it can hold."""

    name: str
    bits: int
    signed: bool = False
    varbit: bool = False


@dataclass(frozen=True, slots=True)
class HeaderType:
    """A header or metadata type."""

    name: str
    fields: tuple[FieldDecl, ...]

    @property
    def fixed_bits(self) -> int:
        """Bits without the varbit field."""
        return sum(f.bits for f in self.fields if not f.varbit)

    @property
    def max_bytes(self) -> int:
        """Bytes with a full varbit field."""
        return (sum(f.bits for f in self.fields) + 7) // 8


@dataclass(frozen=True, slots=True)
class Header:
    """A header or metadata instance."""

    name: str
    id: int
    type: HeaderType
    metadata: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """A header stack and the instances in it."""

    name: str
    type: HeaderType
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """A header union: its instances, in the order of its members."""

    name: str
    members: tuple[str, ...]
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnionStack:
    """A stack of unions, by their names."""

    name: str
    members: tuple[str, ...]
    unions: tuple[str, ...]


# ---- behaviour ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Primitive:
    """A step of an action, or of a parser state."""

    op: str
    params: tuple[Expr, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Action:
    """An action: its parameters as (name, bits)."""

    name: str
    id: int
    params: tuple[tuple[str, int], ...]
    primitives: tuple[Primitive, ...]

    @property
    def source(self) -> Source:
        """Where its first step stands."""
        return self.primitives[0].source if self.primitives else Source()


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a parser state goes on; `value` None: always; `next` None: accept."""

    value: int | None
    mask: int | None
    vset: str | None
    next: str | None


@dataclass(frozen=True, slots=True)
class ParseState:
    """A state of a parser."""

    name: str
    ops: tuple[Primitive, ...]
    key: tuple[Expr, ...]
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser."""

    name: str
    start: str
    states: tuple[ParseState, ...]


@dataclass(frozen=True, slots=True)
class TableKey:
    """A field of a table's key, with the static mask if there is one."""

    name: str
    target: FieldRef
    match: MatchKind
    mask: int | None


@dataclass(frozen=True, slots=True)
class ConstEntry:
    """An entry that the program comes with; for each key field a value and a mask (or bounds)."""

    key: tuple[tuple[int, int], ...]
    priority: int
    action: int
    params: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A match-action table; actions by id."""

    name: str
    key: tuple[TableKey, ...]
    actions: tuple[int, ...]
    size: int
    with_counters: bool
    support_timeout: bool
    next: Mapping[str, str | None]
    base_next: str | None
    default_action: int | None
    default_params: tuple[int, ...]
    default_const: bool
    entries: tuple[ConstEntry, ...]
    is_const: bool
    source: Source
    profile: str | None = None
    meter: str | None = None


@dataclass(frozen=True, slots=True)
class Conditional:
    """An `if` of a control."""

    name: str
    expression: Expr
    true_next: str | None
    false_next: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class ActionCall:
    """A direct call of an action in a control."""

    name: str
    action: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Ingress or egress."""

    name: str
    init: str | None
    tables: tuple[Table, ...]
    conditionals: tuple[Conditional, ...]
    calls: tuple[ActionCall, ...]


@dataclass(frozen=True, slots=True)
class Calculation:
    """A named hash or checksum over some input."""

    name: str
    algo: str
    inputs: tuple[Expr, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that is verified after the parser or updated before the deparser."""

    target: FieldRef
    calculation: str
    verify: bool
    update: bool
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class FieldList:
    """Fields that a clone keeps, or that a digest carries."""

    id: int
    name: str
    elements: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """A register, counter or meter; `bits` of a counter: 0; of a meter: 1 packets, 2 bytes."""

    name: str
    cells: int
    bits: int


@dataclass(frozen=True, slots=True)
class DirectMeter:
    """A meter of each entry of a table, and the field that its colour goes to."""

    kind: int
    target: FieldRef


@dataclass(frozen=True, slots=True)
class Profile:
    """An action profile; `selector` is what its groups choose by."""

    name: str
    size: int
    selector: Calculation | None


@dataclass(frozen=True, slots=True)
class Program:
    """All of it."""

    headers: Mapping[str, Header]
    stacks: Mapping[str, Stack]
    unions: Mapping[str, Union]
    union_stacks: Mapping[str, UnionStack]
    errors: Mapping[str, int]
    parser: Parser
    deparser: tuple[str, ...]
    ingress: Pipeline
    egress: Pipeline
    actions: Mapping[int, Action]
    calculations: Mapping[str, Calculation]
    checksums: tuple[Checksum, ...]
    field_lists: Mapping[int, FieldList]
    digests: tuple[FieldList, ...]
    registers: tuple[Array, ...]
    counters: tuple[Array, ...]
    meters: tuple[Array, ...]
    direct_meters: Mapping[str, DirectMeter]
    profiles: tuple[Profile, ...]
    value_sets: Mapping[str, int]
    """Name to the most members."""
    aliases: Mapping[tuple[str, str], str]
    """(header, field) to the name that bmv2 knows it by, such as `intrinsic_metadata.mcast_grp`."""
