"""What fails a run."""

from __future__ import annotations


class ComplaintError(AssertionError):
    """Something does not hold: a byte is wrong, a box saw what no TCP connection does."""
