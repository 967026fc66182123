"""How long answers take here, so that nothing is repeated while its answer may still be waiting.

As TCP does it (RFC 6298): mean and deviation of what was measured, from a question to the answer's
handling, other sessions' work in between included. A repeat that comes sooner only makes the queue
longer that the answer waits in.
"""

from __future__ import annotations

_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4
LONGEST = 1.0
"""Seconds: however slow answers are, what is lost is said again by then."""


class Pace:
    """One agent's measure of its own and its peers' speed."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def took(self, seconds: float) -> None:
        """An answer came after so long."""
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self._mean - seconds) - self._deviation) * _DEVIATION_GAIN
        self._mean += (seconds - self._mean) * _MEAN_GAIN

    def waited(self, seconds: float) -> None:
        """None has come for so long."""
        if seconds > self._mean:
            self.took(seconds)

    def patient(self, seconds: float) -> float:
        """How long to wait where it would be `seconds` if answers took no time."""
        return max(seconds, min(LONGEST, self._mean + _DEVIATIONS * self._deviation))
