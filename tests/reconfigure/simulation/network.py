"""Time, and links that lose, repeat, reorder and delay."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

LATE = 0.6
"""Seconds."""


class Clock:
    """Events in the order of their time; of equal times, in the order they were asked for."""

    __slots__ = ("_events", "_number", "now", "steps")

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self._number = number = self._number + 1
        heappush(self._events, (self.now + delay, number, call, args))

    def step(self) -> bool:
        """One event; False if there is none left."""
        if not self._events:
            return False
        self.now, _, call, args = heappop(self._events)
        self.steps += 1
        call(*args)
        return True


class Timer:
    """One that can be set again and stopped."""

    __slots__ = ("_call", "_clock", "_generation", "armed")

    def __init__(self, clock: Clock, call: Callable[[], None]) -> None:
        self._clock = clock
        self._call = call
        self._generation = 0
        self.armed = False

    def set(self, delay: float) -> None:
        self._generation += 1
        self.armed = True
        self._clock.after(delay, self._fire, self._generation)

    def stop(self) -> None:
        self._generation += 1
        self.armed = False

    def _fire(self, generation: int) -> None:
        if generation == self._generation:
            self.armed = False
            self._call()


@dataclass(frozen=True)
class Weather:
    """How bad a network is."""

    delay: float = 0.001
    jitter: float = 0.0
    loss: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    """How many come up to `LATE` seconds late."""


class Link:
    """One way from one place to another."""

    __slots__ = ("_last", "clock", "deliver", "source", "up", "weather")

    def __init__(
        self,
        clock: Clock,
        source: random.Random,
        weather: Weather,
        deliver: Callable[[Any], None],
    ) -> None:
        self.clock = clock
        self.source = source
        self.weather = weather
        self.deliver = deliver
        self.up = True
        self._last = 0.0

    def send(self, what: Any) -> None:
        weather = self.weather
        chance = self.source.random
        if not self.up or (weather.loss and chance() < weather.loss):
            return
        at = self.clock.now + weather.delay + weather.jitter * chance()
        if weather.late and chance() < weather.late:
            at += LATE * chance()
        elif weather.reorder and chance() < weather.reorder:
            at += weather.delay * 3 * chance()
        else:
            # Without reordering, what was sent later comes later.
            self._last = at = max(at, self._last)
        self.clock.after(at - self.clock.now, self._arrive, what)
        if weather.repeat and chance() < weather.repeat:
            self.clock.after(at - self.clock.now + weather.delay * chance(), self._arrive, what)

    def _arrive(self, what: Any) -> None:
        if self.up:
            self.deliver(what)
