"""How much of everything a run does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Counts and times of one run; `quick` ones show that it works, not how fast it is."""

    repeats: int
    seconds: int
    """Of one measurement of a rate."""
    round_trips: int
    connects: int
    """connect() calls of one measurement."""
    open_sessions: int
    """Open in the background, and for the memory."""
    parallel: tuple[int, ...]
    """Sessions at a time, for the goodput."""
    removed: int
    """Sessions that a proxy is taken out of."""

    @classmethod
    def full(cls, repeats: int | None = None) -> Scale:
        """For figures to report."""
        return cls(repeats or 5, 3, 2000, 300, 10_000, (1, 100, 1000), 600)

    @classmethod
    def quick(cls, repeats: int | None = None) -> Scale:
        """To see it run, in seconds."""
        return cls(repeats or 2, 1, 200, 20, 100, (1, 10), 40)
