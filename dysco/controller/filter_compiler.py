"""Filters as entries of the policy tables: one list of cubes for IPv4, one for IPv6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dysco.controller import ternary
from dysco.controller.filters import Dscp, Family, FilterError, Join, Net, Node, Not, Ports, parse
from dysco.controller.pipeline import Match
from dysco.controller.ternary import Cube, Cubes

FIELDS = ("src", "dst", "sport", "dport", "dscp")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields lie in a cube, from the left."""

    version: int
    bits: tuple[int, ...]

    def field(self, name: str, value: int, mask: int) -> Cube:
        """A cube about one field."""
        index = FIELDS.index(name)
        shift = sum(self.bits[index + 1 :])
        return Cube((value & mask) << shift, mask << shift)

    def matches(self, cube: Cube) -> tuple[Match, ...]:
        """(value, mask) for each field."""
        found: list[Match] = []
        value, mask = cube
        for bits in reversed(self.bits):
            full = (1 << bits) - 1
            found.append((value & full, mask & full))
            value, mask = value >> bits, mask >> bits
        return tuple(reversed(found))


V4 = Layout(4, (32, 32, 16, 16, 6))
V6 = Layout(6, (128, 128, 16, 16, 6))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A filter as matches of both policy tables, in the order of FIELDS."""

    v4: tuple[tuple[Match, ...], ...]
    v6: tuple[tuple[Match, ...], ...]


def compile_filter(text: str) -> Compiled:
    """The entries that match what the filter matches. Raises FilterError."""
    tree = parse(text)
    v4, v6 = (_cubes(tree, layout, text) for layout in (V4, V6))
    if not v4 and not v6:
        raise FilterError(text, 0, "the filter matches no TCP session at all")
    return Compiled(tuple(map(V4.matches, v4)), tuple(map(V6.matches, v6)))


def _cubes(node: Node, layout: Layout, text: str) -> Cubes:
    match node:
        case Family(version):
            return ternary.EVERYTHING if version in (0, layout.version) else ternary.NOTHING
        case Net(side, network):
            if network.version != layout.version:
                return ternary.NOTHING
            value, mask = int(network.network_address), int(network.netmask)
            return _either(side, lambda name: (layout.field(name, value, mask),))
        case Ports(side, low, high):
            spans = ternary.span(low, high, 16)
            return _either(
                side, lambda name: tuple(layout.field(f"{name[0]}port", *c) for c in spans)
            )
        case Dscp(value):
            return (layout.field("dscp", value, 63),)
        case Not() | Join():
            return _combined(node, layout, text)


def _combined(node: Not | Join, layout: Layout, text: str) -> Cubes:
    try:
        if isinstance(node, Not):
            return ternary.complement(_cubes(node.inner, layout, text))
        left, right = _cubes(node.left, layout, text), _cubes(node.right, layout, text)
        return (ternary.intersection if node.is_and else ternary.union)(left, right)
    except ternary.TooManyCubesError:
        raise FilterError(
            text,
            node.position,
            f"this needs more than {ternary.MAX_CUBES} table entries; "
            "use fewer 'not' and 'or', or split it into several policies",
        ) from None


def _either(side: str, cubes: Callable[[str], Cubes]) -> Cubes:
    names = (side,) if side else ("src", "dst")
    found: Cubes = ()
    for name in names:
        found = ternary.union(found, cubes(name))
    return found
