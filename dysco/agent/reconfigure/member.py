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
    AskRevoke,
    CancelLock,
    Change,
    CloseHost,
    Cutoff,
    Deltas,
    Do,
    DoMove,
    Drained,
    Ends,
    Leg,
    Message,
    MoveDone,
    MoveOut,
    MoveStep,
    NackLock,
    Opening,
    Post,
    ReconfigurationId,
    Release,
    Report,
    RequestLock,
    Revoked,
    SetEntry,
    Tell,
    Toward,
)
from dysco.agent.reconfigure.move_left import LeftMove, Parties
from dysco.agent.reconfigure.move_right import RightMove
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.source import Source
from dysco.agent.reconfigure.state import Gate, Registers
from dysco.agent.reconfigure.target import Target

MAX_ROUTES = 64
"""Reconfigurations whose ways are remembered; the oldest is forgotten first."""


class Role(Enum):
    """Which anchor of a reconfiguration this host is. The left anchor works on the right leg."""

    LEFT = "left anchor"
    RIGHT = "right anchor"


@dataclass(frozen=True, slots=True)
class Order:
    """Something to be done, for one of the roles."""

    role: Role
    what: Do


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

    @property
    def is_end(self) -> bool:
        """True if the session goes no further than this host."""

    def stays(self) -> str:
        """Why the host can't be taken off the session's path; "": it can."""


class Member:
    """One session at one host."""

    def __init__(
        self, host: int, here: Surroundings, patience: Patience, source: random.Random
    ) -> None:
        self.host = host
        self.here = here
        self.patience = patience
        self.random = source
        self.lock = Lock(host)
        self.left: LeftAnchor | LeftMove | None = None
        self.right: RightAnchor | RightMove | None = None
        self.source: Source | None = None
        """A move from this host."""
        self.target: Target | None = None
        """The move by which the session came here."""
        self.routes: dict[ReconfigurationId, Route] = {}
        self.finished_right: dict[int, int] = {}
        """By left anchor: the highest number that ended here as right anchor."""
        self.number = 0

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way here."""
        return all(
            part is None or part.is_over
            for part in (self.left, self.right, self.source, self.target)
        ) and self.lock.state in (LockState.UNLOCKED, LockState.GONE)

    def has_ended(self, about: ReconfigurationId) -> bool:
        """True if this host was its right anchor, and it is over."""
        return about.number <= self.finished_right.get(about.left, 0)

    # From the operator.

    def request(self, right: int, at_least: int = 0, change: Change = Change.PATH) -> RequestLock:
        """A reconfiguration that begins here; `at_least`: no lower number was ever used here.

        Raises RefusedError.
        """
        if self.target is not None and not self.target.is_over:
            raise RefusedError("the session is just moving to this host")
        if self.left is not None and not self.left.is_over:
            raise RefusedError(f"reconfiguration {self.left.id.number} is not over")
        if self.lock.state is not LockState.UNLOCKED:
            raise RefusedError(f"the session is {self.lock.state.value} by {self.lock.holder}")
        self.number = max(self.number + 1, at_least)
        return RequestLock(
            ReconfigurationId(self.host, self.number),
            right,
            self.random.getrandbits(64),
            self.random.getrandbits(32) or 1,
            self.here.ends(Role.LEFT),
            change=change,
        )

    def start(self, request: RequestLock, to: int = 0) -> list[Order]:
        """Begin what was requested; `to`: the new host of a move."""
        if request.change is Change.PATH:
            self.left = LeftAnchor(request, self.patience, self.random)
        else:
            old = self.here.neighbour(Toward.RIGHT)
            assert old is not None
            right = None if request.change is Change.MOVE_END else request.right
            self.left = LeftMove(request, Parties(old, to, right), self.patience)
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
        if self.source is not None:
            orders += self._for(Role.RIGHT, self.source.gone())
        if self.target is not None:
            orders += self._for(Role.RIGHT, self.target.session_over())
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
        return [*orders, *self._source_back()]

    def recover(self) -> list[Order]:
        """After a restart, as the journal has it: what may not have been done."""
        orders = self._for(Role.RIGHT, self.lock.recover())
        if self.left is not None:
            orders += self._for(Role.LEFT, self.left.recover(self.here.leg(Role.LEFT)))
        if self.right is not None:
            orders += self._for(Role.RIGHT, self.right.recover(self.here.leg(Role.RIGHT)))
        if self.source is not None:
            stays = self.source.is_shut or self.lock.state is LockState.GONE
            gates = [] if stays else self._gates(Gate.OPEN)
            orders += [*gates, *self._for(Role.RIGHT, self.source.recover())]
        if self.target is not None:
            orders += self._for(Role.RIGHT, self.target.recover())
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

    def looked(self, registers: tuple[Registers, ...]) -> list[Order]:
        """The legs of a host that a move leaves were read."""
        source = self.source
        return self._for(Role.RIGHT, source.looked(registers)) if source is not None else []

    def wake_move(self) -> list[Order]:
        """The timer of the old or the new host of a move ran out."""
        orders: list[Order] = []
        if self.source is not None:
            shut = self.source.is_shut
            woken = self.source.wake()
            gates = self._gates(Gate.SHUT) if self.source.is_shut and not shut else []
            orders += [*gates, *self._for(Role.RIGHT, woken)]
        if self.target is not None:
            orders += self._for(Role.RIGHT, self.target.wake())
        return orders

    def _gates(self, gate: Gate) -> list[Order]:
        """Both legs of the old host open or shut."""
        entries = {role: self.here.leg(role).entry for role in Role}
        return [
            Order(role, SetEntry(replace(entry, gate=gate, hold=0), keep_spare=True))
            for role, entry in entries.items()
            if entry.gate is not gate
        ]

    def _source_back(self) -> list[Order]:
        """This host keeps the session."""
        source = self.source
        if source is None or source.is_over:
            return []
        gates = self._gates(Gate.OPEN) if source.is_shut else []
        return [*gates, *self._for(Role.RIGHT, source.back())]

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

    def exported(self, pieces: int) -> list[Order]:
        """The copy of this host's state is there, in so many pieces."""
        source = self.source
        return self._for(Role.RIGHT, source.exported(pieces)) if source is not None else []

    def imported(self) -> list[Order]:
        """The state is in use at this host."""
        target = self.target
        return self._for(Role.RIGHT, target.imported()) if target is not None else []

    def state_failed(self, why: str) -> list[Order]:
        """This host's state can't be copied, or not be used."""
        orders: list[Order] = []
        for party in (self.source, self.target):
            if party is not None:
                orders += self._for(Role.RIGHT, party.failed(why))
        return orders

    def arrived(self) -> list[Order]:
        """The session is taken in by a move."""
        target = self.target
        return self._for(Role.RIGHT, target.start()) if target is not None else []

    def resumed(self) -> list[Order]:
        """This host's state is in use: nothing is left of the move."""
        source, target = self.source, self.target
        if source is not None and source.is_over:
            self.source = None
            return [Order(Role.RIGHT, Report(source.id, source.state.value))]
        if target is not None and target.is_over:
            self.target = None
            return self._for(Role.RIGHT, target.resumed())
        return []

    def drop(self, about: ReconfigurationId) -> list[Order]:
        """The move by which the session came here is off."""
        target = self.target
        mine = target is not None and target.id == about
        return self._for(Role.RIGHT, target.drop()) if target is not None and mine else []

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
            case Drained() | AskRevoke() | Revoked() | Cutoff() if not self._is_anchor(message.id):
                return self._pass_on(sender, message)
            case _:
                orders = self._moving(message)
        if self.left is not None and self.left.id == message.id:
            orders += self._for(Role.LEFT, self.left.message(message, self.here.leg(Role.LEFT)))
        elif isinstance(message, DoMove) and message.step is MoveStep.SETTLE and not self.target:
            done = MoveDone(message.id, MoveStep.SETTLE)
            orders.append(Order(Role.RIGHT, Post(message.id.left, done)))
        elif isinstance(message, MoveDone) and message.id.left == self.host:
            orders += self._how_it_ended(sender, message)
        elif self.right is not None and self.right.id == message.id:
            orders += self._for(Role.RIGHT, self.right.message(message, self.here.leg(Role.RIGHT)))
        return orders

    def _moving(self, message: Message) -> list[Order]:
        """A message for the old or the new host of a move."""
        if isinstance(message, MoveOut) and self._may_leave(message):
            self.source = self.source or Source(message.id, self.patience)
        orders: list[Order] = []
        for party in (self.source, self.target):
            if party is not None and party.id == message.id:
                orders += self._for(Role.RIGHT, party.message(message))
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

    def _may_leave(self, message: MoveOut) -> bool:
        """True if this host is the one box of a segment that is locked for a move."""
        if self.source is not None and self.source.id != message.id and self.source.is_over:
            self.source = None
        mine = self.source is None and not self.here.is_end
        return mine and self.lock.state is LockState.LOCKED and self.lock.holder == message.id

    def _how_it_ended(self, sender: int, message: MoveDone) -> list[Order]:
        """Of a move that was over here long ago: who asks has the session, or has it not."""
        if message.step is not MoveStep.EXPORT:
            return []
        answer: Message = CancelLock(message.id, sender)
        if self.here.neighbour(Toward.RIGHT) == sender:
            answer = DoMove(message.id, MoveStep.SETTLE)
        return [Order(Role.LEFT, Post(sender, answer))]

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
            return self._as_right_anchor(sender, message)
        if isinstance(message, RequestLock):
            if route.right is None:
                why = NackLock(message.id, "the right anchor is not on the chain")
                return self._route([Tell(Toward.LEFT, why)], message)
            if self.right is not None and not self.right.is_over:
                # Its new path has no lock yet, and what it adds is not settled.
                why = NackLock(message.id, f"locked by {self.right.id}")
                return self._route([Tell(Toward.LEFT, why)], message)
            if refused := self._why_not_leave(sender, message, route):
                why = NackLock(message.id, refused)
                return self._route([Tell(Toward.LEFT, why)], message)
            return self._route(self.lock.request(message), message)
        if route.right is None:
            return self._route([answer_to(message)], message)
        return self._end_here(message)

    def _why_not_leave(self, sender: int, message: RequestLock, route: Route) -> str:
        """Why this host can't go, or its state can't be moved; empty: it can, or went already."""
        if message.change is Change.PATH:
            return "" if self.lock.holder == message.id else self.here.stays()
        if sender != message.id.left or route.right != message.right:
            return "the anchors are not its neighbours: the state of one box at a time can be moved"
        if self.here.deltas().relays:
            return "the box ends the session's connections itself: such state can't be moved"
        if self.target is not None and not self.target.is_over:
            return "the session is just moving to this host"
        return ""

    def _end_here(self, message: CancelLock | Release) -> list[Order]:
        """The end of a lock passes this hop; a move from here ends with it."""
        source = self.source
        if source is None or source.id != message.id or source.is_over:
            return self._route(self.lock.end(message), message)
        if isinstance(message, CancelLock):
            return [*self._source_back(), *self._route(self.lock.end(message), message)]
        # It is closed when its state is dropped.
        ends = [do for do in self.lock.end(message) if not isinstance(do, CloseHost)]
        return [*self._route(ends, message), *self._for(Role.RIGHT, source.gone())]

    def _as_old_end(self, message: RequestLock | CancelLock | Release) -> list[Order]:
        """The session's end at this host is to move, or was to."""
        source = self.source
        mine = source if source is not None and source.id == message.id else None
        if isinstance(message, RequestLock):
            return self._grant_end(message, mine)
        if mine is None or mine.is_over:
            return self._route([answer_to(message)], message)
        if isinstance(message, CancelLock):
            return [*self._source_back(), *self._route([answer_to(message)], message)]
        self.lock.state = LockState.GONE
        return [*self._route([answer_to(message)], message), *self._for(Role.RIGHT, mine.gone())]

    def _grant_end(self, message: RequestLock, mine: Source | None) -> list[Order]:
        busy = (self.right, self.source, self.target)
        refused = ""
        if not self.here.is_end:
            refused = "the session does not end at that host"
        elif mine is None and any(part is not None and not part.is_over for part in busy):
            refused = "another reconfiguration is not over at the session's end"
        if refused:
            return self._route([Tell(Toward.LEFT, NackLock(message.id, refused))], message)
        if mine is None:
            mine = self.source = Source(message.id, self.patience)
        if mine.is_over:
            return []
        return self._route(
            [
                Tell(
                    Toward.LEFT,
                    AckLock(message.id, self.here.ends(Role.RIGHT), Deltas(), along=message.along),
                )
            ],
            message,
        )

    def _as_right_anchor(
        self, sender: int, message: RequestLock | CancelLock | Release
    ) -> list[Order]:
        current = self.right
        mine = current if current is not None and current.id == message.id else None
        leg = self.here.leg(Role.RIGHT)
        about, source = message.id, self.source
        ours = source is not None and source.id == about and self.here.is_end
        if isinstance(message, RequestLock):
            if self.lock.state is LockState.GONE:
                return self._route(self.lock.request(message), message)
            if self.has_ended(message.id):
                return []
            if message.change is Change.MOVE_END:
                return self._as_old_end(message)
            if mine is None:
                if why := self._why_not_right(sender, message):
                    return self._route([Tell(Toward.LEFT, NackLock(message.id, why))], message)
                if message.change is Change.PATH:
                    mine = RightAnchor(message, self.patience, self.random)
                else:
                    mine = RightMove(message, self.patience)
                self.right = mine
            if mine.is_over:
                return []
            return self._route(mine.grant(self.here.ends(Role.RIGHT), leg), message)
        self.finished_right[message.id.left] = max(
            message.id.number, self.finished_right.get(message.id.left, 0)
        )
        if ours:
            return self._as_old_end(message)
        if mine is not None:
            return self._for(Role.RIGHT, mine.message(message, leg))
        return self._route([answer_to(message)], message)

    def _why_not_right(self, sender: int, message: RequestLock) -> str:
        """Why this host can't be the right anchor; empty: it can."""
        busy = (self.right, self.source, self.target)
        for part in busy:
            if part is not None and not part.is_over:
                return f"locked by {part.id}"
        if message.change is Change.MOVE_BOX and sender == message.id.left:
            return "no box is between the anchors whose state could be moved"
        return ""

    # Orders.

    def _anchor(self, role: Role) -> LeftAnchor | LeftMove | RightAnchor | RightMove | None:
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
