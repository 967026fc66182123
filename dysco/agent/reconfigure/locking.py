"""Locks along a session's chain; the state of each subsession is at its left end.

    unlocked --request--> pending --ack--> locked --cancel or release--> unlocked
                             '----nack---------------------------------------^

A request that reaches another left anchor which still waits for its own lock is parked there:
refused if that lock succeeds, sent on if it fails. So one of two overlapping requests succeeds.
Numbers of one left anchor only grow, so that a message of a finished reconfiguration, however late,
locks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    CancelLock,
    CloseHost,
    Deltas,
    Do,
    NackLock,
    ReconfigurationId,
    Release,
    RequestLock,
    Tell,
    Toward,
)


class LockState(Enum):
    """Of the subsession to the right of this host."""

    UNLOCKED = "unlocked"
    PENDING = "pending"
    LOCKED = "locked"
    GONE = "gone"
    """This host is off the chain."""


@dataclass(slots=True)
class Lock:
    """The lock of one subsession, at the agent of its left end."""

    host: int
    state: LockState = LockState.UNLOCKED
    holder: ReconfigurationId | None = None
    parked: RequestLock | None = None
    finished: dict[int, int] = field(default_factory=dict)
    """By left anchor: the highest number that is over."""

    def is_over(self, request: ReconfigurationId) -> bool:
        """True if that reconfiguration ended here already."""
        return request.number <= self.finished.get(request.left, 0)

    def request(self, message: RequestLock) -> list[Do]:
        """A request that goes on to the right from here, this host's own or one from the left."""
        if self.is_over(message.id):
            return [Tell(Toward.LEFT, NackLock(message.id, "it is over"))]
        if self.state is LockState.GONE:
            return [Tell(Toward.LEFT, NackLock(message.id, "this host left the chain"))]
        if self.state is LockState.UNLOCKED:
            self.state = LockState.PENDING
            self.holder = message.id
        elif self.holder != message.id:
            return self._contend(message)
        return [Tell(Toward.RIGHT, message)]

    def _contend(self, message: RequestLock) -> list[Do]:
        waits = self.state is LockState.PENDING and self.holder and self.holder.left == self.host
        if waits and self.parked in (None, message):
            self.parked = message
            return []
        return [Tell(Toward.LEFT, NackLock(message.id, f"locked by {self.holder}"))]

    def acknowledge(self, message: AckLock, own: Deltas) -> list[Do]:
        """The lock succeeded to the right of here; `own` are the deltas of this host."""
        if self.holder != message.id:
            return []
        self.state = LockState.LOCKED
        refused = self._refuse_parked("another reconfiguration got the lock")
        if message.id.left == self.host:
            return refused
        summed = message.deltas + own
        return [*refused, Tell(Toward.LEFT, replace(message, deltas=summed))]

    def refuse(self, message: NackLock) -> list[Do]:
        """The lock failed to the right of here."""
        if self.holder != message.id or self.state is not LockState.PENDING:
            return []
        forward: list[Do] = []
        if message.id.left != self.host:
            forward.append(Tell(Toward.LEFT, message))
        return [*forward, *self._free()]

    def end(self, message: CancelLock | Release) -> list[Do]:
        """It is cancelled, or done; also if nothing is known of it here."""
        number = max(message.id.number, self.finished.get(message.id.left, 0))
        self.finished[message.id.left] = number
        actions: list[Do] = [Tell(Toward.RIGHT, message)]
        if self.parked is not None and self.parked.id == message.id:
            self.parked = None
        if self.holder == message.id:
            if isinstance(message, Release) and message.id.left != self.host:
                actions += [CloseHost(), *self._free(LockState.GONE)]
            else:
                actions += self._free()
        return actions

    def recover(self) -> list[Do]:
        """After a restart: what the journal says was to be done, and may not have been."""
        return [CloseHost()] if self.state is LockState.GONE else []

    def free(self, over: ReconfigurationId) -> list[Do]:
        """At the left anchor: its reconfiguration is over, and every hop knows."""
        self.finished[over.left] = max(over.number, self.finished.get(over.left, 0))
        return self._free() if self.holder == over else []

    def answered(self, message: AckCancel | AckRelease) -> list[Do]:
        """The end is known to the right of here."""
        return [] if message.id.left == self.host else [Tell(Toward.LEFT, message)]

    def _free(self, state: LockState = LockState.UNLOCKED) -> list[Do]:
        self.state = state
        self.holder = None
        parked, self.parked = self.parked, None
        return self.request(parked) if parked is not None else []

    def _refuse_parked(self, why: str) -> list[Do]:
        parked, self.parked = self.parked, None
        return [Tell(Toward.LEFT, NackLock(parked.id, why))] if parked is not None else []
