"""Where the time of a set-up goes: how often something was done, and how long it took in all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Spent:
    """A count and a sum of seconds, as a Prometheus summary without quantiles has them."""

    count: int = 0
    seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of the `with`, whatever way it is left."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(time.perf_counter() - started)

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.seconds += seconds
