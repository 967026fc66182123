"""One host with its real agent; its piece of data plane follows the reference's rules.

Everything that the agent asks of a device is done here as the controller and the P4 program do it,
late, in order, and sometimes lost: table writes, packet-outs, packet-ins, the journal.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dysco.agent import packet
from dysco.agent.agent import Agent
from dysco.agent.events import (
    Action,
    Announce,
    CancelTimer,
    EndHold,
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
    SeedLeg,
    Send,
    SetLeg,
    SetTimer,
    SplitAt,
    StateCall,
    Submit,
    Tell,
    TimerFired,
    TimerId,
)
from dysco.agent.model import Address, FiveTuple, Host, Mapping, MappingKey, Peer, Policy, Side
from dysco.agent.packet import ACK, FIN, RST, SYN
from dysco.agent.reconfigure import arrival, departure, gate, handover, in_band
from dysco.agent.reconfigure.frames import to_frame, to_segment
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.state import Announcement, Entry, Gate, Registers, To, Way
from dysco.agent.settings import Settings
from dysco.agent.trust import TrustGroup
from tests.reconfigure.simulation.network import Clock, Fate, Mishap

GROUP = TrustGroup("test", b"k" * 32)
HOST_PORT, NETWORK_PORT = 1, 9
WRITE, PUNT = 0.0004, 0.0003
"""Seconds that a table write and a packet-in take."""

Frame = packet.Segment
_KINDS = SYN | RST | FIN | ACK


@dataclass(slots=True)
class Packet:
    """A TCP packet on its way: what the rules look at. A frame is made where an agent sees it."""

    ends: FiveTuple
    segment: Segment
    raw: Frame | None = None
    """Of a SYN, or a message in band, which is more than the rules look at: its frame, with numbers
    from before."""

    @staticmethod
    def of(frame: Frame) -> Packet:
        """The packet in a frame."""
        is_more = frame.flags & SYN or in_band.is_in_band(frame)
        return Packet(frame.tuple, to_segment(frame), frame if is_more else None)

    def changed(self, ends: FiveTuple, segment: Segment) -> Packet:
        """What a rule, or a box, made of it."""
        return Packet(ends, segment, self.raw if segment.flags & SYN else None)

    @property
    def is_syn(self) -> bool:
        """True for the first SYN of a connection."""
        return self.segment.flags & _KINDS == SYN

    def frame(self, src_mac: bytes = bytes(6), dst_mac: bytes = bytes(6)) -> Frame:
        """As it is on the wire."""
        if self.raw is None:
            return to_frame(self.segment, self.ends, src_mac, dst_mac)
        frame = self.raw.copy()
        frame.tuple, frame.seq, frame.ack = self.ends, self.segment.seq, self.segment.ack
        frame.src_mac, frame.dst_mac = src_mac, dst_mac
        return frame


@dataclass
class PlaneLeg:
    """What the device keeps of one tracked leg."""

    key: MappingKey
    registers: Registers = field(default_factory=Registers)
    entry: Entry = field(default_factory=Entry)
    first: FiveTuple | None = None
    """Its two subsessions; the first is that of its entry, when it was looked up last."""
    second: FiveTuple | None = None
    token: int | None = None
    peer: tuple[Address, Address] | None = None
    drain_told: int = 0


Hit = tuple[Mapping | None, PlaneLeg | None]
"""The entry that a packet hits, and its leg."""


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
        transmit: Callable[[Packet | Datagram | bytes, Address], None],
        *,
        fate: Fate,
        punt_loss: float = 0.0,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self.fate = fate
        self.punts = 0
        self.clock, self.source, self.host = clock, source, host
        self.transmit, self.punt_loss = transmit, punt_loss
        self.deliver: Callable[[Packet], None] = lambda packet: None
        self.call_state: Callable[[StateCall], None] = lambda call: None
        self.mappings: dict[MappingKey, Mapping] = {}
        self.legs: dict[MappingKey, PlaneLeg] = {}
        self._sending: dict[FiveTuple, Hit] = {}
        self._receiving: dict[FiveTuple, Hit] = {}
        self.journal: dict[int, bytes] = {}
        self.progress: list[tuple[float, Progress]] = []
        self.told: list[Tell] = []
        self.policies: dict[int, Policy] = {}
        self.policy_of: Callable[[FiveTuple], int] = lambda ends: 0
        self.peers: tuple[Peer, ...] = ()
        self.alive = True
        self.crash_in = 0
        self.died: Callable[[], None] = lambda: None
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
            self.settings,
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
        self.died()

    def come_back(self) -> None:
        self.start()
        held = tuple(
            HeldLeg(leg.key, leg.entry, leg.second)
            for leg in self.legs.values()
            if leg.entry != Entry() or leg.second
        )
        mappings = tuple(self.mappings.values())
        self.tell(Recovered(mappings, held, tuple(self.journal.items())))

    # From the host.

    def from_host(self, sent: Packet, *, released: bool = False) -> None:
        ends, segment = sent.ends, sent.segment
        hit, leg = self._sending.get(ends) or self._look_up(Side.OUTBOUND, ends)
        if sent.is_syn:
            policy = 0 if hit else self.policy_of(ends)
            if hit or policy or self.host.is_middlebox:
                self.punt(Reason.HOST_SYN, sent.frame(self.mac), policy)
                return
        if hit is None or leg is None:
            self.transmit(sent, ends.dst)
            return
        out = departure.from_host(leg.entry, leg.registers, segment, released=released)
        if out and out[0][0] is To.HELD:
            self.punt(Reason.HELD, sent.frame(self.mac))
            return
        if out and segment.flags & (RST | FIN | SYN):
            self.punt(Reason.SENT, sent.frame(self.mac))
        self._carry(leg, out, sent)

    def _look_up(self, side: Side, ends: FiveTuple) -> Hit:
        """What a packet hits, kept until an entry changes: looking takes as long as the rules."""
        leg = None
        hit = self.mappings.get(MappingKey(side, self.host.id, ends))
        if hit is not None:
            out = ends if side is Side.OUTBOUND else hit.mapped.reversed
            leg = self.legs.get(MappingKey(Side.OUTBOUND, self.host.id, out))
        if leg is not None:
            own = self.mappings.get(leg.key)
            leg.first = None if own is None else own.mapped
        known = self._sending if side is Side.OUTBOUND else self._receiving
        known[ends] = hit, leg
        return hit, leg

    def _changed(self) -> None:
        """The tables are not what they were."""
        self._sending.clear()
        self._receiving.clear()

    @staticmethod
    def _subsession(leg: PlaneLeg, way: Way) -> FiveTuple | None:
        second = bool(leg.entry.path) != (way is Way.NEW)
        return leg.second if second else leg.first

    def _carry(self, leg: PlaneLeg, out: departure.Sent, came: Packet) -> None:
        for to, what in out:
            if isinstance(what, Announcement):
                self._announce(leg, what)
            elif to is To.HOST:
                shown = came.changed(leg.key.tuple.reversed, what)
                self.clock.after(0.0, self._to_host, shown)
            elif to is To.SPLIT:
                self.punt(Reason.SPLIT, came.frame(self.mac))
            else:
                ends = self._subsession(leg, Way.OLD if to is To.OLD else Way.NEW)
                if ends is not None:
                    self.transmit(came.changed(ends, what), ends.dst)
        self._check_drain(leg)

    def _check_drain(self, leg: PlaneLeg) -> None:
        new = leg.entry.new
        if new is None or leg.registers.known != new.epoch or leg.drain_told == new.epoch:
            return
        if arrival.drained(leg.registers):
            leg.drain_told = new.epoch
            self._report(leg, LegNews.DRAINED)

    # From the network.

    def arrive(self, what: Packet | Datagram | bytes) -> None:
        if isinstance(what, Datagram):
            self._announced(what)
        elif isinstance(what, bytes):
            self._punt(PacketIn(Reason.CONTROL, NETWORK_PORT, self.host.id, 0, what))
        else:
            self._arrive(what)

    def _arrive(self, came: Packet) -> None:
        if came.raw is not None and in_band.is_in_band(came.raw):
            self.punt(Reason.CONTROL, came.frame(dst_mac=self.mac))
            return
        if came.raw is not None and came.is_syn and came.raw.payload[:4] == b"DySC":
            self.punt(Reason.DYSCO_SYN, came.frame(dst_mac=self.mac))
            return
        hit, leg = self._receiving.get(came.ends) or self._look_up(Side.INBOUND, came.ends)
        if hit is None:
            self._to_host(came)
            return
        if leg is None:
            return
        segment = came.segment
        way = Way.OLD if hit.path == leg.entry.path else Way.NEW
        if way is Way.NEW and leg.entry.gate is not Gate.SHUT:
            new = leg.entry.new
            before = new is None or leg.registers.latched != new.epoch
            if segment.flags & SYN or (before and not segment.has_content):
                self.punt(Reason.NEW_PATH, came.frame(dst_mac=self.mac))
                return
        out = arrival.from_network(leg.entry, leg.registers, way, segment)
        for to, given in out:
            assert isinstance(given, Segment)
            if to is To.HOST:
                shown = came.changed(hit.mapped, given)
                if given.flags & (RST | FIN | SYN):
                    self.punt(Reason.RECEIVED, shown.frame(self.mac))
                self._to_host(shown)
            else:
                self._carry(leg, [(to, given)], came)
        self._check_drain(leg)

    def _to_host(self, shown: Packet) -> None:
        self.deliver(shown)

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
        hosts = (Reason.HOST_SYN, Reason.SENT, Reason.HELD)
        port = HOST_PORT if reason in hosts else NETWORK_PORT
        self._punt(PacketIn(reason, port, self.host.id, policy, frame.build()))

    def _report(self, leg: PlaneLeg, news: LegNews) -> None:
        self._punt(LegReport(leg.key, news, replace(leg.registers)))

    def _punt(self, event: Event) -> None:
        # Copies that end a session are its life outside of reconfigurations: not lost here.
        is_copy = isinstance(event, PacketIn) and event.reason in (Reason.SENT, Reason.RECEIVED)
        lost = not is_copy and bool(self.punt_loss) and self.source.random() < self.punt_loss
        if not self.fate.by_chance and not is_copy:
            self.punts += 1
            lost = self.fate.of(Mishap(f"packet-in {self.host.name}", self.punts, lost)).lost
        if not lost:
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
            case EndHold(key, hold):
                self._end_hold(key, hold)
            case SeedLeg(key, registers):
                if key in self.legs:
                    self.legs[key].registers = replace(registers)
            case StateCall():
                self.call_state(action)
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

    def _end_hold(self, key: MappingKey, hold: int) -> None:
        leg = self.legs.get(key)
        if leg is None:
            return
        over = gate.end_hold(leg.entry, leg.registers, hold)
        self._report(leg, LegNews.HOLD_OVER if over else LegNews.STILL_HELD)

    def _send(self, action: Send) -> None:
        frame = action.frame
        if action.submit is Submit.RELEASED:
            self.from_host(Packet.of(packet.parse(frame)), released=True)
            return
        if action.submit is Submit.PORT:
            shown = packet.parse(frame)
            assert shown.dst_mac == self.mac
            self._to_host(Packet.of(shown))
        elif frame[23] == 17 or (frame[12:14] == b"\x86\xdd" and frame[20] == 17):
            self.transmit(frame, packet.address(frame[30:34]))
        elif action.submit is Submit.IN_BAND:
            self._send_in_band(packet.parse(frame))
        else:
            sent = packet.parse(frame)
            self.transmit(Packet.of(sent), sent.tuple.dst)

    def _send_in_band(self, frame: Frame) -> None:
        """As the P4 program numbers it; of a session that is not there, it is dropped."""
        _, leg = self._sending.get(frame.tuple) or self._look_up(Side.OUTBOUND, frame.tuple)
        ends = self._subsession(leg, Way.OLD) if leg is not None else None
        if leg is None or ends is None:
            return
        at = in_band.numbers(leg.entry, leg.registers)
        numbered = in_band.segment(ends, self.mac, frame.payload, at)
        self.transmit(Packet.of(numbered), ends.dst)

    def _install(self, action: Install, life: int) -> None:
        self._changed()
        for mapping in action.mappings:
            self.mappings[mapping.key] = mapping
            if mapping.key.side is Side.OUTBOUND and mapping.key not in self.legs:
                self.legs[mapping.key] = PlaneLeg(mapping.key)
        if self.alive and life == self._life:
            self.do(action.then)

    def _remove(self, keys: tuple[MappingKey, ...]) -> None:
        self._changed()
        for key in keys:
            self.mappings.pop(key, None)
            self.legs.pop(key, None)

    def _set_leg(self, action: SetLeg, life: int) -> None:
        self._changed()
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
        if action.submit is Submit.ROUTE:
            content = (action.token, action.epoch, action.cutoff, action.edge, action.known)
            self._announced(Datagram(action.src, action.dst, Announcement(*content)))
            return
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


def _parts(frame: Frame, cutoff: int) -> tuple[Packet, Packet]:
    first, second = departure.split(to_segment(frame), cutoff)
    return Packet(frame.tuple, first), Packet(frame.tuple, second)
