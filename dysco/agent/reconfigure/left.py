"""The left anchor: it locks, opens the new path, switches, waits for the drain, and releases.

    LOCKING --> CONNECTING --> SWITCHING --> DRAINING --> RELEASING --> FINISHED
       |            |              |
       '------------'--------------'--> CANCELLING --> FAILED

SWITCHING goes back only when the right anchor says that it has not latched and never will: until
then either the announcement arrives, or nothing of the new path was accepted. Nothing after it
goes back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import Enum

from dysco.agent.reconfigure import arrival, handover
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    AskRevoke,
    CancelLock,
    Cutoff,
    Deltas,
    Do,
    Drained,
    Latch,
    Leg,
    Message,
    NackLock,
    Opening,
    ReconfigurationId,
    Release,
    Report,
    RequestLock,
    Revoked,
    SendNew,
    SetEntry,
    TakeCutoff,
    Tell,
    Toward,
    Wake,
    WindowUpdate,
)
from dysco.agent.reconfigure.segment import ACK, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import MAX_WINDOW, NewWay


class LeftState(Enum):
    """Where a reconfiguration stands at its left anchor."""

    LOCKING = "locking"
    CONNECTING = "connecting"
    SWITCHING = "switching"
    DRAINING = "draining"
    RELEASING = "releasing"
    FINISHED = "finished"
    CANCELLING = "cancelling"
    FAILED = "failed"


OVER = frozenset({LeftState.FINISHED, LeftState.FAILED})
_PASSING = frozenset({"patience", "_waits", "_spent", "_kept"})


@dataclass(frozen=True, slots=True)
class Patience:
    """Times of a reconfiguration, in seconds."""

    first: float = 0.05
    """Until a message is repeated for the first time; doubles from then on."""
    longest: float = 0.5
    lock: float = 3.0
    """Until a lock is given up."""
    connect: float = 2.0
    """Until the new path is given up."""
    relay: float = 0.1
    """Until an announcement without an answer goes by the agents, hop by hop."""
    revoke: float = 0.3
    """Until a switch without an answer is questioned."""
    end: float = 30.0
    """Until the hops are not told any more that it is over: their lease ends it."""
    keep: float = 10.0
    """How often the hops are told that it goes on."""
    at_once: int = 256
    """How many may be between their start and their switch at one host; others wait."""
    lease: float = 60.0
    """How long a hop keeps a lock without hearing of it."""
    hold: float = 0.2
    """How long a packet is held while state moves; and until the right anchor holds too."""
    move: float = 2.0
    """Until the new host has the state, else the move is off."""
    look: float = 0.002
    """How often the old host's registers are looked at before its state is copied."""
    quiet: float = 0.004
    """How long nothing must have passed there."""
    leave: float = 0.05
    """Until it is not waited for any longer: what then comes is dropped, and repeated by TCP."""


class LeftAnchor:
    """One reconfiguration of one session, at its left anchor."""

    def __init__(
        self,
        request: RequestLock,
        patience: Patience,
        source: random.Random,
    ) -> None:
        self.request = request
        self.id: ReconfigurationId = request.id
        self.patience = patience
        self.state = LeftState.LOCKING
        self.why = ""
        self.isn = source.getrandbits(32)
        self._waits = patience.first
        self._spent = 0.0
        self._kept = 0.0
        self._lock: AckLock | None = None
        self._drained_here = False
        self._drained_there = False
        self._entered_new = False
        self._ended = False
        self._stamp: int | None = None
        self._relayed = False

    def __getstate__(self) -> dict[str, object]:
        """For the journal: how long it has waited is no part of it."""
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    def __setstate__(self, state: dict[str, object]) -> None:
        """From the journal; whoever reads it sets `patience`."""
        vars(self).update(state)
        self.patience = Patience()
        self._waits = self.patience.first
        self._spent = self._kept = 0.0

    def start(self) -> list[Do]:
        """The first request; the caller's own lock sends it on."""
        return [self._report(), Wake(self._waits)]

    def recover(self, leg: Leg) -> list[Do]:
        """After a restart: what the journal says was to be done, and may not have been."""
        out: list[Do] = []
        new = leg.entry.new
        if new is not None and new.epoch == self.request.epoch:
            if self.state in (LeftState.RELEASING, LeftState.FINISHED):
                out.append(SetEntry(handover.settled(leg.entry, leg.registers)))
            elif self.state in (LeftState.CANCELLING, LeftState.FAILED):
                out.append(SetEntry(handover.withdrawn(leg.entry)))
        if not self.is_over:
            self._waits = self.patience.first
            out += [self._report(), Wake(self._waits)]
        return out

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    def wake(self, leg: Leg) -> list[Do]:
        """The timer ran out: say it again, or give up."""
        if self.is_over:
            return []
        self._spent += self._waits
        if news := self._heard(leg):
            return news
        if self._spent >= self.patience.end:
            if self.state is LeftState.RELEASING:
                return self._go(LeftState.FINISHED)
            if self.state is LeftState.CANCELLING:
                return self._go(LeftState.FAILED)
        limit = {
            LeftState.LOCKING: self.patience.lock,
            LeftState.CONNECTING: self.patience.connect,
        }.get(self.state)
        if limit is not None and self._spent >= limit:
            return self.cancel(leg, f"no answer while {self.state.value} for {limit} s")
        self._waits = min(self._waits * 2, self.patience.longest)
        return [*self._say(leg), *self._keep(), Wake(self._waits)]

    def _keep(self) -> list[Do]:
        """Renews the lease of the hops' locks."""
        if self.state not in (LeftState.SWITCHING, LeftState.DRAINING):
            return []
        if self._spent - self._kept < self.patience.keep:
            return []
        self._kept = self._spent
        return [Tell(Toward.RIGHT, self.request)]

    def refresh(self, leg: Leg) -> list[Do]:
        """The leg was read again: what a lost packet-in would have told."""
        return self._heard(leg) or self._relay(leg)

    def _relay(self, leg: Leg) -> list[Do]:
        """This side has latched, and the other data plane does not answer."""
        latched = leg.registers.latched == self.request.epoch
        if self.state is not LeftState.SWITCHING or not latched:
            return []
        return [self._cutoff(leg, known=False)] if self._spent >= self.patience.relay else []

    def _heard(self, leg: Leg) -> list[Do]:
        if leg.entry.new is None or leg.registers.known != leg.entry.new.epoch:
            return []
        if self.state is LeftState.SWITCHING:
            return self.announced(leg)
        if arrival.drained(leg.registers):
            return self.drained(leg)
        return []

    def _say(self, leg: Leg) -> list[Do]:
        """What this state repeats."""
        right = self.request.right
        match self.state:
            case LeftState.LOCKING:
                return [Tell(Toward.RIGHT, self.request)]
            case LeftState.CONNECTING:
                return [self._opening(leg)]
            case LeftState.SWITCHING:
                return [Latch(), *self._insist(leg)]
            case LeftState.RELEASING:
                return [Tell(Toward.RIGHT, Release(self.id, right))]
            case LeftState.CANCELLING if self._ended:
                return [Tell(Toward.RIGHT, Release(self.id, right))]
            case LeftState.CANCELLING:
                return [Tell(Toward.RIGHT, CancelLock(self.id, right))]
            case _:
                return []

    def _insist(self, leg: Leg) -> list[Do]:
        """The other anchor may never have latched."""
        if self._spent < self.patience.revoke or leg.entry.new is None:
            return []
        ask = AskRevoke(self.id)
        ways = (Toward.ALONG,) if self._goes_along else (Toward.ANCHOR, Toward.ALONG)
        return [Tell(way, ask) for way in ways]

    @property
    def _goes_along(self) -> bool:
        return self._lock is not None and self._lock.along

    def _cutoff(self, leg: Leg, *, known: bool) -> Do:
        r = leg.registers
        told = Cutoff(self.id, self.request.epoch, r.cutoff_out, r.edge_in, known)
        return Tell(Toward.ALONG, told)

    def message(self, message: Message, leg: Leg) -> list[Do]:
        """A message for this reconfiguration; one that its state has no use for changes nothing."""
        match message, self.state:
            case AckLock(), LeftState.LOCKING:
                return self._locked(message, leg)
            case NackLock(), LeftState.LOCKING:
                # A repeated request may still be under way: it must find the end of it.
                return self.cancel(leg, message.why)
            case Drained(), LeftState.SWITCHING | LeftState.DRAINING:
                self._drained_there = True
                return self._maybe_release(leg)
            case Cutoff(), LeftState.SWITCHING if message.epoch == self.request.epoch:
                self._relayed = True
                return [TakeCutoff(message)]
            case Revoked(), LeftState.SWITCHING:
                return self.cancel(leg, "the other anchor went back", revoked=True)
            case AckRelease(), LeftState.RELEASING:
                return self._go(LeftState.FINISHED)
            case AckCancel() | AckRelease(), LeftState.CANCELLING:
                return self._go(LeftState.FAILED)
            case _:
                return []

    def cancel(self, leg: Leg, why: str, *, revoked: bool = False) -> list[Do]:
        """Go back to the old path, if that is still possible."""
        possible = {LeftState.LOCKING, LeftState.CONNECTING}
        if self.state not in possible and not (revoked and self.state is LeftState.SWITCHING):
            return []
        self.why = why
        out: list[Do] = []
        if self._entered_new:
            out.append(SendNew(Segment(add(self.isn, 1), 0, RST, 0)))
            out.append(SetEntry(handover.withdrawn(leg.entry)))
        return [*out, *self._go(LeftState.CANCELLING, leg)]

    def session_over(self, leg: Leg) -> list[Do]:
        """The session ended: what is left is to free the hops, which may not have seen its end."""
        if self.is_over or self.state is LeftState.RELEASING or self._ended:
            return []
        self._ended = True
        self.why = self.why or "the session ended"
        return self._go(LeftState.CANCELLING, leg)

    def _locked(self, message: AckLock, leg: Leg) -> list[Do]:
        self._lock = message
        mine, theirs = self.request.ends, message.ends
        if mine.timestamps != theirs.timestamps:
            return self.cancel(leg, "timestamps are negotiated on one side only")
        if mine.sack != theirs.sack:
            return self.cancel(leg, "SACK is negotiated on one side only")
        if mine.ecn != theirs.ecn:
            return self.cancel(leg, "the same ECN is not negotiated on both sides")
        if mine.sends > theirs.takes or theirs.sends > mine.takes:
            return self.cancel(leg, "one host sends longer segments than the other takes (MSS)")
        if leg.registers.fin_sent:
            return self.cancel(leg, "the session is closing")
        self._entered_new = True
        return self._go(LeftState.CONNECTING, leg)

    def _opening(self, leg: Leg) -> Do:
        """The SYN, or the ACK that follows once the other side answered."""
        registers, new = leg.registers, leg.entry.new
        stamps = registers.ts_sent if self.request.ends.timestamps else None
        if new is None:
            if self._stamp is None:
                self._stamp = stamps
            stamps = self._stamp
            opening = Opening(self.id, self.request.ends, self._deltas(leg), stamps)
            return SendNew(Segment(self.isn, 0, SYN, MAX_WINDOW, tsval=stamps), opening)
        return SendNew(
            Segment(
                add(self.isn, 1),
                add(new.isn_in, 1),
                ACK,
                MAX_WINDOW,
                tsval=stamps,
                tsecr=new.ts_in,
            )
        )

    def new_path(self, segment: Segment, leg: Leg) -> list[Do]:
        """A segment of the handshake."""
        lock = self._lock
        if self.state is not LeftState.CONNECTING or lock is None:
            return []
        if segment.flags & RST:
            return self.cancel(leg, "the new path refused")
        if segment.flags & SYN:
            if leg.entry.new is not None:
                return [self._opening(leg)]
            new = self._new_way(segment, leg, lock)
            entry = replace(leg.entry, new=new)
            return [SetEntry(entry), self._opening(Leg(entry, leg.registers))]
        if leg.entry.new is None:
            return []
        out = self._go(LeftState.SWITCHING, leg)
        if leg.entry.new.edge is not None:
            out.append(WindowUpdate())
        return out

    def _deltas(self, leg: Leg) -> Deltas:
        """From this host to the other: this leg's own translation and all between."""
        total = self._lock.deltas if self._lock is not None else Deltas()
        old = leg.entry.old
        return total + Deltas(old.seq_out, old.seq_in, 0, old.ts_in)

    def _new_way(self, segment: Segment, leg: Leg, lock: AckLock) -> NewWay:
        deltas = self._deltas(leg)
        return NewWay(
            token=self.request.token,
            epoch=self.request.epoch,
            isn_out=self.isn,
            isn_in=segment.seq,
            delta_in=deltas.leftwards,
            delta_out=deltas.rightwards,
            ts_in=segment.tsval or 0,
            ts_shift=self._ts_shift(segment, deltas),
            scale_in=lock.ends.scale,
            edge=add(lock.ends.edge, -deltas.rightwards) if deltas.relays else None,
        )

    def _ts_shift(self, answer: Segment, deltas: Deltas) -> int | None:
        """What timestamps need, if our SYN's came through as it was; a box's clock serves both
        directions or none."""
        if deltas.relays or answer.tsval is None or answer.tsecr != self._stamp:
            return None
        return deltas.ts_leftwards

    def closing(self, leg: Leg) -> list[Do]:
        """The data plane refused to latch: its host has sent a FIN."""
        if self.state is not LeftState.SWITCHING:
            return []
        return self.cancel(leg, "the session is closing", revoked=True)

    def announced(self, leg: Leg) -> list[Do]:
        """The other anchor has latched: the data plane got its announcement."""
        if self.state is not LeftState.SWITCHING:
            return []
        told = [self._cutoff(leg, known=True)] if self._relayed else []
        return [*told, *self._go(LeftState.DRAINING, leg), *self._maybe_release(leg)]

    def drained(self, leg: Leg) -> list[Do]:
        """The data plane: this anchor needs the old path no more."""
        self._drained_here = True
        return self._maybe_release(leg)

    def _maybe_release(self, leg: Leg) -> list[Do]:
        if self.state is not LeftState.DRAINING or not (self._drained_here and self._drained_there):
            return []
        settled = handover.settled(leg.entry, leg.registers)
        return [SetEntry(settled), *self._go(LeftState.RELEASING, leg)]

    def _go(self, state: LeftState, leg: Leg | None = None) -> list[Do]:
        self.state = state
        self._spent = self._kept = 0.0
        self._waits = self.patience.first
        out: list[Do] = [self._report()]
        if state in OVER:
            return [*out, Wake(0)]
        if leg is not None:
            out += self._say(leg)
        if state is LeftState.SWITCHING and self._goes_along:
            # However slow answers are: a data plane's would be here.
            self._waits = self.patience.relay
            return [*out, Wake(self._waits, exactly=True)]
        return [*out, Wake(self._waits)]

    def _report(self) -> Report:
        return Report(self.id, self.state.value, self.why)
