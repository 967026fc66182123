"""TCP's sequence numbers and timestamps: modulo 2**32, compared by their difference (RFC 1982).

Two numbers are comparable while they are less than 2**31 apart; what bounds that, the caller says.
"""

from __future__ import annotations

MODULUS = 1 << 32
_MASK = MODULUS - 1
_HALF = 1 << 31


def add(number: int, amount: int) -> int:
    """The serial number `amount` after `number`; a negative amount goes back."""
    return (number + amount) & _MASK


def diff(one: int, other: int) -> int:
    """How far `one` is ahead of `other`: -2**31 to 2**31 - 1."""
    return ((one - other + _HALF) & _MASK) - _HALF


def latest(one: int, other: int) -> int:
    """The one that is ahead."""
    return one if ((one - other) & _MASK) < _HALF else other


def earliest(one: int, other: int) -> int:
    """The one that is behind."""
    return other if ((one - other) & _MASK) < _HALF else one
