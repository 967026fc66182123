"""A session's life after its SYN: what copies of packets tell, and how it ends.

SYN-ACK --> established       FINs both ways on every leg --> closing --linger--> released
RST on every leg --> reset --linger--> released           no packet for long --> released
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import (
    Action,
    Answered,
    CancelTimer,
    Idle,
    Level,
    Reason,
    Remove,
    Send,
    Submit,
    TimerId,
)
from dysco.agent.incoming import Incoming
from dysco.agent.model import MappingKey, Side
from dysco.agent.options import negotiated
from dysco.agent.outgoing import Outgoing
from dysco.agent.packet import ACK, FIN, RST, SYN, Segment, abort
from dysco.agent.ports import PortPair
from dysco.agent.session import SETTING_UP, Leg, Session, State, Step

_MAX_OPEN_DATA = 65535


class Steady:
    """What becomes of sessions that are set up, or fail to be."""

    def __init__(self, core: Core, outgoing: Outgoing, incoming: Incoming) -> None:
        self._core = core
        self._outgoing = outgoing
        self._incoming = incoming

    def copy(self, reason: Reason, segment: Segment) -> list[Action]:
        """A SYN-ACK, FIN or RST that passed."""
        core = self._core
        sent = reason is Reason.SENT
        leg = core.table.by_emitted.get(segment.tuple if sent else segment.tuple.reversed)
        if leg is None:
            core.counters[Count.COPY_UNKNOWN] += 1
            return []
        flags = segment.flags
        # Answers run against the SYN: towards the left.
        is_answer = sent is not leg.is_right
        if flags & SYN or (flags & RST and flags & ACK and self._unanswered(leg) and is_answer):
            acknowledged = (segment.ack - leg.isn - 1) & 0xFFFFFFFF
            if not is_answer or not flags & ACK or acknowledged > _MAX_OPEN_DATA:
                core.counters[Count.STALE_ANSWER] += 1
                return []
        actions = self._answered(leg, segment) if flags & (SYN | RST) == SYN else []
        if flags & RST:
            leg.reset = True
        elif flags & FIN:
            if sent:
                leg.fin_sent = True
            else:
                leg.fin_received = True
        return actions + self._core.close_if_over(leg.session)

    @staticmethod
    def _unanswered(leg: Leg) -> bool:
        return not leg.answered and leg.session.state in SETTING_UP

    def _answered(self, leg: Leg, segment: Segment) -> list[Action]:
        core = self._core
        session = leg.session
        actions: list[Action] = []
        session.syn = None
        core.installed(session)
        if core.step(session, Step.ANSWER):
            core.counters[Count.ESTABLISHED] += 1
            actions.append(CancelTimer(TimerId("session", session.id)))
        if leg.accepted is None:
            leg.accepted = negotiated(segment.options, segment.flags)
            leg.answer_isn = segment.seq
            if leg is session.left and core.host.is_middlebox:
                session.relays = session.right is None or session.right.accepted is None
            actions.append(core.update(leg))
        return actions

    def answered(self, event: Answered) -> list[Action]:
        """The device's counters tell of an answer whose copy never came."""
        core = self._core
        session = core.table.sessions.get(event.session)
        if session is None or session.state not in SETTING_UP:
            return []
        for leg in session.legs:
            leg.seen = leg.seen or set(leg.keys) <= set(event.keys)
        if not any(leg.answered for leg in session.legs):
            return []
        session.syn = None
        core.installed(session)
        core.step(session, Step.ANSWER)
        core.counters[Count.ESTABLISHED] += 1
        text = f"{session}: its SYN-ACK passed unseen; it goes on"
        cancelled = CancelTimer(TimerId("session", session.id))
        return [cancelled, core.tell(Level.INFO, Count.ANSWER_MISSED, text)]

    def timer(self, timer: TimerId, now: float) -> list[Action]:
        """A session's time is up; its state says what that means."""
        core = self._core
        session = core.table.sessions.get(timer.subject)
        if session is None:
            return []
        match session.state:
            case State.CLOSING:
                return core.release(session, Count.CLOSED, now)
            case State.RESET:
                return core.release(session, Count.RESET, now)
            case State.RECEIVED:
                why = f"{session}: the host neither answered the SYN nor sent it on"
                told = core.tell(Level.INFO, Count.PENDING_TIMEOUT, why)
                return [told, *core.release(session, Count.UNFINISHED, now)]
            case State.SENT:
                return self._no_answer(session, now)
        return []

    def _no_answer(self, session: Session, now: float) -> list[Action]:
        """The end of a set-up that went into the void. Only the initiator's agent falls back."""
        core = self._core
        syn, port = session.syn, session.syn_port
        hop = session.next.dst if session.next is not None else "the destination"
        error = SetupError(
            Count.SETUP_TIMEOUT,
            f"no SYN-ACK within {core.settings.setup_timeout:g} s; is {hop} up?",
        )
        actions = core.release(session, Count.UNFINISHED, now)
        actions += self._take_back(session)
        if session.left is not None or syn is None:
            return [*actions, core.tell(Level.INFO, error.count, f"{session}: {error}")]
        return actions + self._outgoing.fail(session, syn, port, error, now)

    def _take_back(self, session: Session) -> list[Action]:
        """A RST after a SYN whose answer we won't wait for: who got it shan't stay half open."""
        right = session.right
        if right is None:
            return []
        mac = self._core.interface_for(right.sent.src, b"").mac
        return [Send(abort(right.sent, right.isn, mac).build(), Submit.ROUTE)]

    def install_failed(self, token: int, why: str, now: float) -> list[Action]:
        """The device refused a leg's mappings: the set-up fails."""
        core = self._core
        found = core.installing(token)
        if found is None:
            return []
        session, leg = found
        error = SetupError(Count.INSTALL_FAILED, f"the device refused its mappings: {why}")
        syn, port = session.syn, session.syn_port
        if leg is not session.right or session.left is None:
            actions = core.release(session, Count.UNFINISHED, now)
        else:
            actions = core.drop_right(session, now)
        if syn is None:
            return [*actions, core.tell(Level.WARNING, error.count, f"{session}: {error}")]
        if leg.is_right:
            return actions + self._outgoing.fail(session, syn, port, error, now)
        actions.append(core.tell(Level.WARNING, error.count, f"{session}: {error}"))
        return actions + self._incoming.refuse(syn)

    def idle(self, event: Idle, now: float) -> list[Action]:
        """No packet for a mapping's idle time-out."""
        core = self._core
        leg = core.table.leg_of(event.key)
        if leg is None:
            return self._idle_unknown(event.key, now)
        return core.release(leg.session, Count.IDLE, now)

    def _idle_unknown(self, key: MappingKey, now: float) -> list[Action]:
        """A mapping that no session of ours has: one of another version, or left over."""
        core = self._core
        ends = core.foreign.pop(key, None)
        if key.side is Side.OUTBOUND and ends is not None:
            core.ports.release(ends.src, ends.dst, PortPair(ends.sport, ends.dport), now)
        return [Remove((key,))]
