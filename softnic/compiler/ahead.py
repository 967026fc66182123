"""How far ingress may run ahead: as long as it touches nothing but its own packet.

Several packets do that part side by side, each up to its first lookup in a large table, so that
their waits for memory overlap (`runtime/switch.c`); the rest of ingress is done packet by packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softnic.compiler import ir
from softnic.dataplane import MatchKind

_OWN = frozenset(
    {
        "assign",
        "modify_field",
        "set",
        "assign_VL",
        "assign_header",
        "copy_header",
        "assign_header_stack",
        "assign_union_stack",
        "assign_union",
        "add_header",
        "remove_header",
        "push",
        "pop",
        "mark_to_drop",
        "drop",
        "no_op",
        "modify_field_with_hash_based_offset",
        "_jump",
        "_jump_if_zero",
    }
)
"""Steps that read and write the packet's own headers and metadata alone."""
_IN_PARSER = _OWN | {"extract", "extract_VL", "verify", "shift", "advance"}

_LARGE = 4096
"""Entries that don't fit the nearest cache (runtime/table.c)."""

Node = ir.Table | ir.Conditional | ir.ActionCall


@dataclass(frozen=True, slots=True)
class Ahead:
    """The nodes that are reached, with a number for each; `runs`: those that may be executed."""

    stops: Mapping[str, int]
    runs: frozenset[str]

    @property
    def end(self) -> int:
        """The number of ingress's end."""
        return len(self.stops) + 1


NOTHING = Ahead({}, frozenset())


def looked_up(t: ir.Table) -> bool:
    """True if it is a table whose lookups can be foreseen, and may become large."""
    return bool(t.key) and t.size >= _LARGE and all(k.match is MatchKind.EXACT for k in t.key)


def ahead_of(program: ir.Program) -> Ahead:
    """Find out; `NOTHING` where no lookup can be foreseen."""
    ops = {op.op for state in program.parser.states for op in state.ops}
    if program.ingress.init is None or not ops <= _IN_PARSER:
        return NOTHING
    walk = _Walk(program)
    walk.leads(program.ingress.init)
    worth = [name for name, leads in walk.found.items() if leads]
    if not worth:
        return NOTHING
    runs = frozenset(name for name in worth if walk.may_run(name))
    stops = dict.fromkeys([*worth, *(n for name in runs for n in walk.following(name))])
    return Ahead({name: i for i, name in enumerate(stops, 1)}, runs)


class _Walk:
    """From a node on, as far as it may run ahead."""

    def __init__(self, program: ir.Program) -> None:
        p = program.ingress
        self._nodes: dict[str, Node] = {t.name: t for t in p.tables}
        self._nodes |= {c.name: c for c in p.conditionals}
        self._nodes |= {c.name: c for c in p.calls}
        self._own = {a.id for a in program.actions.values() if {s.op for s in a.primitives} <= _OWN}
        self.found: dict[str, bool] = {}

    def leads(self, name: str) -> bool:
        """True if it is, or leads to, a lookup that can be foreseen."""
        if name not in self.found:
            node = self._nodes[name]
            self.found[name] = isinstance(node, ir.Table) and looked_up(node)
            further = self.following(name) if self.may_run(name) else []
            leading = [n for n in further if self.leads(n)]  # each of them is to be found
            self.found[name] |= bool(leading)
        return self.found[name]

    def may_run(self, name: str) -> bool:
        """True if it touches the packet alone."""
        match self._nodes[name]:
            case ir.Table() as t:
                own = self._own.issuperset(t.actions)
                return own and not (t.profile or t.meter or looked_up(t))
            case ir.ActionCall() as call:
                return call.action in self._own
        return True

    def following(self, name: str) -> list[str]:
        """What may come next."""
        match self._nodes[name]:
            case ir.Table() as t:
                found = [*t.next.values(), t.base_next]
            case ir.Conditional() as c:
                found = [c.true_next, c.false_next]
            case ir.ActionCall() as call:
                found = [call.next]
        return [n for n in found if n is not None]
