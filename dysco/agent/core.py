"""What all parts of one agent share: its host, its settings, its sessions, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingType
from random import Random

from dysco.agent.chain import Peers
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import (
    Action,
    CancelTimer,
    Install,
    Level,
    Remove,
    SetTimer,
    Tell,
    TimerId,
)
from dysco.agent.model import (
    Address,
    FiveTuple,
    Host,
    Interface,
    MacAddress,
    Mapping,
    MappingKey,
    Peer,
    Policy,
)
from dysco.agent.ports import PortAllocator, PortPair, Rest
from dysco.agent.record import long_record, short_record
from dysco.agent.session import SETTING_UP, Leg, Session, State, Step
from dysco.agent.settings import Settings
from dysco.agent.table import SessionTable
from dysco.agent.trust import Nonce, ReplayGuard, TrustGroup

MAX_BYPASSES = 1024
SESSION_ID_BITS = 52


class Core:
    """The state of one agent, and what is done with it everywhere."""

    def __init__(
        self,
        host: Host,
        group: TrustGroup,
        settings: Settings,
        random: Random,
        epoch: int,
    ) -> None:
        if not host.interfaces:
            raise ValueError(f"host {host.name!r} has no interface")
        self.host = host
        self.group = group
        self.settings = settings
        self.random = random
        self.counters: Counter[str] = Counter()
        self.table = SessionTable()
        self.ports = PortAllocator(settings, random)
        self.guard = ReplayGuard(settings.replay_window, settings.max_senders)
        self.peers = Peers()
        self.policies: dict[int, Policy] = {}
        self.foreign: dict[MappingKey, FiveTuple] = {}
        """Mappings in the device that no session of ours has, and what they map to."""
        self.on_release: Callable[[Session, float], list[Action]] = lambda session, now: []
        """What the end of a session means to its reconfigurations."""
        self._epoch = epoch
        self._number = 0
        self._token = 0
        self._installing: dict[int, tuple[Session, Leg]] = {}
        self._bypasses: dict[FiveTuple, tuple[int, float]] = {}
        self._own = self._own_addresses()

    def set_policies(self, policies: MappingType[int, Policy]) -> None:
        """Policies for sessions to come."""
        self.policies = dict(policies)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """The hosts of the trust group; raises ValueError if they contradict each other."""
        self.peers = Peers(peers)
        self._own = self._own_addresses()

    def _own_addresses(self) -> frozenset[Address]:
        peer = self.peers.named(self.host.name)
        known = peer.addresses if peer is not None else ()
        attached = (address for i in self.host.interfaces for address in i.addresses)
        return frozenset((*attached, *known))

    def owns(self, address: Address) -> bool:
        """True if it is the host's, on an interface or as the trust group knows it."""
        return address in self._own

    def interface_at(self, port: int, mac: MacAddress) -> Interface:
        """Where a frame from the host came in; raises SetupError if nothing of it is there."""
        there = [interface for interface in self.host.interfaces if interface.port == port]
        for interface in there:
            if interface.mac == mac:
                return interface
        if not there:
            raise SetupError(
                Count.NO_ADDRESS, f"host {self.host.name!r} has no interface at port {port}"
            )
        return there[0]

    def interface_for(self, address: Address, mac: MacAddress) -> Interface:
        """Where the host takes what is sent to an address, or else to a MAC of its own."""
        interfaces = self.host.interfaces
        for interface in interfaces:
            if address in interface.addresses:
                return interface
        for interface in interfaces:
            if interface.mac == mac:
                return interface
        return interfaces[0]

    def next_nonce(self) -> Nonce:
        """For the next header that this host sends."""
        self._number += 1
        return Nonce(self._epoch, self._number)

    def new_session_id(self) -> int:
        """One that no session here has."""
        while True:
            number = self.random.getrandbits(SESSION_ID_BITS)
            if number not in self.table.sessions:
                return number

    def new_tag(self) -> int:
        """One that no session here has."""
        while True:
            tag = self.random.getrandbits(32)
            if tag not in self.table.by_tag:
                return tag

    def check_room(self) -> None:
        """Raises SetupError if one more session would be too many."""
        if len(self.table.sessions) >= self.settings.max_sessions:
            raise SetupError(
                Count.TOO_MANY_SESSIONS, f"{self.settings.max_sessions} sessions are open"
            )
        if self.table.setting_up >= self.settings.max_pending:
            raise SetupError(
                Count.TOO_MANY_PENDING, f"{self.settings.max_pending} sessions are being set up"
            )

    def tell(self, level: Level, count: Count, text: str) -> Tell:
        """Count something, and say it."""
        self.counters[count] += 1
        return Tell(level, count.value, self.host, text)

    def step(self, session: Session, step: Step) -> bool:
        """Move a session on; True if its state changed."""
        changed = session.take(step)
        if changed:
            self.table.note_state(session)
            if session.state not in SETTING_UP:
                session.syn = None
        return changed

    @staticmethod
    def timer(session: Session, after: float) -> SetTimer:
        """The session's one timer; what it means, the state says."""
        return SetTimer(TimerId("session", session.id), after)

    def mappings(self, leg: Leg) -> tuple[Mapping, Mapping]:
        """Both mappings of a leg."""
        idle = self.settings.idle_timeout
        return leg.outbound(long_record(leg), idle), leg.inbound(short_record(leg), idle)

    def install(self, leg: Leg, *then: Action) -> Install:
        """Write a leg's mappings for set-up; a failure of it ends the set-up."""
        return Install(self.mappings(leg), self._begin_install(leg), then)

    def install_all(self, session: Session, *then: Action) -> Install:
        """Likewise those of a session that comes with all of its legs."""
        mappings = [mapping for leg in session.legs for mapping in self.mappings(leg)]
        return Install(tuple(mappings), self._begin_install(session.primary), then)

    def _begin_install(self, leg: Leg) -> int:
        session = leg.session
        self._installing.pop(session.token, None)
        self._token += 1
        session.token = self._token
        self._installing[self._token] = (session, leg)
        return self._token

    def update(self, leg: Leg) -> Install:
        """Write a leg's record anew; a failure of it harms nobody."""
        self._token += 1
        mapping = leg.outbound(long_record(leg), self.settings.idle_timeout)
        return Install((mapping,), self._token)

    def installing(self, token: int) -> tuple[Session, Leg] | None:
        """Whose set-up an Install was for, if it still matters."""
        return self._installing.pop(token, None)

    def installed(self, session: Session) -> None:
        """The session's set-up went beyond the point where its Install could fail."""
        self._installing.pop(session.token, None)

    def close_if_over(self, session: Session) -> list[Action]:
        """Moves a session on if nothing but retransmissions can come."""
        legs = session.legs
        # A leg that nobody answered has nothing to close.
        if not (
            any(leg.closed for leg in legs) and all(leg.closed or not leg.answered for leg in legs)
        ):
            return []
        aborted = any(leg.reset for leg in legs)
        if not self.step(session, Step.ABORT if aborted else Step.FINISH):
            return []
        settings = self.settings
        self.installed(session)
        return [self.timer(session, settings.reset_linger if aborted else settings.closing_linger)]

    def release(self, session: Session, count: Count, now: float) -> list[Action]:
        """The session's end: its mappings, ports, timer and records."""
        self.counters[count] += 1
        keys = session.keys
        self.table.remove(session)
        # Of a path that was opened in the session's midst, a neighbour may still know.
        left = count is Count.LEFT_CHAIN or session.opening
        rest = Rest.LEFT if left else Rest.ENDED
        for leg in session.legs:
            self.release_ports(leg, now, rest)
        self._installing.pop(session.token, None)
        session.take(Step.RELEASE)
        session.syn = None
        ended = self.on_release(session, now)
        return [CancelTimer(TimerId("session", session.id)), Remove(keys), *ended]

    def drop_right(self, session: Session, now: float) -> list[Action]:
        """The end of a session's right leg alone."""
        leg = session.right
        if leg is None:
            return []
        self.table.remove_leg(leg)
        self.release_ports(leg, now)
        session.right = None
        return [Remove(leg.keys)]

    def release_ports(self, leg: Leg, now: float, rest: Rest = Rest.ENDED) -> None:
        """The ports of a leg's subsession, if this host chose them."""
        if leg.is_right:
            ends = leg.sent
            pair = PortPair(ends.sport, ends.dport)
            self.ports.release(ends.src, ends.dst, pair, now, rest)

    def clear_conflicts(self, leg: Leg, now: float) -> list[Action]:
        """End other sessions that a new leg's five-tuples belonged to: whoever chose them anew
        holds those sessions to be over."""
        actions: list[Action] = []
        table = self.table
        for other in (
            table.by_emitted.get(leg.emitted),
            table.by_arriving.get(leg.sent.reversed),
        ):
            if (
                other is not None
                and other.session is not leg.session
                and other.session.state is not State.RELEASED
            ):
                actions += self.release(other.session, Count.REPLACED, now)
        return actions

    def let_through(self, ends: FiveTuple, isn: int, now: float) -> None:
        """This SYN, when it comes again, goes directly."""
        while len(self._bypasses) >= MAX_BYPASSES:
            del self._bypasses[next(iter(self._bypasses))]
        self._bypasses[ends] = (isn, now + self.settings.bypass_time)

    def is_let_through(self, ends: FiveTuple, isn: int, now: float) -> bool:
        """True if this SYN was failed to a direct session."""
        bypass = self._bypasses.get(ends)
        if bypass is None:
            return False
        if bypass[0] != isn or bypass[1] <= now:
            del self._bypasses[ends]
            return False
        return True
