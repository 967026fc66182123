"""The right anchor of a move: it joins the new path, holds what its host sends, and switches.

    LOCKED --> JOINED <--> HOLDING --> SWITCHED --> FINISHED
       '----------'----------'--> CANCELLED

It holds for a bounded time: if the left anchor is not heard of then, the host's segments take the
old path again, and it may still switch later. What of them finds the old host's gate shut is lost
there, and TCP repeats it.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    CancelLock,
    Deltas,
    Do,
    DoMove,
    Ends,
    Join,
    Leg,
    LetGo,
    Message,
    MoveDone,
    MoveStep,
    Opening,
    Post,
    Release,
    Report,
    RequestLock,
    SetEntry,
    Tell,
    Toward,
    Wake,
)
from dysco.agent.reconfigure.no_switch import NoSwitch
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.state import Gate, Path


class JoinState(Enum):
    """Where a move stands at its right anchor."""

    LOCKED = "locked"
    JOINED = "joined"
    HOLDING = "holding"
    SWITCHED = "switched"
    FINISHED = "finished"
    CANCELLED = "cancelled"


OVER = frozenset({JoinState.FINISHED, JoinState.CANCELLED})


class RightMove(NoSwitch):
    """One move of one session's state, at its right anchor."""

    def __init__(self, request: RequestLock, patience: Patience) -> None:
        self.request = request
        self.id = request.id
        self.patience = patience
        self.state = JoinState.LOCKED
        self._path: Path | None = None

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    @property
    def may_join(self) -> bool:
        """True if the new host's subsession may take its place."""
        return self.state in (JoinState.LOCKED, JoinState.JOINED)

    def recover(self, leg: Leg) -> list[Do]:
        """After a restart: what was held is gone, the gate opens in the order of `Holds`."""
        entry, held = leg.entry, leg.entry.gate is Gate.HELD
        if self.state in (JoinState.SWITCHED, JoinState.FINISHED) and self._path is not None:
            entry = replace(entry, path=self._path)
        if self.state is JoinState.HOLDING:
            self.state = JoinState.JOINED
        keep = self.state is JoinState.JOINED
        if not held and entry == leg.entry:
            return []
        return [SetEntry(entry, keep_spare=keep), LetGo(switched=entry.path is not leg.entry.path)]

    def grant(self, ends: Ends, leg: Leg) -> list[Do]:
        """The lock is granted, the first time or again."""
        old = leg.entry.old
        deltas = Deltas(old.seq_in, old.seq_out, old.ts_in)
        return [Tell(Toward.LEFT, AckLock(self.id, ends, deltas, along=self.request.along))]

    def message(self, message: Message, leg: Leg) -> list[Do]:
        """A message for this move."""
        match message:
            case Join():
                return self._join(leg)
            case DoMove(step=MoveStep.HOLD):
                return self._hold(leg)
            case DoMove(step=MoveStep.SWITCH):
                return self._switch(leg)
            case Release():
                return self._end(leg, JoinState.FINISHED)
            case CancelLock():
                return self._end(leg, JoinState.CANCELLED)
            case _:
                return []

    def _join(self, leg: Leg) -> list[Do]:
        """The new host's subsession is in the leg's other place."""
        if not self.may_join:
            return []
        went = self._go(JoinState.JOINED)
        self._path = leg.entry.path.other
        done = Post(self.id.left, MoveDone(self.id, MoveStep.PREPARE))
        return [SetEntry(leg.entry, keep_spare=True), done, *went]

    def _hold(self, leg: Leg) -> list[Do]:
        done = Post(self.id.left, MoveDone(self.id, MoveStep.HOLD))
        if self.state is JoinState.HOLDING:
            return [done]
        if self.state is not JoinState.JOINED:
            return []
        hold = self.request.epoch & ~1 or 2
        entry = replace(leg.entry, gate=Gate.HELD, hold=hold)
        went = self._go(JoinState.HOLDING)
        return [SetEntry(entry, keep_spare=True), done, *went, Wake(2 * self.patience.move)]

    def wake(self, leg: Leg) -> list[Do]:
        """The left anchor was not heard of for too long."""
        if self.state is not JoinState.HOLDING:
            return []
        return [*self._go(JoinState.JOINED), LetGo()]

    def _switch(self, leg: Leg) -> list[Do]:
        done = Post(self.id.left, MoveDone(self.id, MoveStep.SWITCH))
        if self.state is JoinState.SWITCHED:
            return [done]
        taken = self._take(leg)
        if not taken:
            return []
        return [*taken, done, *self._go(JoinState.SWITCHED), LetGo(switched=True), Wake(0)]

    def _take(self, leg: Leg) -> list[Do]:
        """The new path, if it was joined."""
        if self.state not in (JoinState.JOINED, JoinState.HOLDING) or self._path is None:
            return []
        return [SetEntry(replace(leg.entry, path=self._path))]

    def _end(self, leg: Leg, state: JoinState) -> list[Do]:
        """The old path is over, or the move is off."""
        finished = state is JoinState.FINISHED
        answer = AckRelease(self.id) if finished else AckCancel(self.id)
        out: list[Do] = [Tell(Toward.LEFT, answer)]
        if self.is_over:
            return out
        spare: list[Do] = []
        if finished:
            # Also if the left anchor had no patience: it has the new path, or the session is over.
            spare += self._take(leg)
        elif self.state in (JoinState.JOINED, JoinState.HOLDING):
            spare.append(SetEntry(leg.entry))
        switched = finished and bool(spare)
        return [*spare, LetGo(switched=switched), *self._go(state), *out, Wake(0)]

    def forsaken(self, leg: Leg) -> list[Do]:
        """The left anchor was not heard of for the time of a lease: it stays as it is."""
        if self.is_over:
            return []
        switched = self.state is JoinState.SWITCHED
        state = JoinState.FINISHED if switched else JoinState.CANCELLED
        return self._end(leg, state)

    def session_over(self) -> list[Do]:
        """The session ended."""
        if self.is_over:
            return []
        return [*self._go(JoinState.CANCELLED), LetGo(), Wake(0)]

    # What the other kind of reconfiguration is told.

    def new_path(self, segment: Segment, leg: Leg, opening: Opening | None) -> list[Do]:
        """There is no handshake: a late segment of the old path."""
        return []

    def revoked(self, leg: Leg) -> list[Do]:
        """Nothing is revoked."""
        return []

    def _go(self, state: JoinState) -> list[Do]:
        if self.state is state:
            return []
        self.state = state
        return [Report(self.id, state.value)]
