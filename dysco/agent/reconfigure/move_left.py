"""The left anchor of a move: a session's state goes from one host to another, and the path with it.

    LOCKING --> PREPARING --> HOLDING --> MOVING --> SWITCHING --> RELEASING --> FINISHED
       |            |            |           |
       '------------'------------'-----------'--> CANCELLING --> FAILED

    left anchor L      old host X        new host Y        right anchor R (none if an end moves)
    PREPARING  MoveOut ->      MoveIn ->         Join ->         MoveDone(PREPARE) --> L
    HOLDING    its gate holds; DoMove(HOLD) -------------------> its gate holds
    MOVING     DoMove(EXPORT) -> shut, export; Chunks -> import; MoveDone(EXPORT) --> L
    SWITCHING  new path, still holding; DoMove(SWITCH) --------> new path, lets go
                               DoMove(SETTLE) -> an end is thawed
    RELEASING  lets go; Release -> X drops its copy

L alone decides, when it hears that the state is imported; it journals that before it acts. Before,
everything goes back: X opens its gate again, and nothing of its state was lost, because nothing
passed it since the copy. Afterwards nothing does. There is no handshake and no cutoff: what Y
continues is the same path in the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    CancelLock,
    Do,
    DoMove,
    Leg,
    LetGo,
    Message,
    MoveDone,
    MoveFailed,
    MoveStep,
    NackLock,
    OpenWay,
    Post,
    ReconfigurationId,
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


class MoveState(Enum):
    """Where a move stands at its left anchor."""

    LOCKING = "locking"
    PREPARING = "preparing"
    HOLDING = "holding"
    MOVING = "moving"
    SWITCHING = "switching"
    RELEASING = "releasing"
    FINISHED = "finished"
    CANCELLING = "cancelling"
    FAILED = "failed"


OVER = frozenset({MoveState.FINISHED, MoveState.FAILED})
_BEFORE = frozenset({MoveState.LOCKING, MoveState.PREPARING, MoveState.HOLDING, MoveState.MOVING})
"""Nothing is decided yet."""
_HOLDS = frozenset({MoveState.HOLDING, MoveState.MOVING, MoveState.SWITCHING, MoveState.CANCELLING})
_PASSING = frozenset({"patience", "_waits", "_spent", "_kept"})
_DECIDED = frozenset({MoveState.SWITCHING, MoveState.RELEASING, MoveState.FINISHED})


@dataclass(frozen=True, slots=True)
class Parties:
    """Who takes part in a move, beside the left anchor."""

    old: int
    new: int
    right: int | None
    """None: the session ends at the new host."""


class LeftMove(NoSwitch):
    """One move of one session's state, at its left anchor."""

    def __init__(self, request: RequestLock, parties: Parties, patience: Patience) -> None:
        self.request = request
        self.parties = parties
        self.id: ReconfigurationId = request.id
        self.patience = patience
        self.state = MoveState.LOCKING
        self.why = ""
        self._waits = patience.first
        self._spent = 0.0
        self._kept = 0.0
        self._path: Path | None = None
        """The place of the new path in the leg."""
        self._done: frozenset[MoveStep] = frozenset()
        """What was done of the switch, beyond this host."""
        self._ended = False

    def __getstate__(self) -> dict[str, object]:
        """For the journal: how long it has waited is no part of it."""
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    def __setstate__(self, state: dict[str, object]) -> None:
        """From the journal; whoever reads it sets `patience`."""
        vars(self).update(state)
        self.patience = Patience()
        self._waits = self.patience.first
        self._spent = self._kept = 0.0

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    def start(self) -> list[Do]:
        """The first request; the caller's own lock sends it on."""
        return [self._report(), Wake(self._waits)]

    def recover(self, leg: Leg) -> list[Do]:
        """After a restart: what is not decided goes back, what is goes on."""
        if self.state in _BEFORE:
            return self.cancel(leg, "the left anchor's agent was restarted")
        entry, held = leg.entry, leg.entry.gate is Gate.HELD
        if self.state in _DECIDED and self._path is not None:
            entry = replace(entry, path=self._path)
        out: list[Do] = [SetEntry(entry)] if held or entry != leg.entry else []
        if held and self.state is not MoveState.SWITCHING:
            # What was held is gone, but the host may not speak first: see Holds.
            out.append(LetGo())
        if not self.is_over:
            self._waits = self.patience.first
            out += [*self._say(), self._wait()]
        return out

    def wake(self, leg: Leg) -> list[Do]:
        """The timer ran out: say it again, or give up."""
        if self.is_over:
            return []
        self._spent += self._waits
        if self._spent >= self.patience.end:
            match self.state:
                case MoveState.SWITCHING:
                    # Who comes back learns it when it asks, or with the Release.
                    return self._release()
                case MoveState.RELEASING:
                    return self._go(MoveState.FINISHED)
                case MoveState.CANCELLING:
                    return self._go(MoveState.FAILED)
        late = self.state is MoveState.SWITCHING and self._spent >= self.patience.move
        if late or self.state is MoveState.CANCELLING:
            return [*self._repeat(), LetGo()]
        limit = {
            MoveState.LOCKING: self.patience.lock,
            MoveState.PREPARING: self.patience.connect,
            MoveState.HOLDING: self.patience.hold,
            MoveState.MOVING: self.patience.move,
        }.get(self.state)
        if limit is not None and self._spent >= limit:
            return self.cancel(leg, f"no answer while {self.state.value} for {limit:g} s")
        return self._repeat()

    def _repeat(self) -> list[Do]:
        self._waits = min(self._waits * 2, self.patience.longest)
        return [*self._say(), *self._keep(), self._wait()]

    def _keep(self) -> list[Do]:
        """Renews the lease of the hops' locks."""
        if self.state is not MoveState.SWITCHING:
            return []
        if self._spent - self._kept < self.patience.keep:
            return []
        self._kept = self._spent
        return [Tell(Toward.RIGHT, self.request)]

    def _say(self) -> list[Do]:
        """What this state repeats."""
        parties, right, done = self.parties, self.request.right, self._done
        out: list[Do] = []
        match self.state:
            case MoveState.LOCKING:
                out.append(Tell(Toward.RIGHT, self.request))
            case MoveState.PREPARING:
                out.append(OpenWay())
            case MoveState.HOLDING if parties.right is not None:
                out.append(Post(parties.right, DoMove(self.id, MoveStep.HOLD)))
            case MoveState.MOVING:
                out.append(Post(parties.old, DoMove(self.id, MoveStep.EXPORT)))
            case MoveState.SWITCHING:
                if parties.right is not None and MoveStep.SWITCH not in done:
                    out.append(Post(parties.right, DoMove(self.id, MoveStep.SWITCH)))
                if MoveStep.SETTLE not in done:
                    out.append(Post(parties.new, DoMove(self.id, MoveStep.SETTLE)))
            case MoveState.RELEASING:
                out.append(Tell(Toward.RIGHT, Release(self.id, right)))
            case MoveState.CANCELLING:
                end = Release if self._ended else CancelLock
                out.append(Tell(Toward.RIGHT, end(self.id, right)))
            case _:
                pass
        return out

    def message(self, message: Message, leg: Leg) -> list[Do]:
        """A message for this move; one that its state has no use for changes nothing."""
        match message, self.state:
            case AckLock(along=True), MoveState.LOCKING:
                return self.cancel(leg, "a NAT of the network stands between the hosts of the move")
            case AckLock(), MoveState.LOCKING:
                return self._go(MoveState.PREPARING)
            case NackLock(), MoveState.LOCKING:
                return self.cancel(leg, message.why)
            case MoveFailed(), MoveState.PREPARING | MoveState.HOLDING | MoveState.MOVING:
                return self.cancel(leg, message.why)
            case MoveDone(step=MoveStep.PREPARE), MoveState.PREPARING:
                return self._hold(leg)
            case MoveDone(step=MoveStep.HOLD), MoveState.HOLDING:
                return self._go(MoveState.MOVING)
            case MoveDone(step=MoveStep.EXPORT), MoveState.MOVING:
                return self._imported(leg)
            case MoveDone(step=MoveStep.SWITCH | MoveStep.SETTLE), MoveState.SWITCHING:
                return self._also_done(message.step)
            case AckRelease(), MoveState.RELEASING:
                return self._go(MoveState.FINISHED)
            case ((AckCancel() | AckRelease()), MoveState.CANCELLING):
                # The old host is open again: what is held goes there.
                return [*self._go(MoveState.FAILED), LetGo()]
            case MoveDone(step=MoveStep.EXPORT), _:
                return self._how_it_went()
            case _:
                return []

    def _how_it_went(self) -> list[Do]:
        """The new host has not heard it."""
        new = self.parties.new
        if self.state in (MoveState.CANCELLING, MoveState.FAILED):
            return [Post(new, CancelLock(self.id, new))]
        if self.state in _DECIDED:
            return [Post(new, DoMove(self.id, MoveStep.SETTLE))]
        return []

    def _hold(self, leg: Leg) -> list[Do]:
        """All is ready on the new path: from here on the host waits."""
        entry = replace(leg.entry, gate=Gate.HELD, hold=self.hold)
        self._path = leg.entry.path.other
        state = MoveState.MOVING if self.parties.right is None else MoveState.HOLDING
        return [SetEntry(entry, keep_spare=True), *self._go(state)]

    @property
    def hold(self) -> int:
        """Names this move's time of holding in the data plane."""
        return self.request.epoch & ~1 or 2

    def _imported(self, leg: Leg) -> list[Do]:
        """The new host has the state: decided."""
        entry = leg.entry if self._path is None else replace(leg.entry, path=self._path)
        return [SetEntry(entry), *self._go(MoveState.SWITCHING)]

    def _also_done(self, step: MoveStep) -> list[Do]:
        """The right anchor has the new path, or the new host has settled."""
        self._done |= {step}
        wanted = {MoveStep.SETTLE}
        if self.parties.right is not None:
            wanted.add(MoveStep.SWITCH)
        return self._release() if wanted <= self._done else []

    def _release(self) -> list[Do]:
        """All is on the new path: what is held follows."""
        return [*self._go(MoveState.RELEASING), LetGo()]

    def cancel(self, leg: Leg, why: str) -> list[Do]:
        """Go back to the old host, if nothing is decided yet."""
        if self.state not in _BEFORE:
            return []
        self.why = why
        spare: list[Do] = [] if self.state is MoveState.LOCKING else [SetEntry(leg.entry)]
        return [*self._go(MoveState.CANCELLING), *spare]

    def session_over(self, leg: Leg) -> list[Do]:
        """The session ended: what is left is to free the hops, which may not have seen its end."""
        if self.is_over or self.state is MoveState.RELEASING or self._ended:
            return []
        self._ended = True
        self.why = self.why or "the session ended"
        return [*self._go(MoveState.CANCELLING), LetGo()]

    # What the other kind of reconfiguration is told.

    def new_path(self, segment: Segment, leg: Leg) -> list[Do]:
        """There is no handshake: a late segment of the old path."""
        return []

    def _go(self, state: MoveState) -> list[Do]:
        self.state = state
        self._spent = self._kept = 0.0
        self._waits = self.patience.first
        out: list[Do] = [self._report()]
        if state in OVER:
            return [*out, Wake(0)]
        return [*out, *self._say(), self._wait()]

    def _wait(self) -> Wake:
        """Until it is said again: not longer where others wait too, while packets are held."""
        return Wake(self._waits, exactly=self.state in _HOLDS)

    def _report(self) -> Report:
        return Report(self.id, self.state.value, self.why)
