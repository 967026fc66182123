"""The reconfigurations of one agent: events to the sessions' members, their orders to actions.

    Reconfigure, control datagrams, SYNs with an opening,   --> Here.member --> orders --> actions
    handshakes of new paths, reports of legs, timers

Before anything that a member decided is done, it is journalled (`Keep`); what follows from an entry
waits until the device has it (`SetLeg.then`). Registers are read before a lock is asked for or
granted, and at each time-out: what is known of them in between may be old, and is never ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from dysco.agent import packet
from dysco.agent.chain import Peers
from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import (
    Action,
    Announce,
    CancelReconfiguration,
    CancelTimer,
    HeldLeg,
    Keep,
    LegNews,
    LegRefused,
    LegReport,
    Level,
    PacketIn,
    Progress,
    QueryLeg,
    Reconfigure,
    Send,
    SetLeg,
    SetTimer,
    SplitAt,
    Submit,
    TimerId,
)
from dysco.agent.header import Header
from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, OnFailure, Side
from dysco.agent.ports import PortPair
from dysco.agent.reconfigure import departure, journal, messages
from dysco.agent.reconfigure.control import (
    ControlError,
    ForgedError,
    Letter,
    datagram,
    decode,
    encode,
    host_number,
    pack_opening,
    payload_of,
    read_opening,
)
from dysco.agent.reconfigure.frames import to_frame, to_segment
from dysco.agent.reconfigure.here import Here, Todo
from dysco.agent.reconfigure.left import LeftState, Patience
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.member import Order, Post, RefusedError, Role, answer_to
from dysco.agent.reconfigure.messages import (
    AckCancel,
    AckRelease,
    CancelLock,
    Message,
    NackLock,
    Opening,
    ReconfigurationId,
    Release,
    RequestLock,
    SendNew,
)
from dysco.agent.reconfigure.segment import RST, SYN, Segment
from dysco.agent.reconfigure.state import Entry, switching
from dysco.agent.record import short_record
from dysco.agent.session import Leg as SessionLeg
from dysco.agent.session import Session, State
from dysco.agent.trust import ReplayGuard

LINGER = 2.0
"""Seconds that an old path's entries stay, for what is still under way on it."""
MAX_LINGERS = 15
"""How often a host that left a chain waits for its neighbour's word, LINGER each."""
MAX_GIVEN_UP = 4096
MAX_TRIES = 20
"""How often the hosts of a new path are told that it was given up."""
MAX_WAITING = 8
"""Things to be done at a leg's next report; of more, the oldest is dropped."""
_TIMERS = {Role.LEFT: "left", Role.RIGHT: "right"}
_ROLES = {name: role for role, name in _TIMERS.items()}
_OPEN = (State.ESTABLISHED,)
_BEGUN = {state.value for state in (LeftState.DRAINING, LeftState.FINISHED, LeftState.FAILED)}
MAX_QUERIES = 10
"""How often the registers are asked for before a reconfiguration is refused."""


class Reconfigurer:
    """All that an agent does about reconfigurations."""

    def __init__(self, core: Core, patience: Patience | None = None) -> None:
        self._core = core
        self._patience = patience or Patience()
        self._here: dict[int, Here] = {}
        self._by_spare: dict[FiveTuple, tuple[Here, Role]] = {}
        """By what arrives on a new path, or on an old one that lingers."""
        self._guard = ReplayGuard(core.settings.replay_window, core.settings.max_senders)
        self._wishes: dict[int, Todo] = {}
        """Reconfigurations that wait until others have begun, by session; the oldest first."""
        self._beginning: set[int] = set()
        """Sessions whose reconfiguration has not switched yet."""
        self._given_up: dict[tuple[int, ReconfigurationId], None] = {}
        """New paths that were given up before they got here, by session; the oldest first."""
        core.on_release = self.released

    @property
    def sessions(self) -> dict[int, Here]:
        """The sessions that were ever reconfigured here, to be looked at."""
        return self._here

    # From the operator.

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

    def _start(self, session: Session, event: Reconfigure, now: float) -> list[Action]:
        core = self._core
        if session.state not in _OPEN:
            raise RefusedError(f"it is {session.state.value}")
        here = self._of(session)
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
        if session.id in self._wishes or session.id in self._beginning:
            raise RefusedError("another reconfiguration is about to begin here")
        # Once before the registers are read, once after: in between others may come first.
        here.member.request(number)
        kept = (
            session.chain[session.chain.index(right.name) :] if right.name in session.chain else ()
        )

        def go(now: float) -> list[Action]:
            try:
                request = here.member.request(number, int(now * 1000))
            except RefusedError as error:
                return self._not_begun(here, str(error), now)
            here.through, here.names = through, (*names, *kept)
            return self._do(here, here.member.start(request), now)

        text = f"{session}: through {', '.join(names) or 'nobody'} to {right.name}"
        told = core.tell(Level.INFO, Count.RECONFIGURATION_STARTED, text)
        self._wishes[session.id] = go
        return [told, *self._admit(now)]

    def _admit(self, now: float) -> list[Action]:
        """Begin what waits, as far as not too much is beginning: each must end within its time."""
        actions: list[Action] = []
        while self._wishes and len(self._beginning) < self._patience.at_once:
            number, go = next(iter(self._wishes.items()))
            del self._wishes[number]
            here = self._here.get(number)
            if here is None or here.is_over:
                continue
            self._beginning.add(number)
            here.tries = 0
            actions.append(SetTimer(TimerId("begin", number), self._patience.longest))
            actions += self._with_registers(here, Role.LEFT, go, now)
        return actions

    def _begun(self, here: Here, now: float) -> list[Action]:
        """One is over, or has nothing left that must end in time: others may begin."""
        if here.session.id not in self._beginning:
            return []
        self._beginning.discard(here.session.id)
        return self._admit(now)

    def _not_begun(self, here: Here, why: str, now: float) -> list[Action]:
        core, number = self._core, here.session.id
        told = core.tell(Level.WARNING, Count.REQUEST_REFUSED, f"{here.session}: {why}")
        role, name = Role.LEFT.value, core.host.name
        failed = Progress(number, name, 0, role, LeftState.FAILED.value, why)
        return [told, failed, *self._begun(here, now)]

    def _begin_again(self, here: Here, now: float) -> list[Action]:
        """The registers that a reconfiguration waits for have not come."""
        leg = here.session.right
        if leg is None or not here.waiting.get(Role.LEFT):
            return []
        here.tries += 1
        if here.tries > MAX_QUERIES:
            del here.waiting[Role.LEFT]
            return self._not_begun(here, "the device does not tell what it knows of the leg", now)
        timer = SetTimer(TimerId("begin", here.session.id), self._patience.longest)
        return [timer, QueryLeg(leg.outbound_key)]

    def cancel(self, event: CancelReconfiguration, now: float) -> list[Action]:
        """Go back, if that is still possible."""
        core = self._core
        here = self._here.get(event.session)
        if here is not None and self._wishes.pop(event.session, None) is not None:
            return self._not_begun(here, "cancelled by the operator", now)
        orders = here.member.cancel("cancelled by the operator") if here is not None else []
        if here is None or not orders:
            text = (
                f"session {event.session:013x}: nothing that could still be cancelled begins here"
            )
            return [core.tell(Level.WARNING, Count.REQUEST_REFUSED, text)]
        told = core.tell(Level.INFO, Count.RECONFIGURATION_CANCELLED, str(here.session))
        return [told, *self._do(here, orders, now)]

    # From other agents.

    def control(self, event: PacketIn, now: float) -> list[Action]:
        """A control datagram."""
        core = self._core
        try:
            source, payload = payload_of(event.frame)
        except ControlError as error:
            return [core.tell(Level.WARNING, Count.CONTROL_MALFORMED, f"control message: {error}")]
        try:
            letter = decode(payload, core.group)
        except ControlError as error:
            forged = isinstance(error, ForgedError)
            count = Count.CONTROL_FORGED if forged else Count.CONTROL_MALFORMED
            return [core.tell(Level.WARNING, count, f"control message from {source}: {error}")]
        if not self._guard.admit(letter.sender, letter.nonce):
            core.counters[Count.CONTROL_REPLAYED] += 1
            return []
        session = core.table.sessions.get(letter.session)
        here = self._here.get(letter.session)
        message = letter.message
        if (
            isinstance(message, CancelLock)
            and session is not None
            and _came_by(session, message.id)
            and (here is None or here.member.is_idle)
        ):
            # The new path that this session came here by was given up.
            core.counters[Count.CONTROL_UNKNOWN] -= 1
            return [*self._unknown(letter), *self._leave(self._of(session), now)]
        if (
            here is not None
            and isinstance(message, AckCancel)
            and here.abandoned.get(letter.sender) == message.id
        ):
            del here.abandoned[letter.sender]
            return self._do(here, (), now)
        if here is None and session is not None:
            here = self._of(session)
        if here is None:
            return self._unknown(letter)
        return self._message(here, letter.sender, letter.message, now)

    def _unknown(self, letter: Letter) -> list[Action]:
        """For a session that is over here: the end of a lock must still reach both anchors."""
        core, message = self._core, letter.message
        core.counters[Count.CONTROL_UNKNOWN] += 1
        if isinstance(message, CancelLock):
            # Its SYN may still be on the way.
            self._given_up[letter.session, message.id] = None
            if len(self._given_up) > MAX_GIVEN_UP:
                del self._given_up[next(iter(self._given_up))]
        own = host_number(core.host.name)
        to, answer = letter.sender, message
        match message:
            case RequestLock():
                answer = NackLock(message.id, "the session is over at a hop")
            case CancelLock() | Release() if message.right != own:
                to = message.right
            case CancelLock() | Release():
                answer = answer_to(message).message
            case AckCancel() | AckRelease() if message.id.left != own:
                to = message.id.left
            case _:
                return []
        return self._post(letter.session, to, answer, None)

    def _message(self, here: Here, sender: int, message: Message, now: float) -> list[Action]:
        member = here.member
        if here.resuming:
            # It comes again.
            return []

        def go(now: float) -> list[Action]:
            return self._do(here, member.message(sender, message), now)

        if isinstance(message, AckRelease) and member.lock.state is LockState.GONE:
            here.is_released = True
        if isinstance(message, RequestLock):
            if here.session.state not in _OPEN:
                why = f"the session is {here.session.state.value} at {self._core.host.name}"
                nack = NackLock(message.id, why)
                return self._post(here.session.id, sender, nack, here.session)
            lease = SetTimer(TimerId("lease", here.session.id), self._patience.lease)
            if message.right == here.number:
                return [lease, *self._with_registers(here, Role.RIGHT, go, now)]
            return [lease, *go(now)]
        return go(now)

    def _leave(self, here: Here, now: float) -> list[Action]:
        """This host is off the session's path: its connections are reset, then all is released."""
        here.member.lock.state = LockState.GONE
        here.is_released = True
        return self._close_host(here, now)

    def _give_up_new_path(self, here: Here, about: ReconfigurationId) -> list[Action]:
        """The hosts of a new path are told that it is not needed: a RST may be lost."""
        peers = [self._core.peers.at(address) for address in here.through]
        here.abandoned = {host_number(peer.name): about for peer in peers if peer is not None}
        here.tries = 0
        return self._abandon(here)

    def _abandon(self, here: Here) -> list[Action]:
        if not here.abandoned or here.tries >= MAX_TRIES:
            here.abandoned.clear()
            return []
        here.tries += 1
        actions: list[Action] = []
        for number, about in here.abandoned.items():
            session = None if here.is_over else here.session
            actions += self._post(here.session.id, number, CancelLock(about, number), session)
        pause = min(self._patience.first * 2**here.tries, self._patience.longest)
        return [*actions, SetTimer(TimerId("abandon", here.session.id), pause)]

    def syn(self, header: Header, arrived: packet.Segment, now: float) -> list[Action] | None:
        """The SYN of a new path that ends here; None: it is not for us."""
        here = self._here.get(header.session_id)
        try:
            opening = read_opening(header.opening)
        except ControlError as error:
            return [self._core.tell(Level.WARNING, Count.HEADER_MALFORMED, str(error))]
        if (header.session_id, opening.id) in self._given_up:
            self._core.counters[Count.NEW_PATH_UNKNOWN] += 1
            return []
        member = here.member if here is not None else None
        if here is None or member is None or member.right is None or member.right.id != opening.id:
            return None
        if here.resuming:
            return []
        leg = here.session.left
        if leg is None:
            return None
        spare = arrived.tuple.reversed
        before = leg.spare
        if before is not None and before != spare and member.right.state.value == "prepared":
            self._core.counters[Count.NEW_PATH_UNKNOWN] += 1
            return []
        if before is not None:
            self._by_spare.pop(before.reversed, None)
        leg.spare = spare
        self._by_spare[spare.reversed] = (here, Role.RIGHT)
        return self._do(here, member.new_path(Role.RIGHT, to_segment(arrived), opening), now)

    def takes_again(self, session: Session) -> bool:
        """True if a session that left this host's chain, and lingers, may come back anew."""
        here = self._here.get(session.id)
        return here is not None and here.member.lock.state is LockState.GONE

    # From the data plane.

    def new_path(self, segment: packet.Segment, now: float) -> list[Action]:
        """A segment of a new path's handshake, as the network has it."""
        found = self._by_spare.get(segment.tuple)
        if found is None:
            self._core.counters[Count.NEW_PATH_UNKNOWN] += 1
            return []
        here, role = found
        if here.resuming:
            return []
        return self._do(here, here.member.new_path(role, to_segment(segment)), now)

    def split(self, event: PacketIn, segment: packet.Segment) -> list[Action]:
        """A host's segment that lies across a cutoff."""
        leg = self._core.table.by_emitted.get(segment.tuple)
        here = self._here.get(leg.session.id) if leg is not None else None
        if leg is None or here is None:
            self._core.counters[Count.UNEXPECTED] += 1
            return []
        view = here.leg(here.role_of(leg))
        cutoff = view.entry.old.floor
        if switching(view.entry, view.registers) is not None or cutoff is None:
            cutoff = view.registers.cutoff_out
        return [SplitAt(event.frame, cutoff, event.port)]

    def report(self, event: LegReport, now: float) -> list[Action]:
        """The registers of a leg."""
        leg = self._core.table.leg_of(event.key)
        here = self._here.get(leg.session.id) if leg is not None else None
        if leg is None or here is None:
            self._core.counters[Count.UNEXPECTED] += 1
            return []
        role = here.role_of(leg)
        here.registers[role] = event.registers
        actions: list[Action] = []
        for todo in here.waiting.pop(role, []):
            actions += todo(now)
        if here.resuming:
            return actions
        member = here.member
        orders: list[Order] = []
        if event.news & LegNews.CLOSING:
            orders += member.closing(role)
        if event.news & LegNews.REVOKED and role is Role.RIGHT:
            orders += member.revoked()
        if event.news & LegNews.ANNOUNCED:
            orders += member.announced(role)
        if event.news & LegNews.DRAINED:
            orders += member.drained(role)
        return actions + self._do(here, orders or member.refresh(role), now)

    def refused(self, event: LegRefused, now: float) -> list[Action]:
        """The device refused a leg's constants."""
        core = self._core
        leg = core.table.leg_of(event.key)
        here = self._here.get(leg.session.id) if leg is not None else None
        if leg is None or here is None:
            return []
        text = f"{leg.session}: the device refused a leg's constants: {event.why}"
        told = core.tell(Level.WARNING, Count.LEG_REFUSED, text)
        role = here.role_of(leg)
        here.waiting.pop(role, None)
        if role is Role.LEFT:
            left = here.member.left
            if leg.session.id in self._beginning and (left is None or left.is_over):
                return [told, *self._not_begun(here, f"the device refused: {event.why}", now)]
            orders = here.member.cancel(f"the device refused: {event.why}")
            return [told, *self._do(here, orders, now)]
        # The left anchor hears nothing, and gives up.
        return [told]

    def timer(self, timer: TimerId, now: float) -> list[Action]:
        """One of our timers."""
        here = self._here.get(timer.subject)
        if here is None:
            return []
        if timer.kind == "linger":
            return self._linger(here, now)
        if timer.kind == "begin":
            return self._begin_again(here, now)
        if timer.kind == "abandon":
            return [*self._abandon(here), *self._do(here, (), now)]
        if timer.kind == "lease":
            if here.member.is_idle:
                return []
            self._core.counters[Count.LEASE_EXPIRED] += 1
            again = SetTimer(timer, self._patience.lease)
            return [again, *self._do(here, here.member.lease_over(), now)]
        role = _ROLES[timer.kind]
        if here.resuming:
            waits = here.session_leg(role)
            again = SetTimer(timer, self._patience.longest)
            return [again, QueryLeg(waits.outbound_key)] if waits is not None else []
        if here.session.state in (State.RESET, State.RELEASED):
            orders = here.member.session_over()
            if orders:
                return self._do(here, orders, now)
        actions = self._do(here, here.member.wake(role), now)
        leg = here.session_leg(role)
        if leg is not None and not here.is_over and not here.member.is_idle:
            actions.append(QueryLeg(leg.outbound_key))
        return actions

    # Beginning and end.

    def released(self, session: Session, now: float) -> list[Action]:
        """The session is over at this host."""
        here = self._here.get(session.id)
        if here is None:
            return []
        here.is_over = True
        here.waiting.clear()
        self._wishes.pop(session.id, None)
        begun = self._begun(here, now)
        orders = here.member.session_over()
        actions: list[Action] = []
        for role in list(here.entries):
            leg = here.session_leg(role)
            if leg is not None:
                actions.append(
                    SetLeg(leg.outbound_key, None, remove=self._drop_spare(here, role, now))
                )
        here.entries.clear()
        here.lingering.clear()
        left = here.member.left
        # A left anchor goes on to tell the hops that it is over.
        done = ("left",) if left is None or left.is_over else ()
        actions += [
            CancelTimer(TimerId(kind, session.id)) for kind in ("linger", "lease", "right", *done)
        ]
        return actions + self._do(here, orders, now) + begun

    def recover(
        self,
        legs: Sequence[HeldLeg],
        records: Sequence[tuple[int, bytes]],
        now: float,
    ) -> list[Action]:
        """After a restart, when the sessions are known again."""
        core = self._core
        actions: list[Action] = []
        for held in legs:
            leg = core.table.by_emitted.get(held.key.tuple)
            if leg is None:
                actions.append(SetLeg(held.key, None))
                continue
            here = self._of(leg.session)
            here.entries[here.role_of(leg)] = held.entry
            self._place(leg, held)
        for number, record in records:
            session = core.table.sessions.get(number)
            if session is None:
                actions.append(Keep(number, b""))
                continue
            here = self._of(session)
            try:
                kept = journal.read(record)
            except journal.JournalError as error:
                text = f"{session}: its journal can't be read: {error}"
                actions.append(core.tell(Level.WARNING, Count.JOURNAL_UNREADABLE, text))
                continue
            here.restore(kept)
            here.kept = record
            actions += self._resume(here, now)
        return actions

    def _place(self, leg: SessionLeg, held: HeldLeg) -> None:
        """Which of a leg's places its subsession is in."""
        table = self._core.table
        table.remove_leg(leg)
        leg.path = int(held.entry.path)
        if leg.path and held.second is not None:
            leg.sent, leg.spare = held.second, leg.sent
        elif held.second is not None:
            leg.spare = held.second
        if leg.spare == leg.sent:
            leg.spare = None
        table.add_leg(leg)
        if leg.is_right:
            self._reserve(leg.sent)

    def _resume(self, here: Here, now: float) -> list[Action]:
        """Go on where the journal ends, as soon as the registers are known."""
        actions: list[Action] = []
        member = here.member
        for role in (Role.LEFT, Role.RIGHT):
            leg = here.session_leg(role)
            if leg is not None and leg.spare is not None:
                self._by_spare[leg.spare.reversed] = (here, role)
                if leg.is_right:
                    self._reserve(leg.spare)
        if member.is_idle and member.lock.state is not LockState.GONE:
            actions.append(SetTimer(TimerId("linger", here.session.id), LINGER))
            for role in (Role.LEFT, Role.RIGHT):
                leg = here.session_leg(role)
                if leg is not None and leg.spare is not None:
                    here.lingering[role] = leg.spare
            return actions
        actions.append(SetTimer(TimerId("lease", here.session.id), self._patience.lease))
        waits: set[Role] = set()
        if member.left is not None and not member.left.is_over:
            waits.add(Role.LEFT)
        if member.right is not None and not member.right.is_over:
            waits.add(Role.RIGHT)
        if not waits:
            return actions + self._do(here, member.recover(), now)

        here.resuming = set(waits)

        def go(now: float) -> list[Action]:
            here.resuming = {role for role in waits if role not in here.registers}
            return self._do(here, member.recover(), now) if not here.resuming else []

        for role in waits:
            timer = TimerId(_TIMERS[role], here.session.id)
            actions.append(SetTimer(timer, self._patience.longest))
            actions += self._with_registers(here, role, go, now)
        return actions

    def _reserve(self, ends: FiveTuple) -> None:
        self._core.ports.reserve(ends.src, ends.dst, PortPair(ends.sport, ends.dport))

    def _of(self, session: Session) -> Here:
        here = self._here.get(session.id)
        if here is None or here.session is not session:
            here = self._here[session.id] = Here(self._core, session, self._patience)
        return here

    # Legs.

    def _with_registers(self, here: Here, role: Role, todo: Todo, now: float) -> list[Action]:
        """Do it when the leg's registers were read anew."""
        leg = here.session_leg(role)
        if leg is None:
            return todo(now)
        waiting = here.waiting.setdefault(role, [])
        del waiting[: max(0, len(waiting) - MAX_WAITING + 1)]
        waiting.append(todo)
        query = QueryLeg(leg.outbound_key)
        actions = self._end_linger(here, now) if role in here.lingering else []
        if role in here.entries:
            return [*actions, query]
        entry = here.entries[role] = here.fresh(role)
        return [*actions, SetLeg(leg.outbound_key, entry, then=(query,))]

    def _set_leg(
        self, here: Here, role: Role, entry: Entry, then: Sequence[Action], now: float
    ) -> list[Action]:
        """A leg's constants change, and with them which of its subsessions is which."""
        leg = here.session_leg(role)
        if leg is None or here.is_over:
            return list(then)
        before = here.entries.get(role)
        here.entries[role] = entry
        remove: tuple[MappingKey, ...] = ()
        actions: list[Action] = []
        if before is not None and entry.path != before.path and leg.spare is not None:
            self._swap(here, leg)
            here.lingering[role] = leg.spare
            actions.append(SetTimer(TimerId("linger", here.session.id), LINGER))
            if role is Role.LEFT:
                here.session.chain = here.names
                self._core.counters[Count.RECONFIGURED] += 1
        elif entry.new is None:
            remove = self._drop_spare(here, role, now)
        token = entry.new.token if entry.new is not None else None
        return [
            SetLeg(
                leg.outbound_key,
                entry,
                self._second(leg),
                token,
                self._spare_mappings(leg),
                remove,
                tuple(then),
            ),
            *actions,
        ]

    def _swap(self, here: Here, leg: SessionLeg) -> None:
        """The new subsession becomes the leg's, the old one is what lingers."""
        table = self._core.table
        if leg.spare is None:
            return
        table.remove_leg(leg)
        self._by_spare.pop(leg.spare.reversed, None)
        leg.sent, leg.spare = leg.spare, leg.sent
        leg.path = 1 - leg.path
        table.add_leg(leg)
        self._by_spare[leg.spare.reversed] = (here, here.role_of(leg))

    @staticmethod
    def _second(leg: SessionLeg) -> FiveTuple | None:
        return leg.sent if leg.path else leg.spare

    def _spare_mappings(self, leg: SessionLeg) -> tuple[Mapping, ...]:
        """Both ways of the subsession in the leg's other place."""
        if leg.spare is None:
            return ()
        core = self._core
        key = MappingKey(Side.INBOUND, leg.host, leg.spare.reversed)
        ends = leg.emitted.reversed
        idle = core.settings.idle_timeout
        inbound = Mapping(key, ends, short_record(leg), idle, path=1 - leg.path)
        return (inbound, core.mappings(leg)[0]) if leg.path else (inbound,)

    def _drop_spare(self, here: Here, role: Role, now: float) -> tuple[MappingKey, ...]:
        """The subsession in the leg's other place is no more: what to take out."""
        leg = here.session_leg(role)
        if leg is None or leg.spare is None:
            return ()
        spare, leg.spare = leg.spare, None
        here.lingering.pop(role, None)
        self._by_spare.pop(spare.reversed, None)
        if leg.is_right:
            pair = PortPair(spare.sport, spare.dport)
            self._core.ports.release(spare.src, spare.dst, pair, now)
        return (MappingKey(Side.INBOUND, leg.host, spare.reversed),)

    def _linger(self, here: Here, now: float) -> list[Action]:
        """What was still under way has come."""
        if here.member.lock.state is not LockState.GONE:
            return self._end_linger(here, now)
        if not here.is_released and here.tries < MAX_LINGERS:
            # The end of the lock must reach those on the right, and by way of here.
            here.tries += 1
            return [SetTimer(TimerId("linger", here.session.id), LINGER)]
        return self._core.release(here.session, Count.LEFT_CHAIN, now)

    def _end_linger(self, here: Here, now: float) -> list[Action]:
        actions: list[Action] = []
        for role in list(here.lingering):
            leg = here.session_leg(role)
            entry = here.entries.get(role)
            remove = self._drop_spare(here, role, now)
            if leg is not None and entry is not None:
                token = entry.new.token if entry.new is not None else None
                actions.append(
                    SetLeg(leg.outbound_key, entry, self._second(leg), token, remove=remove)
                )
        here.lingering.clear()
        return actions

    # Orders.

    def _do(self, here: Here, orders: Sequence[Order], now: float) -> list[Action]:
        """Journal what was decided, then do it."""
        actions = self._carry_out(here, orders, now)
        left = here.member.left
        if here.is_over and (left is None or left.is_over) and not here.abandoned:
            if self._here.pop(here.session.id, None) is None:
                return actions
            return [*actions, Keep(here.session.id, b"")]
        if not orders:
            return actions
        record = journal.write(here.record())
        if record == here.kept or here.session.id not in self._here:
            return actions
        here.kept = record
        return [Keep(here.session.id, record), *actions]

    def _carry_out(self, here: Here, orders: Sequence[Order], now: float) -> list[Action]:
        actions: list[Action] = []
        for index, order in enumerate(orders):
            role, what = order.role, order.what
            if isinstance(what, messages.SetEntry):
                entry = self._set_leg(here, role, what.entry, (), now)
                rest = self._carry_out(here, orders[index + 1 :], now)
                return actions + _after(entry, rest)
            match what:
                case Post(to, message):
                    actions += self._deliver(here, to, message, now)
                case messages.Latch() | messages.Revoke():
                    latch = isinstance(what, messages.Latch)
                    actions += self._announce(here, role, Submit.LATCH if latch else Submit.REVOKE)
                case SendNew():
                    actions += self._send_new(here, role, what, now)
                case messages.WindowUpdate():
                    actions += self._window_update(here, role)
                case messages.CloseHost():
                    actions += self._close_host(here, now)
                case messages.Wake(after):
                    timer = TimerId(_TIMERS[role], here.session.id)
                    actions.append(SetTimer(timer, after) if after else CancelTimer(timer))
                case messages.Report():
                    actions.append(self._progress(here, role, what))
                    if what.state == LeftState.CANCELLING.value and here.through:
                        actions += self._give_up_new_path(here, what.id)
                    if role is Role.LEFT and what.state in _BEGUN:
                        actions += self._begun(here, now)
        return actions

    def _progress(self, here: Here, role: Role, report: messages.Report) -> Progress:
        left = self._core.peers.numbered(report.id.left)
        return Progress(
            here.session.id,
            left.name if left is not None else f"{report.id.left:016x}",
            report.id.number,
            role.value,
            report.state,
            report.why,
        )

    def _deliver(self, here: Here, to: int, message: Message, now: float) -> list[Action]:
        if to == here.number:
            return self._carry_out(here, here.member.message(to, message), now)
        return self._post(here.session.id, to, message, here.session)

    def _post(
        self, session_id: int, to: int, message: Message, session: Session | None
    ) -> list[Action]:
        """A message to another agent."""
        core = self._core
        peer = core.peers.numbered(to)
        legs = session.legs if session is not None else ()
        own = [leg.sent.src for leg in legs] or [
            a for i in core.host.interfaces for a in i.addresses if not a.is_link_local
        ]
        for src in own:
            address = _address(core.peers, to, src.version)
            if address is not None:
                letter = Letter(session_id, host_number(core.host.name), core.next_nonce(), message)
                mac = core.interface_for(src, b"").mac
                frame = datagram(src, address, mac, encode(letter, core.group))
                return [Send(frame, Submit.ROUTE)]
        text = f"session {session_id:013x}: no way to tell {peer.name if peer else to} anything"
        return [core.tell(Level.WARNING, Count.NO_ADDRESS, text)]

    def _announce(self, here: Here, role: Role, submit: Submit) -> list[Action]:
        leg, new = here.session_leg(role), here.leg(role).entry.new
        member = here.member
        if leg is None or new is None:
            return []
        other = None
        if role is Role.LEFT and member.left is not None:
            other = member.left.request.right
        elif member.right is not None:
            other = member.right.id.left
        src = leg.sent.src
        dst = _address(self._core.peers, other, src.version)
        if dst is None:
            return []
        mac = self._core.interface_for(src, b"").mac
        return [Announce(submit, new.token, new.epoch, src, dst, mac)]

    # Frames.

    def _send_new(self, here: Here, role: Role, what: SendNew, now: float) -> list[Action]:
        leg = here.session_leg(role)
        if leg is None:
            return []
        segment, opening = what.segment, what.opening
        if opening is not None:
            try:
                return self._send_opening(here, leg, segment, opening, now)
            except SetupError as error:
                return self._carry_out(here, here.member.cancel(str(error)), now)
        if leg.spare is None:
            return []
        offered = here.offer(role) if segment.flags & SYN else None
        mac = self._core.interface_for(leg.spare.src, b"").mac
        frame = to_frame(segment, leg.spare, mac, offered=offered)
        return [Send(frame.build(), Submit.ROUTE)]

    def _send_opening(
        self, here: Here, leg: SessionLeg, segment: Segment, opening: Opening, now: float
    ) -> list[Action]:
        """The new path's SYN. Raises SetupError."""
        core = self._core
        session, left = here.session, here.member.left
        if left is None:
            return []
        src = leg.sent.src
        right = _address(core.peers, left.request.right, src.version)
        if right is None:
            raise SetupError(Count.NO_ADDRESS, f"the right anchor has no IPv{src.version} address")
        stops = (*here.through, right)
        first = leg.spare is None
        if leg.spare is None:
            pair = core.ports.allocate(src, stops[0], now)
            leg.spare = FiveTuple(src, pair.sport, stops[0], pair.dport)
            self._by_spare[leg.spare.reversed] = (here, Role.LEFT)
        mac = core.interface_for(src, b"").mac
        frame = to_frame(segment, leg.spare, mac, offered=here.offer(Role.LEFT))
        header = Header(
            group=core.group.id,
            session_id=session.id,
            policy=session.policy,
            hop=session.position + 1,
            refuse=session.on_failure is OnFailure.REFUSE,
            nonce=core.next_nonce(),
            session=session.session,
            delivered=leg.emitted,
            subsession=leg.spare,
            chain=stops[1:],
            opening=pack_opening(opening),
        ).encode()
        frame.payload = header + core.group.sign(header, frame.seq, b"")
        if frame.length > core.settings.mtu:
            raise SetupError(
                Count.HEADER_TOO_LONG, f"the new path's SYN takes {frame.length} bytes"
            )
        send = Send(frame.build(), Submit.ROUTE)
        if not first:
            return [send]
        entry = here.leg(Role.LEFT).entry
        mappings = self._spare_mappings(leg)
        return [SetLeg(leg.outbound_key, entry, self._second(leg), None, mappings, then=(send,))]

    def _window_update(self, here: Here, role: Role) -> list[Action]:
        leg, view = here.session_leg(role), here.leg(role)
        if leg is None:
            return []
        stamps = here.ends(role).timestamps
        empty = Segment(0, 0, 0, 0, tsval=view.registers.ts_sent if stamps else None)
        return [self._to_host(leg, departure.answer(view.entry, view.registers, empty))]

    def _to_host(self, leg: SessionLeg, segment: Segment) -> Send:
        """To the host, as if it came on that leg."""
        interface = self._core.interface_for(leg.sent.src, b"")
        frame = to_frame(segment, leg.emitted.reversed, bytes(6), interface.mac)
        return Send(frame.build(), Submit.PORT, interface.port)

    def _close_host(self, here: Here, now: float) -> list[Action]:
        """Reset the box's connections: exactly where its last ACK was, which conntrack believes."""
        linger = SetTimer(TimerId("linger", here.session.id), LINGER)
        actions: list[Action] = [linger]
        for role in (Role.LEFT, Role.RIGHT):
            leg = here.session_leg(role)
            if leg is None:
                continue

            def close(now: float, role: Role = role, leg: SessionLeg = leg) -> list[Action]:
                reset = Segment(here.leg(role).registers.rcv_ack, 0, RST, 0)
                return [self._to_host(leg, reset)]

            actions += self._with_registers(here, role, close, now)
        return actions

    @property
    def over(self) -> list[tuple[int, ReconfigurationId, LeftState]]:
        """Reconfigurations that began here and are over, by session."""
        return [
            (number, here.member.left.id, here.member.left.state)
            for number, here in self._here.items()
            if here.member.left is not None and here.member.left.is_over
        ]


def _came_by(session: Session, about: ReconfigurationId) -> bool:
    """True if a session is here only because of that reconfiguration."""
    try:
        return bool(session.opening) and read_opening(session.opening).id == about
    except ControlError:
        return False


def _after(entry: list[Action], rest: list[Action]) -> list[Action]:
    """What waits for an entry, and what does not: timers, reports, journal."""
    at_once = [a for a in rest if isinstance(a, SetTimer | CancelTimer | Progress | Keep)]
    later = [a for a in rest if not isinstance(a, SetTimer | CancelTimer | Progress | Keep)]
    for index, action in enumerate(entry):
        if isinstance(action, SetLeg):
            entry[index] = SetLeg(
                action.key,
                action.entry,
                action.second,
                action.token,
                action.mappings,
                action.remove,
                (*action.then, *later),
            )
            return [*entry, *at_once]
    return [*entry, *rest]


def _address(peers: Peers, number: int | None, version: int) -> Address | None:
    """A host's address of that IP version."""
    peer = peers.numbered(number) if number is not None else None
    if peer is None:
        return None
    try:
        return peers.reachable(peer, version)
    except SetupError:
        return None
