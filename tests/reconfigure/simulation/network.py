"""Time, and links that lose, repeat, reorder and delay."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Mishap:
    """What becomes of one thing that is sent, or of one packet-in, if it doesn't just arrive."""

    where: str
    nth: int
    """Of all that is sent there, the first is 1."""
    lost: bool = False
    late: float = 0.0
    """Seconds more than the network's delay."""
    overtaken: bool = False
    """What is sent later may come earlier."""
    again: float | None = None
    """It comes twice, the second one so many seconds after the first."""


class Fate:
    """What becomes of what is sent: by chance, written down by chance, or as a script says.

    With a script, chance decides nothing; it is asked all the same, so that everything else that
    is drawn from the same source stays as it was.
    """

    def __init__(self, script: Sequence[Mishap] | None = None, *, written: bool = False) -> None:
        self.by_chance = script is None and not written
        self.script = None if script is None else {(m.where, m.nth): m for m in script}
        self.happened: list[Mishap] = []

    def of(self, drawn: Mishap) -> Mishap:
        """What happens, where chance says this."""
        if self.script is not None:
            drawn = self.script.get((drawn.where, drawn.nth), Mishap(drawn.where, drawn.nth))
        if drawn.lost or drawn.late or drawn.overtaken or drawn.again is not None:
            self.happened.append(drawn)
        return drawn


class Link:
    """One way from one place to another."""

    __slots__ = ("_last", "clock", "deliver", "fate", "nth", "source", "up", "weather", "where")

    def __init__(
        self,
        clock: Clock,
        source: random.Random,
        weather: Weather,
        deliver: Callable[[Any], None],
        fate: Fate,
        where: str,
    ) -> None:
        self.clock = clock
        self.source = source
        self.weather = weather
        self.deliver = deliver
        self.fate = fate
        self.where = where
        self.nth = 0
        self.up = True
        self._last = 0.0

    def send(self, what: Any) -> None:
        if not self.fate.by_chance:
            self._send(what, self.fate.of(self._drawn()))
            return
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

    def _drawn(self) -> Mishap:
        """As in `send`, the same draws in the same order."""
        weather, chance, where = self.weather, self.source.random, self.where
        self.nth += 1
        if weather.loss and chance() < weather.loss:
            return Mishap(where, self.nth, lost=True)
        late = weather.jitter * chance()
        overtaken = True
        if weather.late and chance() < weather.late:
            late += LATE * chance()
        elif weather.reorder and chance() < weather.reorder:
            late += weather.delay * 3 * chance()
        else:
            overtaken = False
        again = None
        if weather.repeat and chance() < weather.repeat:
            again = weather.delay * chance()
        return Mishap(where, self.nth, False, late, overtaken, again)

    def _send(self, what: Any, mishap: Mishap) -> None:
        if not self.up or mishap.lost:
            return
        at = self.clock.now + self.weather.delay + mishap.late
        if not mishap.overtaken:
            self._last = at = max(at, self._last)
        self.clock.after(at - self.clock.now, self._arrive, what)
        if mishap.again is not None:
            self.clock.after(at - self.clock.now + mishap.again, self._arrive, what)

    def _arrive(self, what: Any) -> None:
        if self.up:
            self.deliver(what)
