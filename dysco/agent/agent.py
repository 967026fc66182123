"""The agent of one host: events in, actions out.

PacketIn --> HOST_SYN  --> outgoing   start a session, or send it on
             DYSCO_SYN --> incoming   deliver a session to the host
             SENT, RECEIVED --------> steady   established, closing
TimerFired, Answered, Idle, InstallFailed --> steady
Recovered --------------------------> recovery
CloseSession, SetRestOfChain, SetUpstream --> requests
Reconfigure, MoveEnd, CONTROL, NEW_PATH, SPLIT, LegReport, StateDone --> reconfigure.reconfigurer
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from random import Random, SystemRandom
from types import MappingProxyType

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import (
    Action,
    Answered,
    CancelReconfiguration,
    CloseSession,
    Event,
    FixDeltas,
    Idle,
    InstallFailed,
    LegRefused,
    LegReport,
    Level,
    MoveEnd,
    PacketIn,
    Reason,
    Reconfigure,
    Recovered,
    SetRestOfChain,
    SetUpstream,
    StateDone,
    StateFailed,
    TimerFired,
)
from dysco.agent.incoming import Incoming
from dysco.agent.model import Host, Peer, Policy
from dysco.agent.outgoing import Outgoing
from dysco.agent.packet import ChecksumError, PacketError, parse
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.reconfigurer import Reconfigurer
from dysco.agent.recovery import recover
from dysco.agent.requests import close_session, set_rest_of_chain, set_upstream
from dysco.agent.session import Session
from dysco.agent.settings import Settings
from dysco.agent.steady import Steady
from dysco.agent.trust import TrustGroup


class Agent:
    """The control logic beside one host; does no I/O and knows no clock.

    `epoch` must be higher at each start than at all before on this host: milliseconds since 1970
    will do. `random` makes session numbers, tags and the order of ports; a seeded one makes an
    agent repeatable.
    """

    def __init__(
        self,
        host: Host,
        group: TrustGroup,
        settings: Settings,
        *,
        epoch: int,
        random: Random | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._core = Core(host, group, settings, random or SystemRandom(), epoch)
        self._outgoing = Outgoing(self._core)
        if patience is None:
            patience = Patience(
                lock=settings.lock_timeout,
                connect=settings.connect_timeout,
                hold=settings.hold_time,
                move=settings.move_timeout,
                at_once=settings.changes_at_once,
            )
        self._reconfigurer = Reconfigurer(self._core, patience)
        self._incoming = Incoming(self._core, self._reconfigurer)
        self._steady = Steady(self._core, self._outgoing, self._incoming)

    @property
    def ports_in_use(self) -> int:
        """Port pairs of subsessions that begin here."""
        return self._core.ports.in_use

    @property
    def host(self) -> Host:
        """Whose agent this is."""
        return self._core.host

    @property
    def sessions(self) -> MappingType[int, Session]:
        """The sessions of this host by their numbers, to be looked at."""
        return MappingProxyType(self._core.table.sessions)

    @property
    def counters(self) -> Counter[str]:
        """What happened how often, by the names in `Count`."""
        return self._core.counters

    def set_policies(self, policies: MappingType[int, Policy]) -> None:
        """The policies by their ids, for sessions to come; running ones keep what they have."""
        self._core.set_policies(policies)

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """All hosts of the trust group, this one too.

        Raises ValueError if two have one name or one address.
        """
        self._core.set_peers(peers)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What is to be done about an event. `now`: seconds, of a clock that never goes back."""
        core = self._core
        match event:
            case PacketIn():
                return self._packet(event, now)
            case TimerFired(timer):
                if timer.kind != "session":
                    return self._reconfigurer.timer(timer, now)
                return self._steady.timer(timer, now)
            case Answered():
                return self._steady.answered(event)
            case Idle():
                return self._steady.idle(event, now)
            case InstallFailed(token, why):
                return self._steady.install_failed(token, why, now)
            case Recovered(mappings, legs, journal):
                actions = recover(core, mappings, now)
                return actions + self._reconfigurer.recover(legs, journal, now)
            case CloseSession():
                return close_session(core, event, now)
            case SetRestOfChain():
                return set_rest_of_chain(core, event)
            case SetUpstream():
                return set_upstream(core, event)
            case FixDeltas():
                return self._reconfigurer.fix_deltas(event)
            case (
                LegReport()
                | LegRefused()
                | Reconfigure()
                | MoveEnd()
                | CancelReconfiguration()
                | StateDone()
                | StateFailed()
            ):
                return self._reconfigure(event, now)

    def _reconfigure(
        self,
        event: LegReport
        | LegRefused
        | Reconfigure
        | MoveEnd
        | CancelReconfiguration
        | StateDone
        | StateFailed,
        now: float,
    ) -> list[Action]:
        reconfigurer = self._reconfigurer
        match event:
            case LegReport():
                return reconfigurer.report(event, now)
            case LegRefused():
                return reconfigurer.refused(event, now)
            case Reconfigure():
                return reconfigurer.start(event, now)
            case MoveEnd():
                return reconfigurer.move_end(event, now)
            case CancelReconfiguration():
                return reconfigurer.cancel(event, now)
            case StateDone() | StateFailed():
                return reconfigurer.state(event, now)

    def _packet(self, packet: PacketIn, now: float) -> list[Action]:
        core = self._core
        reason = packet.reason
        is_copy = reason in (Reason.SENT, Reason.RECEIVED)
        if packet.host != core.host.id or reason is Reason.NEIGHBOUR:
            core.counters[Count.UNEXPECTED] += 1
            return []
        if reason is Reason.CONTROL:
            return self._reconfigurer.control(packet, now)
        try:
            segment = parse(packet.frame, verify=not is_copy)
        except PacketError as error:
            damaged = isinstance(error, ChecksumError)
            text = f"{reason.name} at port {packet.port}: {error}"
            count = Count.BAD_CHECKSUM if damaged else Count.BAD_PACKET
            return [core.tell(Level.WARNING, count, text)]
        if is_copy:
            return self._steady.copy(reason, segment)
        if reason is Reason.NEW_PATH:
            return self._reconfigurer.new_path(segment, now)
        if reason is Reason.HELD:
            return self._reconfigurer.held(packet, segment, now)
        if reason is Reason.SPLIT:
            return self._reconfigurer.split(packet, segment)
        if not segment.is_syn:
            core.counters[Count.UNEXPECTED] += 1
            return []
        if reason is Reason.HOST_SYN:
            return self._outgoing.syn(packet, segment, now)
        return self._incoming.syn(packet, segment, now)
