"""A session at this host, as its member sees it: legs, ends, neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dysco.agent.core import Core
from dysco.agent.events import Action, Keep, MoveEnd, Reconfigure, StateCall
from dysco.agent.model import Address, FiveTuple
from dysco.agent.options import Negotiated
from dysco.agent.reconfigure import journal
from dysco.agent.reconfigure.control import host_number
from dysco.agent.reconfigure.held import Hold
from dysco.agent.reconfigure.in_band import Numbers
from dysco.agent.reconfigure.journal import Kept
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.member import Member, RefusedError, Role
from dysco.agent.reconfigure.messages import Deltas, Ends, Leg, ReconfigurationId, Toward
from dysco.agent.reconfigure.serial import diff
from dysco.agent.reconfigure.state import Entry, OldWay, Registers
from dysco.agent.session import Leg as SessionLeg
from dysco.agent.session import Session

Todo = Callable[[float], list[Action]]

_DEFAULT_MSS = 536
"""RFC 9293, 3.7.1."""


@dataclass(slots=True)
class Call:
    """What was asked last."""

    asked: StateCall
    tries: int = 1
    failed: bool = False
    """It is tried again when the timer fires."""


class Here:
    """One session's surroundings, and its member."""

    def __init__(self, core: Core, session: Session, patience: Patience) -> None:
        self.core = core
        self.session = session
        self.entries: dict[Role, Entry] = {}
        """Of the legs whose constants are in the device, or on their way there."""
        self.registers: dict[Role, Registers] = {}
        """As they were reported last."""
        self.waiting: dict[Role, list[Todo]] = {}
        """What is to be done at the next report."""
        self.lingering: dict[Role, FiveTuple] = {}
        """Old subsessions whose entries stay for what is still under way."""
        self.abandoned: dict[int, ReconfigurationId] = {}
        """Hosts of a new path that was given up, until they say that they know."""
        self.fixed: Deltas | None = None
        """What the host said that it added to the stream; None: nothing, or it is not over."""
        self.last: dict[FiveTuple, Numbers] = {}
        """How control messages are numbered on old subsessions that linger."""
        self.told: dict[int, ReconfigurationId] = {}
        """The same hosts, those that have said so too."""
        self.tries = 0
        self.is_released = False
        """This host left the chain, and all on the right of it know that the lock is over."""
        self.through: tuple[Address, ...] = ()
        """Hosts to cross on the new path that begins here."""
        self.names: tuple[str, ...] = ()
        """The chain after this host, as it is to be."""
        self.wish: Reconfigure | MoveEnd | None = None
        """What the operator wants, until it begins or is refused."""
        self.resuming: set[Role] = set()
        """After a restart: roles whose registers are not known yet."""
        self.is_over = False
        self.holds: dict[Role, Hold] = {}
        """What legs hold while state moves."""
        self.call: Call | None = None
        """What was asked last of the host's own state."""
        self.cargo: tuple[bytes, ...] = ()
        """What goes to the new host, in pieces."""
        self._kept = b""
        self._glance: list[object] = []
        """What the journal has: the last record, and by what to see that it still holds."""
        self.number = host_number(core.host.name)
        self.member = Member(self.number, self, patience, core.random)

    # What the member asks.

    def neighbour(self, toward: Toward) -> int | None:
        """The next host of the session; None: there is none, or it is no peer."""
        leg = self.session.left if toward is Toward.LEFT else self.session.right
        return self.at(leg.sent) if leg is not None else None

    def at(self, ends: FiveTuple) -> int | None:
        """The host at the other end of a subsession; None: it is no peer."""
        peer = self.core.peers.at(self.session.at_peer(ends).src)
        return host_number(peer.name) if peer is not None else None

    def is_hidden(self) -> bool:
        """True if a NAT of the network hides the host on the left: it can't be written to."""
        leg = self.session.left
        return leg is not None and leg.sent in self.session.hidden

    def forget(self, ends: FiveTuple) -> None:
        """A subsession is no more."""
        self.session.hidden.pop(ends, None)
        self.session.in_band.discard(ends)
        self.last.pop(ends, None)

    def leg(self, role: Role) -> Leg:
        """The constants as they are to be, the registers as they were reported last."""
        return Leg(
            self.entries.get(role) or self.fresh(role), self.registers.get(role, Registers())
        )

    def ends(self, role: Role) -> Ends:
        """What an anchor says of its host."""
        leg, view = self.session_leg(role), self.leg(role)
        if leg is None or leg.accepted is None:
            return Ends(0, 0, False, False)
        own, other = self._options(leg)
        return Ends(
            view.entry.scale_own,
            view.registers.edge_in,
            own.timestamps and other.timestamps,
            own.sack_permitted and other.sack_permitted,
            _DEFAULT_MSS if own.mss is None else own.mss,
            _DEFAULT_MSS if other.mss is None else other.mss,
            leg.accepted.ecn,
        )

    @property
    def is_end(self) -> bool:
        """True if the session goes no further than this host."""
        return self.session.right is None

    def deltas(self) -> Deltas:
        """What the host adds: the connections on its two sides may begin with other numbers."""
        left, right = self.session.left, self.session.right
        if left is None or right is None:
            return Deltas()
        handshakes = Deltas(
            diff(right.isn, left.isn),
            diff(left.answer_isn, right.answer_isn),
            relays=self.session.relays,
        )
        return handshakes + self.fixed if self.fixed is not None else handshakes

    def stays(self) -> str:
        """Why the host can't be taken off the session's path; "": it can."""
        if not self.core.host.changes_stream or self.fixed is not None:
            return ""
        return f"{self.core.host.name!r} changes the stream, and has not said that it is done"

    # Legs.

    def session_leg(self, role: Role) -> SessionLeg | None:
        """The leg that an anchor of this role works on."""
        return self.session.right if role is Role.LEFT else self.session.left

    def session_legs(self) -> list[tuple[Role, SessionLeg]]:
        """The legs that there are, by the role of an anchor that works on them."""
        return [(role, leg) for role in Role if (leg := self.session_leg(role)) is not None]

    def role_of(self, leg: SessionLeg) -> Role:
        """The role of an anchor that works on this leg."""
        return Role.LEFT if leg.is_right else Role.RIGHT

    def a_leg(self, role: Role) -> SessionLeg:
        """As `session_leg`. Raises RefusedError if there is none, or no answer passed on it."""
        leg = self.session_leg(role)
        if leg is None or leg.accepted is None:
            raise RefusedError(f"{self.session} is not established on that side of this host")
        return leg

    def fresh(self, role: Role) -> Entry:
        """The constants of a leg that was never reconfigured."""
        leg = self.session_leg(role)
        if leg is None or leg.accepted is None:
            return Entry()
        own, other = (o.window_scale for o in self._options(leg))
        if own is None or other is None:
            own = other = 0
        own, other = min(own, 14), min(other, 14)
        return Entry(OldWay(scale_in=other), scale_own=own, scale_heard=other)

    def offer(self, role: Role) -> Negotiated:
        """The options of a new path's SYN or SYN-ACK: what the host and its peer agreed on.

        The window scale always, 0 if there is none: a firewall takes it from both or from neither.
        """
        ends = self.ends(role)
        return Negotiated(ends.takes, ends.scale, ends.sack, ends.timestamps, ends.ecn)

    @staticmethod
    def _options(leg: SessionLeg) -> tuple[Negotiated, Negotiated]:
        """Of the host, of its peer."""
        accepted = leg.accepted or leg.offered
        return (leg.offered, accepted) if leg.is_right else (accepted, leg.offered)

    # The journal.

    def keep(self) -> list[Action]:
        """Journals what must survive the agent's death, if it changed."""
        kept = self._record()
        glance = journal.glance(kept)
        if glance == self._glance:
            return []
        self._glance = glance
        record = journal.write(kept)
        if record == self._kept:
            return []
        self._kept = record
        return [Keep(self.session.id, record)]

    def _record(self) -> Kept:
        member, session = self.member, self.session
        legs = {Role.LEFT: session.right, Role.RIGHT: session.left}
        spare = {
            role: leg.spare
            for role, leg in legs.items()
            if leg is not None and leg.spare is not None
        }
        return Kept(
            member.lock,
            member.left,
            member.right,
            member.routes,
            member.finished_right,
            member.number,
            self.through,
            spare,
            session.chain,
            self.names,
            self.wish,
            dict(session.hidden),
            member.source,
            member.target,
            self.fixed,
            self.is_released,
        )

    def restore(self, kept: Kept, record: bytes) -> None:
        """As the journal has it in `record`; legs as the device has them."""
        member = self.member
        self._kept = record
        self.session.chain, self.names, self.wish = kept.chain, kept.names, kept.wish
        member.lock, member.left, member.right = kept.lock, kept.left, kept.right
        member.routes, member.finished_right = kept.routes, kept.finished_right
        member.number, self.through = kept.number, kept.through
        self.session.hidden, self.fixed = dict(kept.hidden), kept.fixed
        member.source, member.target = kept.source, kept.target
        self.is_released = kept.is_released
        for party in (member.left, member.right, member.source, member.target):
            if party is not None:
                party.patience = member.patience
        for role, spare in kept.spare.items():
            leg = self.session_leg(role)
            if leg is not None and leg.sent != spare:
                leg.spare = spare
