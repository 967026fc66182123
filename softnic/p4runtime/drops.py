"""Counts what is dropped, by reason, and says so in the log without flooding it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)
_QUIET_S = 10.0
"""Seconds between two log lines for one reason."""


class Drops:
    """Drop counters of one device; any thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._logged_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._native: Callable[[], Mapping[str, int]] = dict
        self._seen: Counter[str] = Counter()

    def include(self, native: Callable[[], Mapping[str, int]]) -> None:
        """Count also what native code lost, by its own sums."""
        self._native = native

    def look(self) -> None:
        """Say in the log what native code lost since the last look."""
        now = Counter(self._native())
        for reason in now - self._seen:
            self._say(reason, now[reason])
        self._seen = now

    def count(self, reason: str, n: int = 1) -> None:
        """Count `n` drops for `reason`."""
        with self._lock:
            self._counts[reason] += n
            total = self._counts[reason]
        self._say(reason, total)

    def _say(self, reason: str, total: int) -> None:
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._logged_s.get(reason, -_QUIET_S) < _QUIET_S:
                return
            self._logged_s[reason] = now_s
        _log.warning("dropped: %s (%d so far)", reason, total)

    def counts(self) -> dict[str, int]:
        """Drops so far by reason."""
        with self._lock:
            return dict(self._counts + Counter(self._native()))
