"""How long answers take here, so that nothing is repeated while its answer may still be waiting.

As TCP does it (RFC 6298): mean and deviation of what was measured, from a question to the answer's
handling, other sessions' work in between included. A repeat that comes sooner only makes the queue
longer that the answer waits in.
"""

from __future__ import annotations

from collections.abc import Hashable

_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 4
_EACH = 0.004
"""Seconds that a step of one may take, when so many begin one that none was measured yet."""
LONGEST = 1.0
"""Seconds: however slow answers are, what is lost is said again by then."""


class Pace:
    """One agent's measure of its own and its peers' speed."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}
        """Who waits for an answer, any of which the others' may have to wait for."""
        self._mean = 0.0
        self._deviation = 0.0

    def asked(self, who: Hashable, now: float) -> None:
        """One waits from now on."""
        self._since[who] = now

    def answered(self, who: Hashable, now: float) -> None:
        """What it waited for has come; or it waits no longer, which tells as much."""
        since = self._since.pop(who, None)
        if since is not None:
            self._took(now - since)

    def unanswered(self, who: Hashable, now: float) -> None:
        """Nothing has come yet."""
        since = self._since.get(who)
        if since is not None and now - since > self._mean:
            self._took(now - since)

    def _took(self, seconds: float) -> None:
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self._mean - seconds) - self._deviation) * _DEVIATION_GAIN
        self._mean += (seconds - self._mean) * _MEAN_GAIN

    def patient(self, seconds: float) -> float:
        """How long to wait where it would be `seconds` if answers took no time."""
        measured = self._mean + _DEVIATIONS * self._deviation
        return max(seconds, min(LONGEST, max(measured, len(self._since) * _EACH)))
