"""Lines for the operator, not more than can be read: what comes in floods is counted, not logged.

10 lines a second for each host and counter --> log
what is more                                --> "and N more", with the next line that passes
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from dysco.agent.events import Level, Tell

log = logging.getLogger("dysco.agent")

MAX_LINES = 10
"""In each SPAN seconds, for each host and counter."""
SPAN = 1.0

_LEVELS = {Level.DEBUG: logging.DEBUG, Level.INFO: logging.INFO, Level.WARNING: logging.WARNING}


@dataclass(slots=True)
class _Span:
    started: float
    lines: int = 0
    more: int = 0


class Told:
    """The log of one device's agents."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._spans: dict[tuple[int, str], _Span] = {}

    def tell(self, tell: Tell) -> None:
        """Log it, unless there were too many of its kind just now."""
        level = _LEVELS[tell.level]
        if not log.isEnabledFor(level):
            return
        now = self._now()
        kind = (tell.host.id, tell.counter)
        span = self._spans.get(kind)
        if span is None or now - span.started >= SPAN:
            more = span.more if span is not None else 0
            span = self._spans[kind] = _Span(now)
            if more:
                log.log(level, "host %s: and %d more (%s)", tell.host.name, more, tell.counter)
        if span.lines >= MAX_LINES:
            span.more += 1
            return
        span.lines += 1
        log.log(level, "host %s: %s (%s)", tell.host.name, tell.text, tell.counter)
