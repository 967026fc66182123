"""The old host of a move: it lets what is in flight leave, shuts its gate, and gives a copy.

    LEAVING --> QUIETING --> EXPORTING --> SENDING --> GONE
       '-----------'-------------'------------'--> BACK

QUIETING waits until the registers of its legs stand still, but not for long: from EXPORTING on
nothing passes, and that alone makes sure that no change of the state is lost. What still was on its
way is dropped, and TCP repeats it.
"""

from __future__ import annotations

from enum import Enum

from dysco.agent.events import StateVerb
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.messages import (
    CallState,
    CloseHost,
    Do,
    DoMove,
    Got,
    Look,
    Message,
    MoveFailed,
    MoveOut,
    MoveStep,
    Post,
    ReconfigurationId,
    Report,
    SendFacts,
    SendState,
    WakeMove,
)
from dysco.agent.reconfigure.state import Registers


class SourceState(Enum):
    """Where a move stands at the old host."""

    LEAVING = "leaving"
    QUIETING = "quieting"
    EXPORTING = "exporting"
    SENDING = "sending"
    GONE = "gone"
    BACK = "back"


OVER = frozenset({SourceState.GONE, SourceState.BACK})
_PASSING = frozenset({"patience", "_seen", "_still", "_spent", "_waits"})
_SHUT = frozenset({SourceState.EXPORTING, SourceState.SENDING})


class Source:
    """One move of one session's state, at the host that it leaves."""

    def __init__(self, about: ReconfigurationId, patience: Patience) -> None:
        self.id = about
        self.to = 0
        """The new host, once it is known."""
        self.patience = patience
        self.state = SourceState.LEAVING
        self._got = 0
        self._count = 0
        self._seen: tuple[Registers, ...] = ()
        self._still = 0.0
        self._spent = 0.0
        self._waits = patience.first

    def __getstate__(self) -> dict[str, object]:
        """For the journal: what was seen, and how long it has waited, is no part of it."""
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    def __setstate__(self, state: dict[str, object]) -> None:
        """From the journal; whoever reads it sets `patience`."""
        vars(self).update(state)
        self.patience = Patience()
        self._seen = ()
        self._still = self._spent = 0.0
        self._waits = self.patience.first

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    @property
    def is_shut(self) -> bool:
        """True if its legs' gates are shut."""
        return self.state in _SHUT

    def recover(self) -> list[Do]:
        """After a restart: a copy that was made is lost with the agent."""
        match self.state:
            case SourceState.QUIETING | SourceState.EXPORTING | SourceState.SENDING:
                return [self._failed("the old host's agent was restarted")]
            case SourceState.BACK:
                return [CallState(StateVerb.RESUME)]
            case SourceState.GONE:
                return [CallState(StateVerb.DROP)]
            case _:
                return []

    def message(self, message: Message) -> list[Do]:
        """A message for this move."""
        match message, self.state:
            case MoveOut(to=to, subsession=subsession), SourceState.LEAVING:
                self.to = to
                return [SendFacts(to, subsession)]
            case DoMove(step=MoveStep.EXPORT), SourceState.LEAVING:
                self._spent = self._still = 0.0
                self._seen = ()
                return [*self._go(SourceState.QUIETING), Look(), WakeMove(self.patience.look)]
            case DoMove(step=MoveStep.EXPORT), SourceState.SENDING:
                return [SendState(self.to, self._got)]
            case Got(pieces=pieces), SourceState.SENDING:
                self._got |= pieces
                return []
            case _:
                return []

    def looked(self, registers: tuple[Registers, ...]) -> list[Do]:
        """The registers of all legs, as they are reported."""
        if self.state is SourceState.QUIETING and registers != self._seen:
            self._seen, self._still = registers, self._spent
        return []

    def wake(self) -> list[Do]:
        """The timer ran out."""
        patience = self.patience
        match self.state:
            case SourceState.QUIETING:
                self._spent += patience.look
                quiet = self._seen and self._spent - self._still >= patience.quiet
                if quiet or self._spent >= patience.leave:
                    went = self._go(SourceState.EXPORTING)
                    return [*went, CallState(StateVerb.EXPORT), WakeMove(patience.first)]
                return [Look(), WakeMove(patience.look)]
            case SourceState.EXPORTING:
                # The registers that go with the copy may have been reported in vain.
                return [Look(), WakeMove(patience.first)]
            case SourceState.SENDING if self._got != (1 << self._count) - 1:
                self._waits = min(self._waits * 2, patience.longest)
                return [SendState(self.to, self._got), WakeMove(self._waits)]
            case _:
                return []

    def exported(self, count: int) -> list[Do]:
        """The copy is there, in so many pieces."""
        if self.state is not SourceState.EXPORTING:
            return []
        self._count, self._got = count, 0
        self._waits = self.patience.first
        return [*self._go(SourceState.SENDING), SendState(self.to, 0), WakeMove(self._waits)]

    def failed(self, why: str) -> list[Do]:
        """It can't be copied."""
        return [self._failed(why)] if self.state is SourceState.EXPORTING else []

    def _failed(self, why: str) -> Do:
        return Post(self.id.left, MoveFailed(self.id, why))

    def back(self) -> list[Do]:
        """The move is off."""
        if self.is_over:
            return []
        was_shut = self.is_shut
        went = self._go(SourceState.BACK)
        return [*went, WakeMove(0), *([CallState(StateVerb.RESUME)] if was_shut else [])]

    def gone(self) -> list[Do]:
        """The new host has the session: ours is closed, when its state is dropped."""
        if self.is_over:
            return []
        was_shut = self.is_shut
        went = self._go(SourceState.GONE)
        return [*went, WakeMove(0), CallState(StateVerb.DROP) if was_shut else CloseHost()]

    def _go(self, state: SourceState) -> list[Do]:
        self.state = state
        return [Report(self.id, state.value)]
