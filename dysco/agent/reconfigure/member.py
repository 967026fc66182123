"""One session at one host: its lock, the anchors that stand here, and the ways of messages.

    control message --> Member --> Post to the host on the left or right, or to the other anchor
    timer, packet-in -->        --> what an anchor asks for: entries, packet-outs, reports

Hosts are known by numbers. What a message must find again on its way back (`Route`) is kept for
each reconfiguration, since the session's own neighbours change under it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

from dysco.agent.reconfigure.left import LeftAnchor, Patience
from dysco.agent.reconfigure.locking import Lock, LockState
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckLock,
    AckRelease,
    CancelLock,
    Deltas,
    Do,
    Ends,
    Leg,
    Message,
    NackLock,
    Opening,
    ReconfigurationId,
    Release,
    RequestLock,
    Tell,
    Toward,
)
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.serial import add

MAX_ROUTES = 64
"""Reconfigurations whose ways are remembered; the oldest is forgotten first."""


class Role(Enum):
    """Which anchor of a reconfiguration this host is. The left anchor works on the right leg."""

    LEFT = "left anchor"
    RIGHT = "right anchor"


@dataclass(frozen=True, slots=True)
class Post:
    """Send a message to a host; it may be lost."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class Order:
    """Something to be done, for one of the roles."""

    role: Role
    what: Do | Post


class Route(NamedTuple):
    """Where the hop-by-hop messages of one reconfiguration go from here."""

    left: int | None
    right: int | None


class RefusedError(Exception):
    """A reconfiguration can't begin now; the text says why."""


class Surroundings(Protocol):
    """What a member asks of its host."""

    def neighbour(self, toward: Toward) -> int | None:
        """The next host of the session, now."""

    def leg(self, role: Role) -> Leg:
        """The leg that an anchor of this role works on, as it is now."""

    def ends(self, role: Role) -> Ends:
        """What it says of its host."""

    def deltas(self) -> Deltas:
        """What the host itself adds, between its two legs."""

    def is_hidden(self) -> bool:
        """True if a NAT of the network hides the host on the left."""


class Member:
    """One session at one host."""

    def __init__(
        self, host: int, here: Surroundings, patience: Patience, source: random.Random
    ) -> None:
        self.host = host
        self.here = here
        self.patience = patience
        self.source = source
        self.lock = Lock(host)
        self.left: LeftAnchor | None = None
        self.right: RightAnchor | None = None
        self.routes: dict[ReconfigurationId, Route] = {}
        self.finished_right: dict[int, int] = {}
        """By left anchor: the highest number that ended here as right anchor."""
        self.number = 0

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way here."""
        return (
            (self.left is None or self.left.is_over)
            and (self.right is None or self.right.is_over)
            and self.lock.state in (LockState.UNLOCKED, LockState.GONE)
        )

    # From the operator.

    def request(self, right: int, at_least: int = 0) -> RequestLock:
        """A reconfiguration that begins here; `at_least`: no lower number was ever used here.

        Raises RefusedError.
        """
        if self.left is not None and not self.left.is_over:
            raise RefusedError(f"reconfiguration {self.left.id.number} is not over")
        if self.lock.state is not LockState.UNLOCKED:
            raise RefusedError(f"the session is {self.lock.state.value} by {self.lock.holder}")
        self.number = max(self.number + 1, at_least)
        return RequestLock(
            ReconfigurationId(self.host, self.number),
            right,
            self.source.getrandbits(64),
            self.source.getrandbits(32) or 1,
            self.here.ends(Role.LEFT),
        )

    def start(self, request: RequestLock) -> list[Order]:
        """Begin what was requested."""
        self.left = LeftAnchor(request, self.patience, self.source)
        self._remember(request.id, Route(None, self.here.neighbour(Toward.RIGHT)))
        return self._for(Role.LEFT, [*self.lock.request(request), *self.left.start()])

    def cancel(self, why: str) -> list[Order]:
        """The operator changes his mind: as long as that is possible."""
        if self.left is None:
            return []
        return self._for(Role.LEFT, self.left.cancel(self.here.leg(Role.LEFT), why))

    def session_over(self) -> list[Order]:
        """The session ended."""
        orders: list[Order] = []
        if self.left is not None:
            orders += self._for(Role.LEFT, self.left.session_over(self.here.leg(Role.LEFT)))
        if self.right is not None:
            orders += self._for(Role.RIGHT, self.right.session_over())
        return orders

    def lease_over(self) -> list[Order]:
        """Nothing was heard of a reconfiguration for too long: what is locked for it is freed."""
        orders: list[Order] = []
        holder, right = self.lock.holder, self.right
        if holder is not None and holder.left != self.host:
            orders += [
                order
                for action in self.lock.free(holder)
                if (order := self._order(Role.RIGHT, action)) is not None
            ]
        if right is not None and not right.is_over:
            orders += self._for(Role.RIGHT, right.forsaken(self.here.leg(Role.RIGHT)))
        return orders

    def recover(self) -> list[Order]:
        """After a restart, as the journal has it: what may not have been done."""
        orders = self._for(Role.RIGHT, self.lock.recover())
        if self.left is not None:
            orders += self._for(Role.LEFT, self.left.recover(self.here.leg(Role.LEFT)))
        if self.right is not None:
            orders += self._for(Role.RIGHT, self.right.recover(self.here.leg(Role.RIGHT)))
        return orders

    # From the data plane, and from timers.

    def wake(self, role: Role) -> list[Order]:
        """An anchor's timer ran out."""
        anchor, leg = self._anchor(role), self.here.leg(role)
        return self._for(role, anchor.wake(leg)) if anchor is not None else []

    def refresh(self, role: Role) -> list[Order]:
        """The leg was read again: what a lost packet-in would have told."""
        anchor, leg = self._anchor(role), self.here.leg(role)
        return self._for(role, anchor.refresh(leg)) if anchor is not None else []

    def drained(self, role: Role) -> list[Order]:
        """The old path is not needed here any more."""
        anchor, leg = self._anchor(role), self.here.leg(role)
        if anchor is None or leg.entry.new is None:
            return []
        return self._for(role, anchor.drained(leg))

    def announced(self, role: Role) -> list[Order]:
        """The other anchor's announcement came."""
        anchor, leg = self._anchor(role), self.here.leg(role)
        if anchor is None or leg.entry.new is None:
            return []
        return self._for(role, anchor.announced(leg))

    def closing(self, role: Role) -> list[Order]:
        """The data plane could not latch: the host has sent a FIN."""
        anchor, leg = self._anchor(role), self.here.leg(role)
        if anchor is None or leg.entry.new is None:
            return []
        return self._for(role, anchor.closing(leg))

    def revoked(self) -> list[Order]:
        """The data plane will not latch any more."""
        leg = self.here.leg(Role.RIGHT)
        if self.right is None or leg.entry.new is None:
            return []
        return self._for(Role.RIGHT, self.right.revoked(leg))

    def new_path(self, role: Role, segment: Segment, opening: Opening | None = None) -> list[Order]:
        """A segment of the new path's handshake; `opening` is what a SYN's header said."""
        leg = self.here.leg(role)
        if role is Role.LEFT:
            return (
                self._for(role, self.left.new_path(segment, leg)) if self.left is not None else []
            )
        if self.right is None or (opening is not None and opening.id != self.right.id):
            return []
        return self._for(role, self.right.new_path(segment, leg, opening))

    # From other agents.

    def message(self, sender: int, message: Message) -> list[Order]:
        """A message from a neighbour or the other anchor."""
        match message:
            case RequestLock() | CancelLock() | Release():
                return self._rightwards(sender, message)
            case AckLock():
                orders = self._route(self.lock.acknowledge(message, self._own_deltas()), message)
            case NackLock():
                orders = self._route(self.lock.refuse(message), message)
            case AckCancel() | AckRelease():
                orders = self._route(self.lock.answered(message), message)
            case _:
                orders = []
                if not self._is_anchor(message.id):
                    return self._pass_on(sender, message)
        if self.left is not None and self.left.id == message.id:
            orders += self._for(Role.LEFT, self.left.message(message, self.here.leg(Role.LEFT)))
        elif self.right is not None and self.right.id == message.id:
            orders += self._for(Role.RIGHT, self.right.message(message, self.here.leg(Role.RIGHT)))
        return orders

    def _is_anchor(self, about: ReconfigurationId) -> bool:
        return any(a is not None and a.id == about for a in (self.left, self.right))

    def _pass_on(self, sender: int, message: Message) -> list[Order]:
        """From one anchor to the other: they can't reach each other but along the chain."""
        route = self.routes.get(message.id)
        if route is None or sender not in route:
            return []
        to = route.left if sender == route.right else route.right
        return [Order(Role.RIGHT, Post(to, message))] if to is not None else []

    def _own_deltas(self) -> Deltas:
        """What this host and its two legs' ways add."""
        left = self.here.leg(Role.RIGHT).entry.old
        right = self.here.leg(Role.LEFT).entry.old
        return self.here.deltas() + Deltas(
            add(left.seq_in, right.seq_out),
            add(right.seq_in, left.seq_out),
            left.ts_in,
            right.ts_in,
        )

    def _rightwards(self, sender: int, message: RequestLock | CancelLock | Release) -> list[Order]:
        about = message.id
        if isinstance(message, RequestLock) and self.here.is_hidden():
            message = replace(message, along=True)
        fresh = self.lock.holder != about and not self.lock.is_over(about)
        if isinstance(message, RequestLock) and fresh:
            # One that is over keeps its route: its end must reach every hop that the request did.
            self._remember(message.id, Route(sender, self.here.neighbour(Toward.RIGHT)))
        route = self.routes.get(message.id)
        if route is None:
            route = Route(sender, self.here.neighbour(Toward.RIGHT))
            self._remember(message.id, route)
        if message.right == self.host:
            return self._as_right_anchor(message)
        if isinstance(message, RequestLock):
            if route.right is None:
                why = NackLock(message.id, "the right anchor is not on the chain")
                return self._route([Tell(Toward.LEFT, why)], message)
            if self.right is not None and not self.right.is_over:
                # Its new path has no lock yet, and what it adds is not settled.
                why = NackLock(message.id, f"locked by {self.right.id}")
                return self._route([Tell(Toward.LEFT, why)], message)
            return self._route(self.lock.request(message), message)
        if route.right is None:
            return self._route([answer_to(message)], message)
        return self._route(self.lock.end(message), message)

    def _as_right_anchor(self, message: RequestLock | CancelLock | Release) -> list[Order]:
        current = self.right
        mine = current if current is not None and current.id == message.id else None
        leg = self.here.leg(Role.RIGHT)
        if isinstance(message, RequestLock):
            if self.lock.state is LockState.GONE:
                return self._route(self.lock.request(message), message)
            if message.id.number <= self.finished_right.get(message.id.left, 0):
                return []
            if mine is None:
                if current is not None and not current.is_over:
                    nack = NackLock(message.id, f"locked by {current.id}")
                    return self._route([Tell(Toward.LEFT, nack)], message)
                mine = self.right = RightAnchor(message, self.patience, self.source)
            if mine.is_over:
                return []
            return self._route(mine.grant(self.here.ends(Role.RIGHT), leg), message)
        self.finished_right[message.id.left] = max(
            message.id.number, self.finished_right.get(message.id.left, 0)
        )
        if mine is not None:
            return self._for(Role.RIGHT, mine.message(message, leg))
        return self._route([answer_to(message)], message)

    # Orders.

    def _anchor(self, role: Role) -> LeftAnchor | RightAnchor | None:
        return self.left if role is Role.LEFT else self.right

    def _remember(self, about: ReconfigurationId, route: Route) -> None:
        self.routes.pop(about, None)
        while len(self.routes) >= MAX_ROUTES:
            del self.routes[next(iter(self.routes))]
        self.routes[about] = route

    def _for(self, role: Role, actions: Iterable[Do]) -> list[Order]:
        """What an anchor asks for, and what follows if that was its last word."""
        orders = [self._order(role, action) for action in actions]
        left = self.left
        if role is Role.LEFT and left is not None and left.is_over:
            orders += [self._order(Role.RIGHT, action) for action in self.lock.free(left.id)]
        return [order for order in orders if order is not None]

    def _route(self, actions: Iterable[Do], about: Message) -> list[Order]:
        """What the lock asks for."""
        orders = [self._order(Role.RIGHT, action) for action in actions]
        return [order for order in orders if order is not None]

    def _order(self, role: Role, action: Do) -> Order | None:
        if not isinstance(action, Tell):
            return Order(role, action)
        to = self._target(action)
        return Order(role, Post(to, action.message)) if to is not None else None

    def _target(self, action: Tell) -> int | None:
        about = action.message.id
        if action.toward is Toward.ANCHOR:
            if about.left != self.host:
                return about.left
            return self.left.request.right if self.left is not None else None
        route = self.routes.get(about)
        if route is None:
            return None
        leftwards = action.toward is Toward.LEFT
        if action.toward is Toward.ALONG:
            leftwards = about.left != self.host
        to = route.left if leftwards else route.right
        if to is None and action.toward is Toward.LEFT and about.left == self.host:
            return self.host
        return to


def answer_to(message: CancelLock | Release) -> Tell:
    """Of a host that knows nothing of it: it is over here."""
    answer: Message = (
        AckRelease(message.id) if isinstance(message, Release) else AckCancel(message.id)
    )
    return Tell(Toward.LEFT, answer)
