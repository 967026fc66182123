"""SACK blocks that cross a cutoff."""

from __future__ import annotations

from dysco.agent.reconfigure.segment import Block
from dysco.agent.reconfigure.serial import add, diff


def below(blocks: tuple[Block, ...], cutoff: int) -> tuple[Block, ...]:
    """What the blocks say of bytes before the cutoff."""
    kept = []
    for start, end in blocks:
        if diff(start, cutoff) < 0:
            kept.append((start, end if diff(end, cutoff) <= 0 else cutoff))
    return tuple(kept)


def above(blocks: tuple[Block, ...], cutoff: int) -> tuple[Block, ...]:
    """What the blocks say of bytes from the cutoff on."""
    kept = []
    for start, end in blocks:
        if diff(end, cutoff) > 0:
            kept.append((start if diff(start, cutoff) >= 0 else cutoff, end))
    return tuple(kept)


def shift(blocks: tuple[Block, ...], amount: int) -> tuple[Block, ...]:
    """The blocks in another sequence space."""
    return tuple((add(start, amount), add(end, amount)) for start, end in blocks)
