"""A host's SYN: the first of a session, one that a middlebox sends on, or one again.

tag known, or the right leg's five-tuple, or awaited? --> that session goes on
policy?                                               --> a session starts
neither                                               --> bridged as it came
"""

from __future__ import annotations

from dysco.agent.chain import source_address
from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import Action, Level, PacketIn, Send, Submit, Tell
from dysco.agent.header import Header, header_size
from dysco.agent.model import Address, FiveTuple, OnFailure
from dysco.agent.options import negotiated, take_tag
from dysco.agent.packet import Segment, refusal
from dysco.agent.session import SETTING_UP, Leg, Session, State, Step
from dysco.agent.trust import TAG_SIZE


class Outgoing:
    """What becomes of the SYNs that the host sends."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def syn(self, packet: PacketIn, segment: Segment, now: float) -> list[Action]:
        """A SYN as the host sent it."""
        core = self._core
        segment.options, tag = take_tag(segment.options)
        leg = core.table.by_emitted.get(segment.tuple)
        session = self._session_of(segment, tag, leg)
        if session is not None:
            return self._go_on(session, segment, packet.port, now)
        if tag is not None and core.host.is_middlebox:
            text = f"SYN {segment.tuple} bears the tag {tag:08x} of a session that is over"
            return [core.tell(Level.INFO, Count.TAG_UNKNOWN, text)]
        if core.is_let_through(segment.tuple, segment.seq, now):
            core.counters[Count.BYPASSED] += 1
            return [Send(packet.frame, Submit.BRIDGE, packet.port)]
        policy = packet.policy
        actions: list[Action] = []
        if leg is not None:
            if not leg.is_right:
                text = f"{leg.session}: the host sends a SYN of its own in it"
                return [core.tell(Level.INFO, Count.SYN_AGAINST_SESSION, text)]
            # A new connection on an old one's five-tuple: the data plane, which knows that one
            # still, may not have asked its policies.
            policy = policy or leg.session.policy
            actions = core.release(leg.session, Count.REPLACED, now)
        if policy == 0 and leg is None and not core.host.is_middlebox:
            # It hit a mapping that is gone by now, so no policy was asked: its next try will be.
            core.counters[Count.UNEXPECTED] += 1
            return []
        if policy == 0:
            core.counters[Count.BRIDGED] += 1
            actions.append(Send(packet.frame, Submit.BRIDGE, packet.port))
            return actions
        return actions + self._start(policy, segment, packet.port, now)

    def _session_of(self, segment: Segment, tag: int | None, leg: Leg | None) -> Session | None:
        """The session that a SYN belongs to; None for a new one."""
        core = self._core
        if core.host.is_middlebox:
            session = core.table.by_tag.get(tag) if tag is not None else None
            session = session or core.table.awaited.get(segment.tuple)
            if session is not None:
                return session
        if leg is None or not leg.is_right:
            return None
        started_here = leg.session.left is None
        return None if started_here and leg.isn != segment.seq else leg.session

    def _start(self, policy_id: int, segment: Segment, port: int, now: float) -> list[Action]:
        """The first SYN of a session that has a policy."""
        core = self._core
        policy = core.policies.get(policy_id)
        if policy is None:
            # The data plane was told earlier than we were: the SYN's next try will find both.
            text = f"SYN {segment.tuple} matches policy {policy_id}, which is unknown"
            return [core.tell(Level.WARNING, Count.UNKNOWN_POLICY, text)]
        session = Session(
            id=core.new_session_id(),
            session=segment.tuple,
            policy=policy_id,
            on_failure=policy.on_failure,
            position=0,
            rest=(),
            created=now,
            state=State.SENT,
        )
        try:
            core.check_room()
            self._check_destination(segment.tuple.dst)
            session.rest = core.peers.resolve(policy.chain, segment.tuple, core.host.name)
            session.chain = tuple(map(core.peers.name_of, session.rest))
            actions = self._extend(session, segment, port, now)
        except SetupError as error:
            return self.fail(session, segment, port, error, now)
        core.counters[Count.STARTED] += 1
        core.table.add(session)
        actions.append(core.timer(session, core.settings.setup_timeout))
        return actions

    def _go_on(self, session: Session, segment: Segment, port: int, now: float) -> list[Action]:
        """A SYN of a session that is known: sent on for the first time, or again."""
        core = self._core
        right = session.right
        again = right is not None and right.emitted == segment.tuple and right.isn == segment.seq
        if again and right is not None and now - right.syn_at < core.settings.syn_spacing:
            core.counters[Count.TOO_SOON] += 1
            return []
        if session.opening and right is None and session.left is not None and session.left.answered:
            # What it acknowledges on the new path would say nothing of the old one's bytes.
            text = f"{session}: {core.host.name!r} ends connections itself: for new sessions only"
            told = core.tell(Level.WARNING, Count.NEW_PATH_ENDED, text)
            return [told, Send(refusal(segment).build(), Submit.PORT, port)]
        core.counters[Count.RETRANSMITTED if again else Count.SENT_ON] += 1
        try:
            actions = self._extend(session, segment, port, now)
        except SetupError as error:
            dropped = core.drop_right(session, now) if session.state in SETTING_UP else []
            return dropped + self.fail(session, segment, port, error, now)
        if core.step(session, Step.SEND_ON):
            actions.append(core.timer(session, core.settings.setup_timeout))
        return actions

    def _extend(self, session: Session, segment: Segment, port: int, now: float) -> list[Action]:
        """The right leg, made or found, and the SYN with a header on its way.

        Changes nothing if it raises SetupError.
        """
        core = self._core
        emitted = segment.tuple
        right = session.right
        actions: list[Action] = []
        installed = session.state not in SETTING_UP
        # A known SYN keeps its subsession, whatever became of policies and peers since.
        rest = session.rest[1:]
        if right is None or right.emitted != emitted:
            target = self._next_hop(session, emitted)
            source = source_address(core.interface_at(port, segment.src_mac), emitted)
            self._check_length(session, segment, rest)
            pair = core.ports.allocate(source, target, now)
            actions += core.drop_right(session, now)
            sent = FiveTuple(source, pair.sport, target, pair.dport)
            right = Leg(
                session,
                core.host.id,
                emitted,
                sent,
                segment.seq,
                is_right=True,
                offered=negotiated(segment.options, segment.flags),
            )
            actions += core.clear_conflicts(right, now)
            session.right = right
            core.table.add_leg(right)
            installed = False
        elif right.isn != segment.seq:
            right.start(segment.seq, negotiated(segment.options, segment.flags))
        right.syn_at = now
        frame, told = self._with_header(session, right, segment, rest)
        actions += told
        send = Send(frame, Submit.ROUTE)
        if installed:
            return [*actions, send]
        # Written again even if known: the first time may still be under way.
        session.syn, session.syn_port = segment, port
        return [*actions, core.install(right, send)]

    def _next_hop(self, session: Session, emitted: FiveTuple) -> Address:
        """The next host of the session; raises SetupError."""
        core = self._core
        if session.rest:
            target = core.peers.in_family(session.rest[0], emitted.src.version)
        else:
            self._check_destination(emitted.dst)
            target = emitted.dst
        if core.owns(target):
            count = Count.SESSION_LOOP if session.left is not None else Count.POLICY_LOOP
            raise SetupError(count, f"the next host, {target}, is this one")
        if session.position >= core.settings.max_hops:
            raise SetupError(Count.SESSION_LOOP, f"crossed {session.position} hosts")
        return target

    def _check_destination(self, destination: Address) -> None:
        if self._core.peers.at(destination) is None:
            raise SetupError(Count.OUTSIDE_GROUP, f"{destination} is no host of the trust group")

    def _header(self, session: Session, leg: Leg, rest: tuple[Address, ...]) -> Header:
        core = self._core
        return Header(
            group=core.group.id,
            session_id=session.id,
            policy=session.policy,
            hop=session.position + 1,
            refuse=session.on_failure is OnFailure.REFUSE,
            nonce=core.next_nonce(),
            session=session.session,
            delivered=leg.emitted,
            subsession=leg.sent,
            chain=rest,
            opening=session.opening,
        )

    def _with_header(
        self, session: Session, leg: Leg, segment: Segment, rest: tuple[Address, ...]
    ) -> tuple[bytes, list[Tell]]:
        """The SYN as it travels to the next host."""
        core = self._core
        header = self._header(session, leg, rest).encode()
        packet = segment.copy()
        told = []
        if packet.length + len(header) + TAG_SIZE > core.settings.mtu and packet.payload:
            text = f"{session}: {len(packet.payload)} bytes of Fast Open data left to TCP"
            told.append(core.tell(Level.DEBUG, Count.OPEN_DATA_DROPPED, text))
            packet.payload = b""
        packet.tuple = leg.sent
        tag = core.group.sign(header, packet.seq, packet.payload)
        packet.payload = b"".join((header, tag, packet.payload))
        return packet.build(), told

    def _check_length(self, session: Session, segment: Segment, rest: tuple[Address, ...]) -> None:
        """Raises SetupError if SYN and header don't fit one packet, even without the SYN's data."""
        core = self._core
        size = header_size(session.session, segment.tuple, rest, session.opening)
        needed = segment.length - len(segment.payload) + size
        if needed > core.settings.mtu or len(rest) > 255:
            raise SetupError(
                Count.HEADER_TOO_LONG,
                f"a SYN with {len(rest)} more hosts takes {needed} bytes of {core.settings.mtu}",
            )

    def fail(
        self, session: Session, segment: Segment, port: int, error: SetupError, now: float
    ) -> list[Action]:
        """What becomes of a SYN that can't have its chain; its session has no right leg any more.

        In the middle of a chain a session can go on directly only if its answers come back
        through this host: where it bears the host's own address. Else it is refused here too.
        """
        core = self._core
        actions: list[Action] = [core.tell(Level.WARNING, error.count, f"{session}: {error}")]
        in_middle = session.left is not None
        if session.on_failure is OnFailure.REFUSE or (
            in_middle and not core.owns(segment.tuple.src)
        ):
            core.counters[Count.REFUSED] += 1
            actions.append(Send(refusal(segment).build(), Submit.PORT, port))
            return actions
        core.counters[Count.DIRECT] += 1
        if in_middle:
            if core.step(session, Step.SEND_ON):
                actions.append(core.timer(session, core.settings.setup_timeout))
        else:
            core.let_through(segment.tuple, segment.seq, now)
        actions.append(Send(segment.build(), Submit.BRIDGE, port))
        return actions
