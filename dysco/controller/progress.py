"""What happened to reconfigurations: each step as an event, and each reconfiguration as a whole.

Progress --> Event (numbered, the last MAX_EVENTS are kept) --> whoever follows
         --> Reconfiguration: started, locked, switched, finished
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from dysco.agent.events import Progress

MAX_EVENTS = 8192
MAX_RECONFIGURATIONS = 4096

_LOCKED = frozenset({"connecting", "preparing"})
_SWITCHED = frozenset({"draining", "releasing"})
"""The first of them: a move has nothing to drain."""
OVER = frozenset({"finished", "failed"})


@dataclass(frozen=True, slots=True)
class Event:
    """A step of a reconfiguration at one of its anchors."""

    number: int
    at: float
    """Seconds since 1970."""
    host: str
    progress: Progress


@dataclass(slots=True)
class Reconfiguration:
    """One reconfiguration of one session, as its left anchor tells it; times as `Event.at`."""

    session: int
    left: str
    number: int
    state: str
    started: float
    right: str = ""
    through: tuple[str, ...] = ()
    why: str = ""
    locked: float | None = None
    switched: float | None = None
    """Both directions send new data on the new path."""
    finished: float | None = None
    """The old path is gone; or the old path has the session back, if it failed."""

    @property
    def is_over(self) -> bool:
        """True if nothing more will happen."""
        return self.state in OVER


class Chronicle:
    """The events of one daemon."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._number = 0
        self._news = asyncio.Event()
        self._known: OrderedDict[tuple[int, str, int], Reconfiguration] = OrderedDict()
        self._asked: dict[tuple[int, str], tuple[str, tuple[str, ...], float]] = {}

    def asked(self, session: int, left: str, right: str, through: tuple[str, ...]) -> float:
        """An operator asked for it: its time, which begins here, waiting included."""
        if len(self._asked) >= MAX_RECONFIGURATIONS:
            self._asked.pop(next(iter(self._asked)))
        now = time.time()
        # One that was accepted and has not begun keeps its place: this one will be refused.
        self._asked.setdefault((session, left), (right, through, now))
        return now

    def refused(self, session: int, left: str, at: float) -> None:
        """What was asked for then is not to be."""
        if self._asked.get((session, left), ("", (), 0.0))[2] == at:
            del self._asked[session, left]

    def add(self, host: str, progress: Progress) -> None:
        """A step."""
        now = time.time()
        self._number += 1
        self._events.append(Event(self._number, now, host, progress))
        if host == progress.left:
            self._note(progress, now)
        self._news.set()
        self._news = asyncio.Event()

    def _note(self, progress: Progress, now: float) -> None:
        known = self._known.get((progress.session, progress.left, progress.number))
        if known is None or (known.is_over and not known.number):
            known = self._begin(progress, now)
        known.state, known.why = progress.state, progress.why
        if progress.state in _LOCKED:
            known.locked = now
        elif progress.state in _SWITCHED:
            known.switched = known.switched or now
        elif progress.state in OVER:
            known.finished = now

    def _begin(self, progress: Progress, now: float) -> Reconfiguration:
        """A new one, or one that has waited, which had no number yet."""
        of, number = (progress.session, progress.left), progress.number
        waited = self._known.get((*of, 0))
        if waited is not None and (not waited.is_over or not number):
            del self._known[(*of, 0)]
        if waited is None or waited.is_over:
            right, through, at = self._asked.pop(of, ("", (), now))
            waited = Reconfiguration(*of, number, progress.state, at, right, through)
        while len(self._known) >= MAX_RECONFIGURATIONS:
            self._known.popitem(last=False)
        waited.number = number
        self._known[(*of, number)] = waited
        return waited

    def reconfigurations(self, session: int | None = None) -> list[Reconfiguration]:
        """Those that are known, the oldest first."""
        return [r for r in self._known.values() if session is None or r.session == session]

    async def after(self, number: int, wait: float) -> list[Event]:
        """Events above a number; waits for the next one, up to `wait` seconds."""
        if wait > 0 and self._number <= number:
            try:
                await asyncio.wait_for(self._news.wait(), wait)
            except TimeoutError:
                return []
        return [event for event in self._events if event.number > number]
