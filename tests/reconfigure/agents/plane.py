"""One host with its real agent; its piece of data plane follows the reference's rules.

Everything that the agent asks of a device is done here as the controller and the P4 program do it,
late, in order, and sometimes lost: table writes, packet-outs, packet-ins, the journal.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dysco.agent import packet
from dysco.agent.agent import Agent
from dysco.agent.events import (
    Action,
    Announce,
    CancelTimer,
    Event,
    HeldLeg,
    Install,
    Keep,
    LegNews,
    LegReport,
    PacketIn,
    Progress,
    QueryLeg,
    Reason,
    Recovered,
    Remove,
    Send,
    SetLeg,
    SetTimer,
    SplitAt,
    Submit,
    Tell,
    TimerFired,
    TimerId,
)
from dysco.agent.model import Address, FiveTuple, Host, Mapping, MappingKey, Peer, Policy, Side
from dysco.agent.packet import FIN, RST, SYN
from dysco.agent.reconfigure import arrival, departure, handover
from dysco.agent.reconfigure.control import payload_of
from dysco.agent.reconfigure.frames import to_frame, to_segment
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.state import Announcement, Entry, Registers, To, Way
from dysco.agent.settings import Settings
from dysco.agent.trust import TrustGroup
from tests.reconfigure.simulation.network import Clock

GROUP = TrustGroup("test", b"k" * 32)
HOST_PORT, NETWORK_PORT = 1, 9
WRITE, PUNT = 0.0004, 0.0003
"""Seconds that a table write and a packet-in take."""

Frame = packet.Segment


@dataclass
class PlaneLeg:
    """What the device keeps of one tracked leg."""

    key: MappingKey
    registers: Registers = field(default_factory=Registers)
    entry: Entry = field(default_factory=Entry)
    second: FiveTuple | None = None
    token: int | None = None
    peer: tuple[Address, Address] | None = None
    drain_told: int = 0


@dataclass(frozen=True)
class Datagram:
    """An announcement between two data planes."""

    src: Address
    dst: Address
    content: Announcement


class Plane:
    """A device with one host, and the agent beside it."""

    def __init__(
        self,
        clock: Clock,
        source: random.Random,
        host: Host,
        transmit: Callable[[Frame | Datagram | bytes, Address], None],
        *,
        punt_loss: float = 0.0,
    ) -> None:
        self.clock, self.source, self.host = clock, source, host
        self.transmit, self.punt_loss = transmit, punt_loss
        self.deliver: Callable[[Frame], None] = lambda frame: None
        self.mappings: dict[MappingKey, Mapping] = {}
        self.legs: dict[MappingKey, PlaneLeg] = {}
        self.journal: dict[int, bytes] = {}
        self.progress: list[tuple[float, Progress]] = []
        self.told: list[Tell] = []
        self.policies: dict[int, Policy] = {}
        self.policy_of: Callable[[FiveTuple], int] = lambda ends: 0
        self.peers: tuple[Peer, ...] = ()
        self.alive = True
        self.crash_in = 0
        self.outage = 0.0
        self.agent: Agent
        self._starts = 0
        self._timers: dict[TimerId, int] = {}
        self._number = 0
        self._life = 0

    @property
    def mac(self) -> bytes:
        return self.host.interfaces[0].mac

    def start(self) -> None:
        """A new agent."""
        self._starts += 1
        self._timers.clear()
        self.agent = Agent(
            self.host,
            GROUP,
            Settings(),
            epoch=self._starts,
            random=random.Random(self.source.getrandbits(64)),
        )
        self.agent.set_peers(self.peers)
        self.agent.set_policies(self.policies)
        self.alive = True

    # Death and return of the controller.

    def crash(self) -> None:
        self.alive = False
        self._life += 1
        self._timers.clear()
        self.clock.after(self.outage, self.come_back)

    def come_back(self) -> None:
        self.start()
        held = tuple(
            HeldLeg(leg.key, leg.entry, leg.second)
            for leg in self.legs.values()
            if leg.entry != Entry()
        )
        mappings = tuple(self.mappings.values())
        self.tell(Recovered(mappings, held, tuple(self.journal.items())))

    # From the host.

    def from_host(self, frame: Frame) -> None:
        frame.src_mac = self.mac
        key = MappingKey(Side.OUTBOUND, self.host.id, frame.tuple)
        hit = self.mappings.get(key)
        if frame.is_syn:
            policy = 0 if hit else self.policy_of(frame.tuple)
            if hit or policy or self.host.is_middlebox:
                self.punt(Reason.HOST_SYN, frame, policy)
                return
        leg = self.legs.get(key)
        if hit is None or leg is None:
            self.transmit(frame, frame.tuple.dst)
            return
        if frame.flags & (RST | FIN | SYN):
            self.punt(Reason.SENT, frame)
        self._carry(leg, departure.from_host(leg.entry, leg.registers, to_segment(frame)), frame)

    def _subsession(self, leg: PlaneLeg, way: Way) -> FiveTuple | None:
        path = leg.entry.path if way is Way.OLD else leg.entry.path.other
        if path:
            return leg.second
        hit = self.mappings.get(leg.key)
        return hit.mapped if hit is not None else None

    def _carry(self, leg: PlaneLeg, out: departure.Sent, raw: Frame | None) -> None:
        for to, what in out:
            if isinstance(what, Announcement):
                self._announce(leg, what)
            elif to is To.HOST:
                self.clock.after(0.0, self._to_host, self._frame(what, leg.key.tuple.reversed, raw))
            elif to is To.SPLIT:
                assert raw is not None
                self.punt(Reason.SPLIT, raw)
            else:
                ends = self._subsession(leg, Way.OLD if to is To.OLD else Way.NEW)
                if ends is not None:
                    self.transmit(self._frame(what, ends, raw), ends.dst)
        self._check_drain(leg)

    def _frame(self, segment: Segment, ends: FiveTuple, raw: Frame | None) -> Frame:
        if raw is not None and segment.flags & SYN:
            frame = raw.copy()
            frame.tuple, frame.seq, frame.ack = ends, segment.seq, segment.ack
            return frame
        return to_frame(segment, ends, self.mac)

    def _check_drain(self, leg: PlaneLeg) -> None:
        new = leg.entry.new
        if new is None or leg.registers.known != new.epoch or leg.drain_told == new.epoch:
            return
        if arrival.drained(leg.registers):
            leg.drain_told = new.epoch
            self._report(leg, LegNews.DRAINED)

    # From the network.

    def arrive(self, what: Frame | Datagram | bytes) -> None:
        if isinstance(what, Datagram):
            self._announced(what)
        elif isinstance(what, bytes):
            self._punt(PacketIn(Reason.CONTROL, NETWORK_PORT, self.host.id, 0, what))
        else:
            self._arrive(what.copy())

    def _arrive(self, frame: Frame) -> None:
        frame.dst_mac = self.mac
        if frame.is_syn and frame.payload[:4] == b"DySC":
            self.punt(Reason.DYSCO_SYN, frame)
            return
        hit = self.mappings.get(MappingKey(Side.INBOUND, self.host.id, frame.tuple))
        if hit is None:
            self._to_host(frame)
            return
        leg = self.legs.get(MappingKey(Side.OUTBOUND, self.host.id, hit.mapped.reversed))
        if leg is None:
            return
        way = Way.OLD if hit.path == leg.entry.path else Way.NEW
        segment = to_segment(frame)
        new = leg.entry.new
        if way is Way.NEW:
            before = new is None or leg.registers.latched != new.epoch
            if segment.flags & SYN or (before and not segment.has_content):
                self.punt(Reason.NEW_PATH, frame)
                return
        out = arrival.from_network(leg.entry, leg.registers, way, segment)
        for to, given in out:
            assert isinstance(given, Segment)
            if to is To.HOST:
                shown = self._frame(given, hit.mapped, frame)
                if shown.flags & (RST | FIN | SYN):
                    self.punt(Reason.RECEIVED, shown)
                self._to_host(shown)
            else:
                self._carry(leg, [(to, given)], frame)
        self._check_drain(leg)

    def _to_host(self, frame: Frame) -> None:
        self.deliver(frame)

    # Announcements.

    def _announce(self, leg: PlaneLeg, content: Announcement) -> None:
        if leg.peer is not None:
            src, dst = leg.peer
            self.transmit(Datagram(src, dst, content), dst)

    def _of_token(self, token: int) -> PlaneLeg | None:
        return next((leg for leg in self.legs.values() if leg.token == token), None)

    def _announced(self, datagram: Datagram) -> None:
        leg = self._of_token(datagram.content.token)
        if leg is None:
            return
        leg.peer = (datagram.dst, datagram.src)
        try:
            answer, news = handover.announced(leg.entry, leg.registers, datagram.content)
        except handover.ClosingError:
            self._report(leg, LegNews.CLOSING)
            return
        if answer is not None:
            self._announce(leg, answer)
        if news:
            self._report(leg, LegNews.ANNOUNCED)
            self._check_drain(leg)

    # Packet-ins.

    def punt(self, reason: Reason, frame: Frame, policy: int = 0) -> None:
        port = HOST_PORT if reason in (Reason.HOST_SYN, Reason.SENT) else NETWORK_PORT
        self._punt(PacketIn(reason, port, self.host.id, policy, frame.build()))

    def _report(self, leg: PlaneLeg, news: LegNews) -> None:
        copy = Registers(
            **{name: getattr(leg.registers, name) for name in Registers.__slots__}  # type: ignore[arg-type]
        )
        self._punt(LegReport(leg.key, news, copy))

    def _punt(self, event: Event) -> None:
        # Copies that end a session are its life outside of reconfigurations: not lost here.
        is_copy = isinstance(event, PacketIn) and event.reason in (Reason.SENT, Reason.RECEIVED)
        if is_copy or not self.punt_loss or self.source.random() >= self.punt_loss:
            self.clock.after(PUNT, self._if_alive, event, self._life)

    def _if_alive(self, event: Event, life: int) -> None:
        if self.alive and life == self._life:
            self.tell(event)

    # The agent.

    def tell(self, event: Event) -> list[Action]:
        actions = self.agent.handle(event, self.clock.now)
        self.do(actions)
        return actions

    def do(self, actions: list[Action] | tuple[Action, ...]) -> None:
        for action in actions:
            if not self.alive:
                return
            if self.crash_in > 0 and not isinstance(action, Tell | Progress):
                self.crash_in -= 1
                if self.crash_in == 0:
                    self.crash()
                    return
            self._do(action)

    def _do(self, action: Action) -> None:  # noqa: PLR0912
        match action:
            case Send():
                self._send(action)
            case Install():
                self.clock.after(WRITE, self._install, action, self._life)
            case Remove(keys):
                self.clock.after(WRITE, self._remove, keys)
            case SetLeg():
                self.clock.after(WRITE, self._set_leg, action, self._life)
            case Announce():
                self._latch_or_revoke(action)
            case QueryLeg(key):
                leg = self.legs.get(key)
                if leg is not None:
                    self._report(leg, LegNews(0))
            case SplitAt(frame, cutoff):
                for part in _parts(packet.parse(frame), cutoff):
                    self.from_host(part)
            case Keep(session, record):
                if record:
                    self.journal[session] = record
                else:
                    self.journal.pop(session, None)
            case Progress():
                self.progress.append((self.clock.now, action))
            case SetTimer(timer, after):
                self._number += 1
                self._timers[timer] = self._number
                self.clock.after(after, self._fire, timer, self._number)
            case CancelTimer(timer):
                self._timers.pop(timer, None)
            case Tell():
                self.told.append(action)

    def _send(self, action: Send) -> None:
        frame = action.frame
        if action.submit is Submit.PORT:
            shown = packet.parse(frame)
            assert shown.dst_mac == self.mac
            self._to_host(shown)
        elif frame[23] == 17 or (frame[12:14] == b"\x86\xdd" and frame[20] == 17):
            payload_of(frame)
            self.transmit(frame, packet.address(frame[30:34]))
        else:
            sent = packet.parse(frame)
            self.transmit(sent, sent.tuple.dst)

    def _install(self, action: Install, life: int) -> None:
        for mapping in action.mappings:
            self.mappings[mapping.key] = mapping
            if mapping.key.side is Side.OUTBOUND and mapping.key not in self.legs:
                self.legs[mapping.key] = PlaneLeg(mapping.key)
        if self.alive and life == self._life:
            self.do(action.then)

    def _remove(self, keys: tuple[MappingKey, ...]) -> None:
        for key in keys:
            self.mappings.pop(key, None)
            self.legs.pop(key, None)

    def _set_leg(self, action: SetLeg, life: int) -> None:
        for mapping in action.mappings:
            self.mappings[mapping.key] = mapping
        leg = self.legs.get(action.key)
        if leg is not None:
            leg.entry = action.entry or Entry()
            leg.second, leg.token = action.second, action.token
        for key in action.remove:
            self.mappings.pop(key, None)
        if self.alive and life == self._life:
            self.do(action.then)

    def _latch_or_revoke(self, action: Announce) -> None:
        leg = self._of_token(action.token)
        if leg is None or leg.entry.new is None or leg.entry.new.epoch != action.epoch:
            return
        leg.peer = (action.src, action.dst)
        if action.submit is Submit.REVOKE:
            done = handover.revoke(leg.entry, leg.registers)
            self._report(leg, LegNews.REVOKED if done else LegNews(0))
            return
        try:
            self._announce(leg, handover.latch(leg.entry, leg.registers))
        except handover.ClosingError:
            self._report(leg, LegNews.CLOSING)

    def _fire(self, timer: TimerId, number: int) -> None:
        if self.alive and self._timers.get(timer) == number:
            del self._timers[timer]
            self.tell(TimerFired(timer))


def _parts(frame: Frame, cutoff: int) -> tuple[Frame, Frame]:
    first, second = departure.split(to_segment(frame), cutoff)
    return to_frame(first, frame.tuple, frame.src_mac), to_frame(second, frame.tuple, frame.src_mac)
