"""One host with its agent and its piece of data plane, and the hops between such nodes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass

from dysco.agent.reconfigure import arrival, departure, handover, messages
from dysco.agent.reconfigure.left import LeftAnchor, Patience, ends_of
from dysco.agent.reconfigure.locking import Lock, LockState
from dysco.agent.reconfigure.messages import Do, Message, ReconfigurationId, RequestLock, Toward
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.segment import SYN, Segment
from dysco.agent.reconfigure.state import Announcement, Entry, Registers, To, Way
from tests.reconfigure.simulation.boxes import LEFT, RIGHT
from tests.reconfigure.simulation.network import Clock, Link, Timer, Weather

PUNT_DELAY = 0.0005


class Hop:
    """The links between two legs, both ways."""

    def __init__(self, clock: Clock, source: random.Random, weather: Weather) -> None:
        self.clock, self.source, self.weather = clock, source, weather
        self.legs: dict[Leg, Link] = {}
        self.ends: list[Leg] = []
        self.instant = False

    def join(self, left: Leg, right: Leg) -> None:
        """Connect a right leg of one node with a left leg of the next."""
        self.ends = [left, right]
        for sender, receiver in ((left, right), (right, left)):
            self.legs[sender] = Link(
                self.clock,
                self.source,
                self.weather,
                lambda segment, to=receiver: to.arrive(self, segment),
            )

    def send(self, leg: Leg, segment: Segment) -> None:
        """From one of the two legs to the other."""
        if self.instant:
            other = self.ends[1] if leg is self.ends[0] else self.ends[0]
            other.arrive(self, segment)
        else:
            self.legs[leg].send(segment)


class Leg:
    """One leg: its entry, its registers, and the hops that its ways take."""

    def __init__(self, node: Node, side: int) -> None:
        self.node = node
        self.side = side
        self.entry = Entry()
        self.registers = Registers()
        self.old_hop: Hop | None = None
        self.new_hop: Hop | None = None
        self.peer: Callable[[Announcement], None] = lambda message: None
        self.drain_told = 0

    @property
    def view(self) -> messages.Leg:
        """What a query answers."""
        return messages.Leg(self.entry, self.registers)

    def from_host(self, segment: Segment) -> None:
        """The host sends."""
        self._carry(departure.from_host(self.entry, self.registers, segment), back=0.0)

    def arrive(self, hop: Hop, segment: Segment) -> None:
        """The network delivers."""
        if hop is self.old_hop:
            self._carry(arrival.from_network(self.entry, self.registers, Way.OLD, segment))
        elif hop is self.new_hop:
            new = self.entry.new
            before = new is None or self.registers.latched != new.epoch
            if segment.flags & SYN or (before and not segment.has_content):
                self.node.punt(self.node.new_path, self, segment)
            else:
                self._carry(arrival.from_network(self.entry, self.registers, Way.NEW, segment))

    def _carry(self, out: departure.Sent, back: float | None = None) -> None:
        for to, what in out:
            if isinstance(what, Announcement):
                self.peer(what)
            elif to is To.HOST:
                if back is None:
                    self.node.deliver(self.side, what)
                else:
                    # An answer to the host: never while it is still sending.
                    self.node.clock.after(back, self.node.deliver, self.side, what)
            elif to is To.OLD and self.old_hop is not None:
                self.old_hop.send(self, what)
            elif to is To.NEW and self.new_hop is not None:
                self.new_hop.send(self, what)
            elif to is To.SPLIT:
                cutoff = self.registers.cutoff_out
                if self.entry.new is None and self.entry.old.floor is not None:
                    cutoff = self.entry.old.floor
                for part in departure.split(what, cutoff):
                    self.from_host(part)
        self._check_drain()

    def _check_drain(self) -> None:
        new = self.entry.new
        if new is None or self.registers.known != new.epoch or self.drain_told == new.epoch:
            return
        if arrival.drained(self.registers):
            self.drain_told = new.epoch
            self.node.punt(self.node.drained, self)

    def announced(self, message: Announcement) -> None:
        """The other anchor's announcement arrives."""
        try:
            answer, news = handover.announced(self.entry, self.registers, message)
        except handover.ClosingError:
            self.node.punt(self.node.closing, self)
            return
        if answer is not None:
            self.peer(answer)
        if news:
            self.node.punt(self.node.announced, self)
            self._check_drain()

    def latch(self) -> None:
        """The agent's packet-out."""
        if self.entry.new is None:
            return
        try:
            self.peer(handover.latch(self.entry, self.registers))
        except handover.ClosingError:
            self.node.punt(self.node.closing, self)

    def revoke(self) -> None:
        """The agent's packet-out."""
        if handover.revoke(self.entry, self.registers):
            self.node.punt(self.node.revoked, self)

    def set_entry(self, entry: Entry) -> None:
        """The table write."""
        if entry.new is None and self.entry.new is not None and entry.old is not self.entry.old:
            self.old_hop, self.new_hop = self.new_hop, None
            self.entry = entry
            self.node.on_settled(self)
        self.entry = entry


@dataclass
class Route:
    """Where the hop-by-hop messages of one reconfiguration go from a node."""

    left: Node | None
    right: Node | None


class Node:
    """One host with its agent."""

    def __init__(self, number: int, clock: Clock, source: random.Random, punt_loss: float) -> None:
        self.number = number
        self.clock = clock
        self.source = source
        self.punt_loss = punt_loss
        self.legs = (Leg(self, LEFT), Leg(self, RIGHT))
        self.deliver: Callable[[int, Segment], None] = lambda side, segment: None
        self.box: object = None
        self.neighbours: Route = Route(None, None)
        self.lock = Lock(number)
        self.routes: dict[ReconfigurationId, Route] = {}
        self.left_anchor: LeftAnchor | None = None
        self.right_anchor: RightAnchor | None = None
        self.finished_right: dict[int, int] = {}
        self.timers = {
            LEFT: Timer(clock, lambda: self._wake(LEFT)),
            RIGHT: Timer(clock, lambda: self._wake(RIGHT)),
        }
        self.deltas: Callable[[], messages.Deltas] = messages.Deltas
        self.off_path: Callable[[Node], None] = lambda node: None
        self.send_control: Callable[[Node, Node, Message], None] = lambda a, b, m: None
        self.openings: dict[Hop, messages.Opening] = {}
        self.new_hops: dict[int, Hop] = {}
        """By token: by which hop a new path ends here."""
        self.peers: dict[int, Callable[[Announcement], None]] = {}
        """By token: how announcements go back."""
        self.opened: Callable[[Hop, messages.Opening], None] = lambda hop, opening: None
        self.anchor_of: Callable[[ReconfigurationId], Node | None] = lambda about: None
        self.on_settled: Callable[[Leg], None] = lambda leg: None
        self.reports: list[tuple[float, messages.Report]] = []
        self.timestamps = self.sack = True
        self.epochs = 0
        self.alive = True
        self.crash_in = 0
        """After so many more actions."""
        self.outage = 0.0

    # The controller's process dies, and comes back.

    def crash(self) -> None:
        """Everything but the journal, the device and the network is gone."""
        self.alive = False
        for timer in self.timers.values():
            timer.stop()
        self.clock.after(self.outage, self.come_back)

    def come_back(self) -> None:
        """With what the journal says, which was written before anything of it was done."""
        journal = pickle.dumps((self.lock, self.left_anchor, self.right_anchor))
        self.lock, self.left_anchor, self.right_anchor = pickle.loads(journal)
        self.alive = True
        self._do(RIGHT, self.lock.recover())
        if self.left_anchor is not None:
            self._do(LEFT, self.left_anchor.recover(self.legs[RIGHT].view))
        if self.right_anchor is not None:
            self._do(RIGHT, self.right_anchor.recover(self.legs[LEFT].view))

    # From the data plane.

    def punt(self, call: Callable[..., None], *args: object) -> None:
        """A packet-in; it may be lost."""
        if not self.punt_loss or self.source.random() >= self.punt_loss:
            self.clock.after(PUNT_DELAY, self._if_alive, call, args)

    def _if_alive(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self.alive:
            call(*args)

    def new_path(self, leg: Leg, segment: Segment) -> None:
        """A segment of a handshake."""
        if leg.side == RIGHT and self.left_anchor is not None:
            self._do(LEFT, self.left_anchor.new_path(segment, leg.view))
        elif leg.side == LEFT and self.right_anchor is not None and leg.new_hop is not None:
            opening = self.openings_of(leg.new_hop)
            self._do(RIGHT, self.right_anchor.new_path(segment, leg.view, opening))

    def openings_of(self, hop: Hop) -> messages.Opening | None:
        """The header of the SYN that came by this hop."""
        return self.openings.get(hop)

    def drained(self, leg: Leg) -> None:
        """The old path is not needed here any more."""
        anchor = self.left_anchor if leg.side == RIGHT else self.right_anchor
        if anchor is not None and leg.entry.new is not None:
            self._do(LEFT if leg.side == RIGHT else RIGHT, anchor.drained(leg.view))

    def announced(self, leg: Leg) -> None:
        """The other anchor's announcement came."""
        anchor = self.left_anchor if leg.side == RIGHT else self.right_anchor
        if anchor is not None and leg.entry.new is not None:
            self._do(LEFT if leg.side == RIGHT else RIGHT, anchor.announced(leg.view))

    def revoked(self, leg: Leg) -> None:
        """The data plane will not latch any more."""
        if self.right_anchor is not None and leg.entry.new is not None:
            self._do(RIGHT, self.right_anchor.revoked(leg.view))

    def closing(self, leg: Leg) -> None:
        """The data plane could not latch."""
        anchor = self.left_anchor if leg.side == RIGHT else self.right_anchor
        if anchor is not None and leg.entry.new is not None:
            self._do(LEFT if leg.side == RIGHT else RIGHT, anchor.closing(leg.view))

    # From the operator.

    def reconfigure(
        self, right: Node, patience: Patience, new_hop: Hop, prepare: Callable[[RequestLock], None]
    ) -> LeftAnchor | None:
        """Begin; None if a reconfiguration that begins here is not over."""
        if self.left_anchor is not None and not self.left_anchor.is_over:
            return None
        if self.lock.state is not LockState.UNLOCKED:
            return None
        self.epochs += 1
        leg = self.legs[RIGHT]
        request = RequestLock(
            ReconfigurationId(self.number, self.epochs),
            right.number,
            self.source.getrandbits(64),
            (self.number << 16) + self.epochs,
            ends_of(leg.view, timestamps=self.timestamps, sack=self.sack),
        )
        prepare(request)
        self.left_anchor = LeftAnchor(request, patience, self.source)
        self.patience = patience
        leg.new_hop = new_hop
        self.routes[request.id] = Route(None, self.neighbours.right)
        self._do(LEFT, [*self.lock.request(request), *self.left_anchor.start()])
        return self.left_anchor

    def cancel(self, why: str) -> None:
        """The operator changes his mind."""
        if self.left_anchor is not None:
            self._do(LEFT, self.left_anchor.cancel(self.legs[RIGHT].view, why))

    def session_over(self) -> None:
        """A copy of a RST came to the agent."""
        if self.left_anchor is not None:
            self._do(LEFT, self.left_anchor.session_over(self.legs[RIGHT].view))
        if self.right_anchor is not None:
            self._do(RIGHT, self.right_anchor.session_over())

    # From other agents.

    def message(self, sender: Node, message: Message) -> None:
        """A message from a neighbour or the other anchor."""
        if not self.alive:
            return
        anchor = self.left_anchor
        if isinstance(message, RequestLock | messages.CancelLock | messages.Release):
            self._rightwards(sender, message)
        elif isinstance(message, messages.AckLock):
            self._do(RIGHT, self.lock.acknowledge(message, self._own_deltas()), message.id)
            if anchor is not None and anchor.id == message.id:
                self._do(LEFT, anchor.message(message, self.legs[RIGHT].view))
        elif isinstance(message, messages.NackLock):
            self._do(RIGHT, self.lock.refuse(message), message.id)
            if anchor is not None and anchor.id == message.id:
                self._do(LEFT, anchor.message(message, self.legs[RIGHT].view))
        elif isinstance(message, messages.AckCancel | messages.AckRelease):
            self._do(RIGHT, self.lock.answered(message), message.id)
            if anchor is not None and anchor.id == message.id:
                self._do(LEFT, anchor.message(message, self.legs[RIGHT].view))
        elif anchor is not None and anchor.id == message.id:
            self._do(LEFT, anchor.message(message, self.legs[RIGHT].view))
        elif self.right_anchor is not None and self.right_anchor.id == message.id:
            self._do(RIGHT, self.right_anchor.message(message, self.legs[LEFT].view))

    def _own_deltas(self) -> messages.Deltas:
        """What this host and its two legs' ways add."""
        own = self.deltas()
        left, right = self.legs[LEFT].entry.old, self.legs[RIGHT].entry.old
        return own + messages.Deltas(
            left.seq_in + right.seq_out,
            right.seq_in + left.seq_out,
            left.ts_in,
            right.ts_in,
        )

    def _rightwards(
        self, sender: Node, message: RequestLock | messages.CancelLock | messages.Release
    ) -> None:
        if isinstance(message, RequestLock) and self.lock.holder != message.id:
            self.routes[message.id] = Route(sender, self.neighbours.right)
        route = self.routes.setdefault(message.id, Route(sender, self.neighbours.right))
        if message.right == self.number:
            self._as_right_anchor(route, message)
        elif isinstance(message, RequestLock):
            if route.right is None:
                why = messages.NackLock(message.id, f"host {message.right} is not on the chain")
                self._do(RIGHT, [messages.Tell(Toward.LEFT, why)], message.id)
            else:
                self._do(RIGHT, self.lock.request(message), message.id)
        elif route.right is None:
            self._end_here(message)
        else:
            self._do(RIGHT, self.lock.end(message), message.id)

    def _end_here(self, message: messages.CancelLock | messages.Release) -> None:
        reply: Message = (
            messages.AckRelease(message.id)
            if isinstance(message, messages.Release)
            else messages.AckCancel(message.id)
        )
        self._do(RIGHT, [messages.Tell(Toward.LEFT, reply)], message.id)

    def _as_right_anchor(
        self, route: Route, message: RequestLock | messages.CancelLock | messages.Release
    ) -> None:
        leg, current = self.legs[LEFT], self.right_anchor
        mine = current if current is not None and current.id == message.id else None
        if isinstance(message, RequestLock):
            if self.lock.state is LockState.GONE:
                self._do(RIGHT, self.lock.request(message), message.id)
                return
            if message.id.number <= self.finished_right.get(message.id.left, 0):
                return
            if mine is None:
                if current is not None and not current.is_over:
                    nack = messages.NackLock(message.id, f"locked by {current.id}")
                    self._do(RIGHT, [messages.Tell(Toward.LEFT, nack)], message.id)
                    return
                mine = self.right_anchor = RightAnchor(message, Patience(), self.source)
                hop = self.new_hops.get(message.token)
                leg.new_hop = hop
                leg.peer = self.peers.get(message.token, leg.peer)
            ends = ends_of(leg.view, timestamps=self.timestamps, sack=self.sack)
            if not mine.is_over:
                self._do(RIGHT, mine.grant(ends, leg.view), message.id)
            return
        self.finished_right[message.id.left] = max(
            message.id.number, self.finished_right.get(message.id.left, 0)
        )
        if mine is not None:
            self._do(RIGHT, mine.message(message, leg.view), message.id)
            return
        self._end_here(message)

    # What the protocol asks for.

    def _wake(self, role: int) -> None:
        if not self.alive:
            return
        if role == LEFT and self.left_anchor is not None:
            self._do(LEFT, self.left_anchor.wake(self.legs[RIGHT].view))
        elif role == RIGHT and self.right_anchor is not None:
            self._do(RIGHT, self.right_anchor.wake(self.legs[LEFT].view))

    def _do(self, role: int, actions: list[Do], about: ReconfigurationId | None = None) -> None:
        """Carry out what one of the roles asks for."""
        leg = self.legs[RIGHT if role == LEFT else LEFT]
        anchor = self.left_anchor if role == LEFT else self.right_anchor
        if about is None and anchor is not None:
            about = anchor.id
        for action in actions:
            if not self.alive:
                # The journal has it; device and network will not, unless it is said again.
                return
            if self.crash_in > 0:
                self.crash_in -= 1
                if self.crash_in == 0:
                    self.crash()
                    return
            self._do_one(role, leg, action)
        if role == LEFT and self.left_anchor is not None and self.left_anchor.is_over:
            self._do(RIGHT, self.lock.free(self.left_anchor.id), self.left_anchor.id)

    def _do_one(self, role: int, leg: Leg, action: Do) -> None:
        match action:
            case messages.Tell():
                self._tell(action)
            case messages.SetEntry():
                leg.set_entry(action.entry)
            case messages.Latch():
                leg.latch()
            case messages.Revoke():
                leg.revoke()
            case messages.SendNew():
                self._send_new(leg, action)
            case messages.WindowUpdate():
                empty = Segment(0, 0, 0, 0, tsval=leg.registers.ts_sent)
                self.deliver(leg.side, departure.answer(leg.entry, leg.registers, empty))
            case messages.CloseHost():
                self.off_path(self)
            case messages.Wake():
                self._set_timer(role, action.after)
            case messages.Report():
                self.reports.append((self.clock.now, action))

    def _send_new(self, leg: Leg, action: messages.SendNew) -> None:
        if leg.new_hop is None:
            return
        if action.opening is not None:
            self.opened(leg.new_hop, action.opening)
        leg.new_hop.send(leg, action.segment)

    def _set_timer(self, role: int, after: float) -> None:
        if after:
            self.timers[role].set(after)
        else:
            self.timers[role].stop()

    def _tell(self, action: messages.Tell) -> None:
        message = action.message
        route = self.routes.get(message.id)
        to: Node | None
        if action.toward is Toward.ANCHOR:
            to = self.anchor_of(message.id)
        elif route is None:
            return
        else:
            to = route.left if action.toward is Toward.LEFT else route.right
        if to is None and action.toward is Toward.LEFT and message.id.left == self.number:
            to = self
        if to is not None:
            self.send_control(self, to, message)
