"""The new host of a move: the session's mappings come first, then its state.

    ARRIVING --> IMPORTING --> IMPORTED --> SETTLED
       '-------------'------------'--> DROPPED

Until the state is imported, the session is not here: who hears nothing of the left anchor for a
lease drops it. From IMPORTED on the left anchor may have decided, so that this host asks it until
it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dysco.agent.events import Sides, StateVerb
from dysco.agent.model import FiveTuple
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.messages import (
    CallState,
    Chunk,
    Do,
    DoMove,
    Got,
    Join,
    Message,
    MoveDone,
    MoveFailed,
    MoveStep,
    Post,
    ReconfigurationId,
    Report,
    WakeMove,
)


class TargetState(Enum):
    """Where a move stands at the new host."""

    ARRIVING = "arriving"
    IMPORTING = "importing"
    IMPORTED = "imported"
    SETTLED = "settled"
    DROPPED = "dropped"


OVER = frozenset({TargetState.SETTLED, TargetState.DROPPED})
_PASSING = frozenset({"patience", "_pieces", "_spent", "_waits"})


@dataclass(frozen=True, slots=True)
class Between:
    """Whom the new host is between, and what it follows."""

    source: int
    """The old host."""
    was: Sides
    """The session as that has it."""
    right: int | None
    """The right anchor. None: the session ends here."""
    subsession: FiveTuple | None
    """Towards the right anchor."""


class Target:
    """One move of one session's state, at the host that it comes to."""

    def __init__(self, about: ReconfigurationId, between: Between, patience: Patience) -> None:
        self.id = about
        self.between = between
        self.patience = patience
        self.state = TargetState.ARRIVING
        self._pieces: dict[int, bytes] = {}
        self._spent = 0.0
        self._waits = patience.first

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    def __getstate__(self) -> dict[str, object]:
        """For the journal, which keeps no pieces: after a restart the state must come anew."""
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    def __setstate__(self, state: dict[str, object]) -> None:
        """From the journal; whoever reads it sets `patience`."""
        vars(self).update(state)
        self.patience = Patience()
        self._pieces = {}
        self._spent = 0.0
        self._waits = self.patience.first

    def recover(self) -> list[Do]:
        """After a restart: pieces that came are lost, and nobody knows how far the import was."""
        if self.state in (TargetState.ARRIVING, TargetState.IMPORTING):
            return [
                Post(self.id.left, MoveFailed(self.id, "the new host's agent was restarted")),
                WakeMove(self.patience.lease),
            ]
        match self.state:
            case TargetState.IMPORTED:
                return self._ask()
            case TargetState.SETTLED:
                return [CallState(StateVerb.RESUME)]
            case TargetState.DROPPED:
                return [CallState(StateVerb.DROP)]
            case _:
                return []

    def start(self) -> list[Do]:
        """The session is taken in."""
        return [Report(self.id, self.state.value), WakeMove(self.patience.lease)]

    def ready(self) -> list[Post]:
        """To be told to the next one when the mappings are in the device; nothing, if too late."""
        if self.state is not TargetState.ARRIVING:
            return []
        right, subsession = self.between.right, self.between.subsession
        if right is not None and subsession is not None:
            return [Post(right, Join(self.id, subsession))]
        return [Post(self.id.left, MoveDone(self.id, MoveStep.PREPARE))]

    def message(self, message: Message) -> list[Do]:
        """A message for this move."""
        match message:
            case Chunk():
                return self._chunk(message)
            case DoMove(step=MoveStep.SETTLE) if self.state is TargetState.IMPORTED:
                settled = [*self._go(TargetState.SETTLED), WakeMove(0)]
                return [*settled, *self._settled(), CallState(StateVerb.RESUME)]
            case DoMove(step=MoveStep.SETTLE) if self.state is TargetState.SETTLED:
                return self._settled()
            case _:
                return []

    def _settled(self) -> list[Do]:
        """A box passes what comes now. An end says so when it is thawed: `resumed`."""
        return self.resumed() if self.between.right is not None else []

    def resumed(self) -> list[Do]:
        """What comes is taken."""
        return [Post(self.id.left, MoveDone(self.id, MoveStep.SETTLE))]

    def _chunk(self, piece: Chunk) -> list[Do]:
        """One more piece; when all are there, the import begins."""
        whole = (1 << piece.count) - 1
        if self.state is not TargetState.ARRIVING:
            return [Post(self.between.source, Got(self.id, whole))]
        self._pieces[piece.index] = piece.data
        got = sum(1 << index for index in self._pieces)
        out: list[Do] = [Post(self.between.source, Got(self.id, got))]
        if got == whole:
            out += [*self._go(TargetState.IMPORTING), CallState(StateVerb.IMPORT)]
        return out

    @property
    def whole(self) -> bytes:
        """All pieces, in their order."""
        return b"".join(self._pieces[index] for index in sorted(self._pieces))

    def imported(self) -> list[Do]:
        """The state is in use here, as soon as packets come."""
        if self.state is not TargetState.IMPORTING:
            return []
        self._pieces.clear()
        self._spent = 0.0
        return [*self._go(TargetState.IMPORTED), *self._ask()]

    def failed(self, why: str) -> list[Do]:
        """It can't be imported."""
        if self.state not in (TargetState.ARRIVING, TargetState.IMPORTING):
            return []
        self._pieces.clear()
        return [Post(self.id.left, MoveFailed(self.id, why))]

    def _ask(self) -> list[Do]:
        """Say it until the left anchor has decided."""
        self._waits = self.patience.first
        return [self._done(), WakeMove(self._waits)]

    def _done(self) -> Do:
        return Post(self.id.left, MoveDone(self.id, MoveStep.EXPORT))

    def wake(self) -> list[Do]:
        """The timer ran out."""
        if self.state is TargetState.IMPORTED:
            self._spent += self._waits
            rare = self._spent >= self.patience.end
            longest = self.patience.lease if rare else self.patience.longest
            self._waits = min(self._waits * 2, longest)
            return [self._done(), WakeMove(self._waits)]
        return self.drop() if not self.is_over else []

    def session_over(self) -> list[Do]:
        """The session ended."""
        if self.state in (TargetState.ARRIVING, TargetState.IMPORTING):
            why = MoveFailed(self.id, "the session ended at the new host")
            return [Post(self.id.left, why), *self.drop()]
        return [] if self.is_over else [*self._go(TargetState.SETTLED), WakeMove(0)]

    def drop(self) -> list[Do]:
        """The move is off."""
        if self.is_over:
            return []
        return [*self._go(TargetState.DROPPED), WakeMove(0), CallState(StateVerb.DROP)]

    def _go(self, state: TargetState) -> list[Do]:
        self.state = state
        return [Report(self.id, state.value)]
