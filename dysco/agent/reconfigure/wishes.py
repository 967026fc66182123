"""What the operator wants: a reconfiguration that begins at this host, or its end.

    Reconfigure --> possible? --> its turn --> registers known, still possible? --> Member.start
                        '--> journal: until then, it is asked for again after a restart

What is refused is told, and changes nothing.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, CancelReconfiguration, Level, MoveEnd, Reconfigure
from dysco.agent.reconfigure.control import host_number
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import RefusedError, Role
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.session import Session, State


class Wishes:
    """Begins reconfigurations, and cancels them."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._turns = means.turns
        self._orders = orders

    def start(self, event: Reconfigure, now: float) -> list[Action]:
        """Change the chain between this host and another."""
        core = self._core
        session = core.table.sessions.get(event.session)
        try:
            if session is None:
                raise RefusedError(f"there is no session {event.session:013x} at this host")
            if event.with_state:
                raise RefusedError("state can't be moved yet")
            return self._start(session, event, now)
        except (RefusedError, SetupError) as error:
            return [core.tell(Level.WARNING, Count.REQUEST_REFUSED, f"{session}: {error}")]

    def move_end(self, event: MoveEnd, now: float) -> list[Action]:
        """The session's right end goes to another host."""
        why = f"session {event.session:013x}: state can't be moved yet"
        return [self._core.tell(Level.WARNING, Count.REQUEST_REFUSED, why)]

    def _start(self, session: Session, event: Reconfigure, now: float) -> list[Action]:
        """Raises RefusedError or SetupError."""
        core = self._core
        if session.state is not State.ESTABLISHED:
            raise RefusedError(f"it is {session.state.value}")
        here = self._registry.of(session)
        leg = here.a_leg(Role.LEFT)
        right = core.peers.named(event.right)
        if right is None or right.name == core.host.name:
            raise RefusedError(f"{event.right!r} is no other host of the trust group")
        through = core.peers.resolve(event.through, leg.emitted, core.host.name)
        if right.name in (names := tuple(map(core.peers.name_of, through))):
            raise RefusedError(f"{right.name!r} can't be both on the new path and its end")
        version = leg.sent.src.version
        number = host_number(right.name)
        core.peers.reachable(right, version)
        if self._turns.is_taken(here):
            raise RefusedError("another reconfiguration is about to begin here")
        # Once before the registers are read, once after: in between others may come first.
        here.member.request(number)
        kept = (
            session.chain[session.chain.index(right.name) :] if right.name in session.chain else ()
        )

        def go(now: float) -> list[Action]:
            if here.wish is not event:
                return []
            try:
                request = here.member.request(number, int(now * 1000))
            except RefusedError as error:
                return self._turns.not_begun(here, str(error), now)
            here.wish = None
            here.through, here.names = through, (*names, *kept)
            return self._orders.do(here, here.member.start(request), now)

        here.wish = event
        text = f"{session}: through {', '.join(names) or 'nobody'} to {right.name}"
        told = core.tell(Level.INFO, Count.RECONFIGURATION_STARTED, text)
        return [*here.keep(), told, *self._turns.wish(here, go, now)]

    def resume(self, now: float) -> list[Action]:
        """After a restart: what the journal says was wanted, and had not begun."""
        actions: list[Action] = []
        for here in list(self._registry.sessions.values()):
            actions += self._again(here, now)
        return actions

    def _again(self, here: Here, now: float) -> list[Action]:
        event, here.wish = here.wish, None
        if event is None:
            return []
        try:
            return self._start(here.session, event, now)
        except (RefusedError, SetupError) as error:
            return self._turns.not_begun(here, str(error), now)

    def cancel(self, event: CancelReconfiguration, now: float) -> list[Action]:
        """Go back, if that is still possible."""
        core = self._core
        here = self._registry.get(event.session)
        why = "cancelled by the operator"
        if here is not None and here.wish is not None:
            told = core.tell(Level.INFO, Count.RECONFIGURATION_CANCELLED, str(here.session))
            return [told, *self._turns.withdraw(here, why, now)]
        orders = here.member.cancel(why) if here is not None else []
        if here is None or not orders:
            text = (
                f"session {event.session:013x}: nothing that could still be cancelled begins here"
            )
            return [core.tell(Level.WARNING, Count.REQUEST_REFUSED, text)]
        told = core.tell(Level.INFO, Count.RECONFIGURATION_CANCELLED, str(here.session))
        return [told, *self._orders.do(here, orders, now)]
