"""Sets of packets as ternary cubes: what a filter becomes before it is table entries.

A cube is (value, mask) over all the key's fields side by side in one integer; a bit outside the
mask is a don't-care. A set is a list of cubes, their union. `and` and `not` stay exact, so a filter
needs no help from priorities, and policies can't shadow one another by the way they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAX_CUBES = 512
"""Entries that one policy may need; what needs more is refused."""


class TooManyCubesError(ValueError):
    """The set needs more than MAX_CUBES entries."""


class Cube(NamedTuple):
    """All packets whose bits under `mask` are those of `value`."""

    value: int
    mask: int

    def covers(self, other: Cube) -> bool:
        """True if every packet of `other` is in this cube."""
        return self.mask & other.mask == self.mask and other.value & self.mask == self.value

    def meet(self, other: Cube) -> Cube | None:
        """The packets in both; None if there are none."""
        if (self.value ^ other.value) & self.mask & other.mask:
            return None
        return Cube(self.value | other.value, self.mask | other.mask)


Cubes = tuple[Cube, ...]

EVERYTHING: Cubes = (Cube(0, 0),)
NOTHING: Cubes = ()


def union(a: Iterable[Cube], b: Iterable[Cube]) -> Cubes:
    """Packets in `a` or `b`."""
    return _reduced((*a, *b))


def intersection(a: Cubes, b: Cubes) -> Cubes:
    """Packets in `a` and `b`. Raises TooManyCubesError."""
    return _reduced(met for x in a for y in b if (met := x.meet(y)) is not None)


def complement(a: Cubes) -> Cubes:
    """Packets not in `a`. Raises TooManyCubesError."""
    rest = EVERYTHING
    for cube in a:
        rest = intersection(rest, tuple(_outside(cube)))
    return rest


def _outside(cube: Cube) -> Iterator[Cube]:
    """What is not in a cube: for each of its bits, those that agree above it and differ there."""
    agreed = 0
    for position in range(cube.mask.bit_length() - 1, -1, -1):
        bit = 1 << position
        if cube.mask & bit:
            agreed |= bit
            yield Cube((cube.value ^ bit) & agreed, agreed)


def _reduced(cubes: Iterable[Cube]) -> Cubes:
    """The same set without cubes that lie within another one."""
    kept: list[Cube] = []
    for cube in cubes:
        if any(other.covers(cube) for other in kept):
            continue
        kept = [other for other in kept if not cube.covers(other)]
        kept.append(cube)
        if len(kept) > MAX_CUBES:
            raise TooManyCubesError
    return tuple(kept)


def span(low: int, high: int, bits: int) -> Cubes:
    """The values from `low` to `high`, both included, of a field of `bits` bits."""
    cubes: list[Cube] = []
    full = (1 << bits) - 1
    while low <= high:
        size = low & -low or 1 << bits
        while low + size - 1 > high:
            size >>= 1
        cubes.append(Cube(low, full & ~(size - 1)))
        low += size
    return tuple(cubes)
