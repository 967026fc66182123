"""What the operator wants: a reconfiguration that begins at this host, or its end.

    Reconfigure --> possible? --> its turn --> registers known, still possible? --> Member.start
                        '--> journal: until then, it is asked for again after a restart

What is refused is told, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, CancelReconfiguration, Level, MoveEnd, Reconfigure
from dysco.agent.model import Address, Peer
from dysco.agent.reconfigure.control import host_number
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import RefusedError, Role
from dysco.agent.reconfigure.messages import Change, Toward
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.session import Leg, Session, State


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a reconfiguration is to reach; hosts by their numbers."""

    right: int
    change: Change
    through: tuple[Address, ...]
    """Hosts to cross on the new path; of a move the new host."""
    names: tuple[str, ...]
    """The chain after this host, as it is to be."""
    to: int = 0
    """The new host of a move."""


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
            return self._start(session, event, now)
        except (RefusedError, SetupError) as error:
            return [core.tell(Level.WARNING, Count.REQUEST_REFUSED, f"{session}: {error}")]

    def move_end(self, event: MoveEnd, now: float) -> list[Action]:
        """The session's right end goes to another host."""
        core = self._core
        session = core.table.sessions.get(event.session)
        try:
            if session is None:
                raise RefusedError(f"there is no session {event.session:013x} at this host")
            return self._move_end(session, event, now)
        except (RefusedError, SetupError) as error:
            return [core.tell(Level.WARNING, Count.REQUEST_REFUSED, f"{session}: {error}")]

    def _move_end(self, session: Session, event: MoveEnd, now: float) -> list[Action]:
        """Raises RefusedError or SetupError."""
        core = self._core
        here, leg = self._at_leg(session)
        old, new = core.peers.named(event.right), self._end(event.to)
        if old is None or here.neighbour(Toward.RIGHT) != host_number(old.name):
            raise RefusedError(f"{event.right!r} is not the next host of the session")
        if new.name in (old.name, core.host.name):
            raise RefusedError(f"{new.name!r} is on the session's path already")
        to = core.peers.reachable(new, leg.sent.src.version)
        aim = _Aim(host_number(old.name), Change.MOVE_END, (to,), (), host_number(new.name))
        text = f"{session}: its end moves from {old.name} to {new.name}"
        return self._wish(here, event, aim, text, now)

    def _end(self, word: str) -> Peer:
        """An end host by its name or address. Raises RefusedError."""
        peer = self._core.peers.named(word)
        if peer is None:
            try:
                peer = self._core.peers.at(ip_address(word))
            except ValueError:
                peer = None
        if peer is None:
            raise RefusedError(f"{word!r} is no host of the trust group")
        if peer.kind is not None:
            raise RefusedError(f"{peer.name!r} is a middlebox, and can't be a session's end")
        return peer

    def _at_leg(self, session: Session) -> tuple[Here, Leg]:
        """Raises RefusedError if nothing can begin on the session's right leg now."""
        if session.state is not State.ESTABLISHED:
            raise RefusedError(f"it is {session.state.value}")
        here = self._registry.of(session)
        leg = here.a_leg(Role.LEFT)
        if self._turns.is_taken(here):
            raise RefusedError("another reconfiguration is about to begin here")
        return here, leg

    def _start(self, session: Session, event: Reconfigure, now: float) -> list[Action]:
        """Raises RefusedError or SetupError."""
        core = self._core
        here, leg = self._at_leg(session)
        right = core.peers.named(event.right)
        if right is None or right.name == core.host.name:
            raise RefusedError(f"{event.right!r} is no other host of the trust group")
        through = core.peers.resolve(event.through, leg.emitted, core.host.name)
        if right.name in (names := tuple(map(core.peers.name_of, through))):
            raise RefusedError(f"{right.name!r} can't be both on the new path and its end")
        for name in names:
            peer = core.peers.named(name)
            if peer is not None and peer.ends_connections:
                raise RefusedError(f"{name!r} ends connections itself: for new sessions only")
        version = leg.sent.src.version
        number = host_number(right.name)
        core.peers.reachable(right, version)
        kept = (
            session.chain[session.chain.index(right.name) :] if right.name in session.chain else ()
        )

        aim = _Aim(number, Change.PATH, through, (*names, *kept))
        text = f"{session}: through {', '.join(names) or 'nobody'} to {right.name}"
        if event.with_state:
            if len(through) != 1:
                raise RefusedError("state goes from one box to one other")
            if here.neighbour(Toward.RIGHT) == host_number(names[0]):
                raise RefusedError(f"{names[0]!r} is where its state is already")
            aim = replace(aim, change=Change.MOVE_BOX, to=host_number(names[0]))
            text += ", with the state of the box before"
        return self._wish(here, event, aim, text, now)

    def _wish(
        self, here: Here, event: Reconfigure | MoveEnd, aim: _Aim, text: str, now: float
    ) -> list[Action]:
        """It begins at its turn. Raises RefusedError."""
        # Once before the registers are read, once after: in between others may come first.
        here.member.request(aim.right)

        def go(now: float) -> list[Action]:
            if here.wish is not event:
                return []
            try:
                request = here.member.request(aim.right, int(now * 1000), aim.change)
            except RefusedError as error:
                return self._turns.not_begun(here, str(error), now)
            here.wish = None
            here.through, here.names = aim.through, aim.names
            return self._orders.do(here, here.member.start(request, aim.to), now)

        here.wish = event
        told = self._core.tell(Level.INFO, Count.RECONFIGURATION_STARTED, text)
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
            if isinstance(event, MoveEnd):
                return self._move_end(here.session, event, now)
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
