"""Waiting on conditions, always with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


class DeadlineError(Exception):
    """What was waited for didn't happen in time."""


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = 10.0, every: float = 0.02
) -> None:
    """Return once `condition()` is true; raises DeadlineError, naming `what`, after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise DeadlineError(f"waited {seconds:g} s for {what}")
        time.sleep(every)
