"""One host with its agent and its piece of data plane, and the hops between such nodes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from functools import partial

from dysco.agent.reconfigure import arrival, departure, handover, messages
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.locking import Lock
from dysco.agent.reconfigure.member import Member, Order, RefusedError, Role
from dysco.agent.reconfigure.messages import (
    Do,
    Message,
    Post,
    ReconfigurationId,
    RequestLock,
    Toward,
)
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.segment import SYN, Segment
from dysco.agent.reconfigure.state import Announcement, Entry, Registers, To, Way
from tests.reconfigure.simulation.boxes import LEFT, RIGHT
from tests.reconfigure.simulation.network import Clock, Fate, Link, Mishap, Timer, Weather

PUNT_DELAY = 0.0005


class Hop:
    """The links between two legs, both ways."""

    def __init__(
        self, clock: Clock, source: random.Random, weather: Weather, fate: Fate, name: str
    ) -> None:
        self.clock, self.source, self.weather = clock, source, weather
        self.fate, self.name = fate, name
        self.legs: dict[Leg, Link] = {}
        self.ends: list[Leg] = []
        self.instant = False

    def join(self, left: Leg, right: Leg) -> None:
        """Connect a right leg of one node with a left leg of the next."""
        self.ends = [left, right]
        for sender, receiver, way in ((left, right, "rightwards"), (right, left, "leftwards")):
            self.legs[sender] = Link(
                self.clock,
                self.source,
                self.weather,
                partial(receiver.arrive, self),
                self.fate,
                f"{self.name} {way}",
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

    __slots__ = (
        "drain_told",
        "entry",
        "new_hop",
        "node",
        "old_hop",
        "peer",
        "registers",
        "side",
    )

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
        if self.entry.new is not None:
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


class Node:
    """One host with its agent."""

    def __init__(
        self, number: int, clock: Clock, source: random.Random, punt_loss: float, fate: Fate
    ) -> None:
        self.number = number
        self.fate = fate
        self.punts = 0
        self.clock = clock
        self.source = source
        self.punt_loss = punt_loss
        self.legs = (Leg(self, LEFT), Leg(self, RIGHT))
        self.deliver: Callable[[int, Segment], None] = lambda side, segment: None
        self.box: object = None
        self.neighbours: list[Node | None] = [None, None]
        self.member = Member(number, self, Patience(), source)
        self.timers = {
            role: Timer(clock, partial(self._wake, role)) for role in (Role.LEFT, Role.RIGHT)
        }
        self.box_deltas: Callable[[], messages.Deltas] = messages.Deltas
        self.off_path: Callable[[Node], None] = lambda node: None
        self.send_control: Callable[[Node, int, Message], None] = lambda a, b, m: None
        self.openings: dict[Hop, messages.Opening] = {}
        self.new_hops: dict[int, Hop] = {}
        """By token: by which hop a new path ends here."""
        self.peers: dict[int, Callable[[Announcement], None]] = {}
        """By token: how announcements go back."""
        self.opened: Callable[[Hop, messages.Opening], None] = lambda hop, opening: None
        self.on_settled: Callable[[Leg], None] = lambda leg: None
        self.reports: list[tuple[float, messages.Report]] = []
        self.timestamps = self.sack = True
        self.alive = True
        self.crash_in = 0
        """After so many more actions."""
        self.outage = 0.0

    # What the member asks.

    def neighbour(self, toward: Toward) -> int | None:
        node = self.neighbours[LEFT if toward is Toward.LEFT else RIGHT]
        return node.number if node is not None else None

    def leg(self, role: Role) -> messages.Leg:
        return self._leg(role).view

    def ends(self, role: Role) -> messages.Ends:
        leg = self.leg(role)
        scale, edge = leg.entry.scale_own, leg.registers.edge_in
        return messages.Ends(scale, edge, timestamps=self.timestamps, sack=self.sack)

    def deltas(self) -> messages.Deltas:
        return self.box_deltas()

    def is_hidden(self) -> bool:
        return False

    def stays(self) -> str:
        return ""

    @property
    def is_end(self) -> bool:
        return self.neighbours[RIGHT] is None

    def _leg(self, role: Role) -> Leg:
        return self.legs[RIGHT if role is Role.LEFT else LEFT]

    @property
    def lock(self) -> Lock:
        return self.member.lock

    # The controller's process dies, and comes back.

    def crash(self) -> None:
        """Everything but the journal, the device and the network is gone."""
        self.alive = False
        for timer in self.timers.values():
            timer.stop()
        self.clock.after(self.outage, self.come_back)

    def come_back(self) -> None:
        """With what the journal says, which was written before anything of it was done."""
        old = self.member
        kept = pickle.dumps(
            (old.lock, old.left, old.right, old.routes, old.finished_right, old.number)
        )
        new = self.member = Member(self.number, self, Patience(), self.source)
        (new.lock, new.left, new.right, new.routes, new.finished_right, new.number) = pickle.loads(
            kept
        )
        self.alive = True
        self.do(self.member.recover())

    # From the data plane.

    def punt(self, call: Callable[..., None], *args: object) -> None:
        """A packet-in; it may be lost."""
        lost = bool(self.punt_loss) and self.source.random() < self.punt_loss
        if not self.fate.by_chance:
            self.punts += 1
            lost = self.fate.of(Mishap(f"packet-in {self.number}", self.punts, lost)).lost
        if not lost:
            self.clock.after(PUNT_DELAY, self._if_alive, call, args)

    def _if_alive(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self.alive:
            call(*args)

    def new_path(self, leg: Leg, segment: Segment) -> None:
        """A segment of a handshake."""
        if leg.side == RIGHT:
            self.do(self.member.new_path(Role.LEFT, segment))
        elif leg.new_hop is not None:
            opening = self.openings.get(leg.new_hop)
            self.do(self.member.new_path(Role.RIGHT, segment, opening))

    def drained(self, leg: Leg) -> None:
        """The old path is not needed here any more."""
        self.do(self.member.drained(_role(leg)))

    def announced(self, leg: Leg) -> None:
        """The other anchor's announcement came."""
        self.do(self.member.announced(_role(leg)))

    def revoked(self, leg: Leg) -> None:
        """The data plane will not latch any more."""
        self.do(self.member.revoked())

    def closing(self, leg: Leg) -> None:
        """The data plane could not latch."""
        self.do(self.member.closing(_role(leg)))

    # From the operator.

    def reconfigure(
        self, right: Node, new_hop: Hop, prepare: Callable[[RequestLock], None]
    ) -> ReconfigurationId | None:
        """Begin; None if it is refused."""
        try:
            request = self.member.request(right.number)
        except RefusedError:
            return None
        prepare(request)
        self.legs[RIGHT].new_hop = new_hop
        self.do(self.member.start(request))
        return request.id

    def cancel(self, why: str) -> None:
        """The operator changes his mind."""
        self.do(self.member.cancel(why))

    def session_over(self) -> None:
        """A copy of a RST came to the agent."""
        self.do(self.member.session_over())

    # From other agents.

    def message(self, sender: int, message: Message) -> None:
        """A message from a neighbour or the other anchor."""
        if self.alive:
            before = self.member.right
            orders = self.member.message(sender, message)
            after = self.member.right
            if isinstance(after, RightAnchor) and after is not before:
                leg, token = self.legs[LEFT], after.token
                leg.new_hop = self.new_hops.get(token)
                leg.peer = self.peers.get(token, leg.peer)
            self.do(orders)

    # What the protocol asks for.

    def _wake(self, role: Role) -> None:
        if self.alive:
            self.do(self.member.wake(role))

    def do(self, orders: list[Order]) -> None:
        """Carry out what the member asks for."""
        for order in orders:
            if not self.alive:
                # The journal has it; device and network will not, unless it is said again.
                return
            if self.crash_in > 0:
                self.crash_in -= 1
                if self.crash_in == 0:
                    self.crash()
                    return
            if isinstance(order.what, Post):
                self.send_control(self, order.what.to, order.what.message)
            else:
                self._do_one(order.role, self._leg(order.role), order.what)

    def _do_one(self, role: Role, leg: Leg, action: Do) -> None:
        match action:
            case messages.SetEntry():
                leg.set_entry(action.entry)
            case messages.Latch():
                leg.latch()
            case messages.Revoke():
                leg.revoke()
            case messages.TakeCutoff(cutoff):
                new = leg.entry.new
                if new is not None:
                    content = (cutoff.epoch, cutoff.cutoff, cutoff.edge, cutoff.known)
                    leg.announced(Announcement(new.token, *content))
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

    def _set_timer(self, role: Role, after: float) -> None:
        if after:
            self.timers[role].set(after)
        else:
            self.timers[role].stop()


def _role(leg: Leg) -> Role:
    return Role.LEFT if leg.side == RIGHT else Role.RIGHT
