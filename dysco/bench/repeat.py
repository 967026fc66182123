"""Measuring in turns, so that what changes on the machine meanwhile hits both sides alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")


def alternate(
    repeats: int, baseline: Callable[[int], _T], measured: Callable[[int], _U]
) -> tuple[list[_T], list[_U]]:
    """Call both with 0, 1, ... `repeats` - 1 in turns, the order swapped every time (ABBA)."""
    theirs: list[_T] = []
    ours: list[_U] = []
    for number in range(repeats):
        if number % 2 == 0:
            theirs.append(baseline(number))
            ours.append(measured(number))
        else:
            ours.append(measured(number))
            theirs.append(baseline(number))
    return theirs, ours
