"""The right anchor: it grants the lock, answers the handshake, and tells when it is drained.

    LOCKED --> PREPARED --> DRAINING --> DRAINED --> FINISHED
       '-----------'--> REVOKED or cancelled

It latches by itself: its data plane does, when the left anchor's announcement comes.
"""

from __future__ import annotations

import random
from dataclasses import replace
from enum import Enum

from dysco.agent.reconfigure import arrival, handover
from dysco.agent.reconfigure.left import Patience
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
    Ends,
    Leg,
    Message,
    Opening,
    Release,
    Report,
    RequestLock,
    Revoke,
    Revoked,
    SendNew,
    SetEntry,
    TakeCutoff,
    Tell,
    Toward,
    Wake,
)
from dysco.agent.reconfigure.segment import ACK, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import MAX_WINDOW, NewWay


class RightState(Enum):
    """Where a reconfiguration stands at its right anchor."""

    LOCKED = "locked"
    PREPARED = "prepared"
    DRAINING = "draining"
    DRAINED = "drained"
    REVOKED = "revoked"
    FINISHED = "finished"
    CANCELLED = "cancelled"


_WAITING = frozenset({RightState.PREPARED, RightState.DRAINING, RightState.DRAINED})
OVER = frozenset({RightState.FINISHED, RightState.CANCELLED})
_PASSING = frozenset({"patience", "_waits"})


class RightAnchor:
    """One reconfiguration of one session, at its right anchor."""

    def __init__(self, request: RequestLock, patience: Patience, source: random.Random) -> None:
        self.request = request
        self.id = request.id
        self.patience = patience
        self.state = RightState.LOCKED
        self.isn = source.getrandbits(32)
        self.token = request.token
        self._waits = patience.first
        self._relayed = False

    def __getstate__(self) -> dict[str, object]:
        """For the journal: how long it has waited is no part of it."""
        return {name: value for name, value in vars(self).items() if name not in _PASSING}

    def __setstate__(self, state: dict[str, object]) -> None:
        """From the journal; whoever reads it sets `patience`."""
        vars(self).update(state)
        self.patience = Patience()
        self._waits = self.patience.first

    @property
    def is_over(self) -> bool:
        """True when nothing more is to be done."""
        return self.state in OVER

    def recover(self, leg: Leg) -> list[Do]:
        """After a restart: what the journal says was to be done, and may not have been."""
        new = leg.entry.new
        ours = new is not None and new.epoch == self.request.epoch
        out: list[Do] = []
        if self.state is RightState.PREPARED and not ours:
            self.state = RightState.LOCKED
        elif self.state is RightState.FINISHED and ours:
            out.append(SetEntry(handover.settled(leg.entry, leg.registers)))
        elif self.state is RightState.CANCELLED and ours:
            out.append(SetEntry(handover.withdrawn(leg.entry)))
        if self.state in _WAITING:
            self._waits = self.patience.first
            out += [self._report(), Wake(self._waits)]
        return out

    def grant(self, ends: Ends, leg: Leg) -> list[Do]:
        """The lock is granted, the first time or again."""
        old = leg.entry.old
        return [
            Tell(
                Toward.LEFT,
                AckLock(
                    self.id,
                    ends,
                    Deltas(old.seq_in, old.seq_out, old.ts_in),
                    self.request.along,
                ),
            )
        ]

    def wake(self, leg: Leg) -> list[Do]:
        """The timer ran out: say it again."""
        if news := self.refresh(leg):
            return news
        self._waits = min(self._waits * 2, self.patience.longest)
        out: list[Do] = [Wake(self._waits)]
        if self.state is RightState.DRAINED:
            out += self._tell(Drained(self.id), again=self._waits > 2 * self.patience.first)
        return out if self.state in _WAITING else []

    def _tell(self, message: Drained | Revoked, *, again: bool) -> list[Do]:
        """To the left anchor; `again`: directly, it may not arrive."""
        ways: list[Do] = []
        if not self.request.along:
            ways.append(Tell(Toward.ANCHOR, message))
        if again or not ways:
            ways.append(Tell(Toward.ALONG, message))
        return ways

    def refresh(self, leg: Leg) -> list[Do]:
        """The leg was read again: what a lost packet-in would have told."""
        if self.state is RightState.PREPARED and _latched(leg):
            return self.announced(leg)
        if self.state is RightState.DRAINING and arrival.drained(leg.registers):
            return self.drained(leg)
        return []

    def message(self, message: Message, leg: Leg) -> list[Do]:
        """A message for this reconfiguration."""
        match message:
            case AskRevoke():
                return self._revoke(leg)
            case Cutoff() if message.epoch == self.request.epoch:
                return self._relay(message, leg)
            case Release():
                return self._release(leg)
            case CancelLock():
                return self._cancel(leg)
            case _:
                return []

    def _relay(self, message: Cutoff, leg: Leg) -> list[Do]:
        """The left anchor's announcement, or ours, does not arrive: the agents hand them on."""
        if self.state is RightState.PREPARED and not _latched(leg):
            self._relayed = True
            return [TakeCutoff(message)]
        if self.state not in _WAITING:
            return []
        return [TakeCutoff(message)] if message.known else [self._cutoff(leg)]

    def _cutoff(self, leg: Leg) -> Do:
        r = leg.registers
        told = Cutoff(self.id, self.request.epoch, r.cutoff_out, r.edge_in, known=True)
        return Tell(Toward.ALONG, told)

    def _revoke(self, leg: Leg) -> list[Do]:
        if self.state is RightState.LOCKED:
            self.state = RightState.REVOKED
            return [*self._tell(Revoked(self.id), again=True), self._report()]
        if self.state is RightState.PREPARED and not _latched(leg):
            return [Revoke()]
        if self.state in (RightState.REVOKED, RightState.CANCELLED):
            # Also when a lease ended it: the left anchor, back again, would wait for ever.
            return self._tell(Revoked(self.id), again=True)
        return []

    def forsaken(self, leg: Leg) -> list[Do]:
        """The left anchor was not heard of for too long: go back if nothing is latched."""
        if self.state in (RightState.LOCKED, RightState.REVOKED):
            return self._cancel(leg)
        return self._revoke(leg)

    def revoked(self, leg: Leg) -> list[Do]:
        """The data plane will never latch."""
        new = leg.entry.new
        if self.state is not RightState.PREPARED or new is None:
            return []
        if leg.registers.revoked != new.epoch:
            return []
        self.state = RightState.REVOKED
        return [*self._tell(Revoked(self.id), again=True), self._report()]

    def _release(self, leg: Leg) -> list[Do]:
        out: list[Do] = [Tell(Toward.LEFT, AckRelease(self.id))]
        if self.state in (RightState.DRAINED, RightState.DRAINING):
            self.state = RightState.FINISHED
            entry = handover.settled(leg.entry, leg.registers)
            return [SetEntry(entry), *out, Wake(0), self._report()]
        return out

    def _cancel(self, leg: Leg) -> list[Do]:
        out: list[Do] = [Tell(Toward.LEFT, AckCancel(self.id))]
        if self.state in OVER:
            return out
        self.state = RightState.CANCELLED
        if leg.entry.new is not None and leg.entry.new.token == self.token:
            out.insert(0, SetEntry(handover.withdrawn(leg.entry)))
        return [*out, Wake(0), self._report()]

    def new_path(self, segment: Segment, leg: Leg, opening: Opening | None) -> list[Do]:
        """A segment of the handshake; `opening` is what the SYN's header said."""
        if segment.flags & RST:
            return []
        if segment.flags & SYN:
            if opening is None or self.state not in (RightState.LOCKED, RightState.PREPARED):
                return []
            answer = SendNew(self._answer(segment, leg))
            if self.state is RightState.PREPARED:
                return [answer]
            entry = replace(leg.entry, new=self._new_way(segment, opening))
            self.state = RightState.PREPARED
            return [SetEntry(entry), answer, Wake(self._waits), self._report()]
        new = leg.entry.new
        if self.state is not RightState.PREPARED or new is None or segment.has_content:
            return []
        stamps = leg.registers.ts_sent if self.request.ends.timestamps else None
        # Boxes believe no ACK that is older than the widest window: what is under way when it comes
        # was sent as the old path's ACKs allowed.
        return [
            SendNew(
                Segment(
                    add(self.isn, 1),
                    add(new.isn_in, 1),
                    ACK,
                    MAX_WINDOW,
                    tsval=stamps,
                    tsecr=segment.tsval or 0,
                )
            )
        ]

    def _new_way(self, segment: Segment, opening: Opening) -> NewWay:
        deltas, ends = opening.deltas, opening.ends
        clocks = deltas.relays or segment.tsval is None or segment.tsval != opening.tsval
        return NewWay(
            token=self.request.token,
            epoch=self.request.epoch,
            isn_out=self.isn,
            isn_in=segment.seq,
            delta_in=deltas.rightwards,
            delta_out=deltas.leftwards,
            ts_in=segment.tsval or 0,
            ts_shift=None if clocks else deltas.ts_rightwards,
            scale_in=ends.scale,
            edge=add(ends.edge, -deltas.leftwards) if deltas.relays else None,
        )

    def _answer(self, segment: Segment, leg: Leg) -> Segment:
        stamps = leg.registers.ts_sent if self.request.ends.timestamps else None
        return Segment(
            self.isn,
            add(segment.seq, 1),
            SYN | ACK,
            MAX_WINDOW,
            tsval=stamps,
            tsecr=segment.tsval or 0,
        )

    def closing(self, leg: Leg) -> list[Do]:
        """The data plane refused to latch: its host has sent a FIN."""
        return self._revoke(leg)

    def announced(self, leg: Leg) -> list[Do]:
        """The data plane has latched."""
        if self.state is not RightState.PREPARED:
            return []
        self.state = RightState.DRAINING
        self._waits = self.patience.first
        told = [self._cutoff(leg)] if self._relayed else []
        return [*told, Wake(self._waits), self._report()]

    def drained(self, leg: Leg) -> list[Do]:
        """The data plane: this anchor needs the old path no more."""
        if self.state is not RightState.DRAINING:
            return []
        self.state = RightState.DRAINED
        self._waits = self.patience.first
        return [*self._tell(Drained(self.id), again=False), Wake(self._waits), self._report()]

    def session_over(self) -> list[Do]:
        """The session ended."""
        if self.is_over:
            return []
        self.state = RightState.CANCELLED
        return [Wake(0), self._report()]

    def _report(self) -> Report:
        return Report(self.id, self.state.value)


def _latched(leg: Leg) -> bool:
    new = leg.entry.new
    return new is not None and leg.registers.latched == new.epoch
