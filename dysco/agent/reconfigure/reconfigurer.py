"""The reconfigurations of one agent: events to the sessions' members, their orders to actions.

    Reconfigure, CancelReconfiguration --> wishes ----.
    control datagrams                  --> inbox -----|
    the host's own state               --> state_results
    SYNs with an opening, handshakes   --> handshakes |--> Here.member --> orders --> actions
    reports of legs, segments to split --> reports ---|
    the journal                        --> restart ---|
    timers, the end of a session       --> here ------'

    orders --> legs --> places              the device's entries, and which subsession is which
           --> mail, new_path, to_host      what is sent to agents, anchors, the host
           --> turns, given_up              whose turn it is; what nobody waits for any more
           --> holds, moves, state_calls    what waits while state moves, what goes along, the state

Calls go from left to right alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from dysco.agent import packet
from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import (
    Action,
    CancelReconfiguration,
    CancelTimer,
    FixDeltas,
    HeldLeg,
    LegRefused,
    LegReport,
    MoveEnd,
    PacketIn,
    QueryLeg,
    Reconfigure,
    SetTimer,
    StateDone,
    StateFailed,
    TimerId,
)
from dysco.agent.header import Header
from dysco.agent.reconfigure.fixing import Fixing
from dysco.agent.reconfigure.handshakes import Handshakes
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.inbox import Inbox
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.reports import Reports
from dysco.agent.reconfigure.restart import Restart
from dysco.agent.reconfigure.state_results import StateResults
from dysco.agent.reconfigure.timers import BY_ROLE, ROLES, Timer
from dysco.agent.reconfigure.wishes import Wishes
from dysco.agent.session import Session, State


class Reconfigurer:
    """All that an agent does about reconfigurations."""

    def __init__(self, core: Core, patience: Patience) -> None:
        means = Means(core, patience)
        orders = Orders(core, means)
        self._core = core
        self._means = means
        self._orders = orders
        self._wishes = Wishes(core, means, orders)
        self._inbox = Inbox(core, means, orders)
        self._handshakes = Handshakes(core, means, orders)
        self._reports = Reports(core, means, orders)
        self._fixing = Fixing(core, means)
        self._restart = Restart(core, means, orders)
        self._state_results = StateResults(core, means, orders)
        core.on_release = self.released

    @property
    def sessions(self) -> dict[int, Here]:
        """The sessions that were ever reconfigured here, to be looked at."""
        return self._means.registry.sessions

    # From the operator.

    def start(self, event: Reconfigure, now: float) -> list[Action]:
        """Change the chain between this host and another."""
        return self._wishes.start(event, now)

    def move_end(self, event: MoveEnd, now: float) -> list[Action]:
        """The session's right end goes to another host."""
        return self._wishes.move_end(event, now)

    def cancel(self, event: CancelReconfiguration, now: float) -> list[Action]:
        """Go back, if that is still possible."""
        return self._wishes.cancel(event, now)

    def fix_deltas(self, event: FixDeltas) -> list[Action]:
        """This host, which changed a session's stream, will change it no more."""
        return self._fixing.fix(event)

    # From the host, by way of whoever knows its state.

    def state(self, event: StateDone | StateFailed, now: float) -> list[Action]:
        """What became of a `StateCall`."""
        return self._state_results.answer(event, now)

    # From other agents.

    def control(self, event: PacketIn, now: float) -> list[Action]:
        """A control datagram."""
        return self._inbox.control(event, now)

    def syn(self, header: Header, arrived: packet.Segment, now: float) -> list[Action] | None:
        """The SYN of a new path that ends here; None: it is not for us."""
        return self._handshakes.syn(header, arrived, now)

    def takes_again(self, session: Session) -> bool:
        """True if a session that left this host's chain, and lingers, may come back anew."""
        here = self._means.registry.get(session.id)
        return here is not None and here.member.lock.state is LockState.GONE

    # From the data plane.

    def new_path(self, segment: packet.Segment, now: float) -> list[Action]:
        """A segment of a new path's handshake, as the network has it."""
        return self._handshakes.segment(segment, now)

    def split(self, event: PacketIn, segment: packet.Segment) -> list[Action]:
        """A host's segment that lies across a cutoff."""
        return self._reports.split(event, segment)

    def held(self, event: PacketIn, segment: packet.Segment, now: float) -> list[Action]:
        """A host's segment on a leg whose gate holds."""
        return self._reports.held(event, segment, now)

    def report(self, event: LegReport, now: float) -> list[Action]:
        """The registers of a leg."""
        return self._reports.report(event, now)

    def refused(self, event: LegRefused, now: float) -> list[Action]:
        """The device refused a leg's constants."""
        return self._reports.refused(event, now)

    # Timers.

    def timer(self, timer: TimerId, now: float) -> list[Action]:
        """One of our timers."""
        here = self._means.registry.get(timer.subject)
        if here is None:
            return []
        match kind := Timer(timer.kind):
            case Timer.LINGER:
                return self._means.legs.lingered(here, now)
            case Timer.BEGIN:
                return self._means.turns.begin_again(here, now)
            case Timer.ABANDON:
                return [*self._means.given_up.tell(here), *self._orders.do(here, (), now)]
            case Timer.MOVE:
                return self._orders.do(here, here.member.wake_move(), now)
            case Timer.STATE:
                return self._state_results.timer(here, now)
            case Timer.HOLD:
                return self._means.holds.timer(here, now)
            case Timer.LEASE:
                return self._lease_over(here, now)
            case Timer.LEFT | Timer.RIGHT:
                return self._wake(here, ROLES[kind], now)

    def _lease_over(self, here: Here, now: float) -> list[Action]:
        if here.member.is_idle:
            return []
        self._core.counters[Count.LEASE_EXPIRED] += 1
        again = SetTimer(Timer.LEASE.of(here.session.id), self._means.patience.lease)
        return [again, *self._orders.do(here, here.member.lease_over(), now)]

    def _wake(self, here: Here, role: Role, now: float) -> list[Action]:
        """An anchor's time is over, or the registers that it waits for have not come."""
        if here.resuming:
            waits = here.session_leg(role)
            if waits is None:
                return []
            again = SetTimer(BY_ROLE[role].of(here.session.id), self._means.patience.longest)
            return [again, QueryLeg(waits.outbound_key)]
        if here.session.state in (State.RESET, State.RELEASED):
            orders = here.member.session_over()
            if orders:
                return self._orders.do(here, orders, now)
        self._means.pace.unanswered((here.session.id, role), now)
        actions = self._orders.do(here, here.member.wake(role), now)
        leg = here.session_leg(role)
        if leg is not None and not here.is_over and not here.member.is_idle:
            actions.append(QueryLeg(leg.outbound_key))
        return actions

    # The end of a session, and of an agent.

    def released(self, session: Session, now: float) -> list[Action]:
        """The session is over at this host."""
        here = self._means.registry.get(session.id)
        if here is None:
            return []
        here.is_over = True
        here.waiting.clear()
        self._means.holds.drop(here)
        turns = self._means.turns
        if here.wish is not None:
            actions = turns.withdraw(here, "the session ended", now)
        else:
            actions = turns.begun(here, now)
        orders = here.member.session_over()
        actions += self._means.legs.remove(here, now)
        left = here.member.left
        # A left anchor goes on to tell the hops that it is over.
        done = (Timer.LEFT,) if left is None or left.is_over else ()
        timers = (Timer.LINGER, Timer.LEASE, Timer.RIGHT, Timer.MOVE, Timer.HOLD, *done)
        actions += [CancelTimer(timer.of(session.id)) for timer in timers]
        return actions + self._orders.do(here, orders, now)

    def recover(
        self,
        legs: Sequence[HeldLeg],
        records: Sequence[tuple[int, bytes]],
        now: float,
    ) -> list[Action]:
        """After a restart, when the sessions are known again."""
        return [*self._restart.recover(legs, records, now), *self._wishes.resume(now)]
