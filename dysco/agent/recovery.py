"""After a restart: sessions from what the device holds.

Mappings whose metadata another version wrote stay as they are: their sessions go on, their ports
are kept from use, and their idle time-out ends them. What a set-up left behind that the restart
cut short is taken out: its SYN was never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, Level, Remove
from dysco.agent.model import FiveTuple, Mapping, MappingKey, Side
from dysco.agent.options import Negotiated
from dysco.agent.ports import PortPair
from dysco.agent.record import LegRecord, Record, RecordError, SessionRecord, read_record
from dysco.agent.session import Leg, Session, State


@dataclass(slots=True)
class _Found:
    """The mappings of one session: those of the left leg, those of the right."""

    outbound: dict[bool, tuple[Mapping, Record]] = field(default_factory=dict)
    inbound: dict[bool, Mapping] = field(default_factory=dict)

    def add(self, mapping: Mapping, record: Record) -> None:
        """Sort in one more."""
        if mapping.key.side is Side.OUTBOUND:
            self.outbound[record.is_right] = (mapping, record)
        else:
            self.inbound[record.is_right] = mapping

    @property
    def keys(self) -> tuple[MappingKey, ...]:
        """Of all."""
        outbound = tuple(mapping.key for mapping, _ in self.outbound.values())
        return outbound + tuple(mapping.key for mapping in self.inbound.values())

    @property
    def session(self) -> SessionRecord | None:
        """The session's record, if its mapping is there."""
        for _, record in self.outbound.values():
            if record.session is not None:
                return record.session
        return None


def recover(core: Core, mappings: Sequence[Mapping], now: float) -> list[Action]:
    """Take up the sessions that these mappings tell of; those not among them are over."""
    found: dict[int, _Found] = {}
    unknown: list[tuple[Mapping, RecordError]] = []
    for mapping in mappings:
        try:
            record = read_record(mapping.metadata)
        except RecordError as error:
            unknown.append((mapping, error))
            continue
        found.setdefault(record.session_id, _Found()).add(mapping, record)
    actions: list[Action] = []
    for session in [s for s in core.table.sessions.values() if s.id not in found]:
        actions += core.release(session, Count.LOST, now)
    for session_id, pieces in found.items():
        if session_id not in core.table.sessions:
            actions += _take_up(core, session_id, pieces, now)
    return actions + _leave_alone(core, unknown)


def _take_up(core: Core, session_id: int, found: _Found, now: float) -> list[Action]:
    record = found.session
    if record is None:
        core.counters[Count.ORPHANED] += len(found.keys)
        return [Remove(found.keys)]
    primary = min(found.outbound)
    ends = found.outbound[primary][0].key.tuple
    session = Session(
        id=session_id,
        session=record.session or (ends if primary else ends.reversed),
        policy=record.policy,
        on_failure=record.on_failure,
        position=record.position,
        rest=record.rest,
        created=min(record.created, now),
        state=State.RECEIVED,
        chain=tuple(map(core.peers.name_of, record.rest)),
        tag=record.tag,
        sender=record.sender,
        nonce=record.nonce,
        relays=record.relays,
        opening=record.opening,
        recovered=True,
    )
    actions: list[Action] = []
    for is_right in sorted(found.outbound):
        leg = _leg(session, *found.outbound[is_right])
        if is_right:
            session.right = leg
            _reserve(core, leg.sent)
        else:
            session.left = leg
        if record.hidden is not None and leg is session.primary:
            session.hidden[leg.sent] = record.hidden
    stray = [mapping.key for side, mapping in found.inbound.items() if side not in found.outbound]
    if stray:
        core.counters[Count.ORPHANED] += len(stray)
        actions.append(Remove(tuple(stray)))
    settings = core.settings
    if any(leg.accepted is not None for leg in session.legs):
        session.state = State.ESTABLISHED
    elif session.right is not None:
        session.state = State.SENT
        actions.append(core.timer(session, settings.setup_timeout))
    else:
        actions.append(core.timer(session, settings.pending_timeout))
    core.table.add(session)
    if session.tag is not None and session.received is not None:
        core.table.await_emission(session.received, session)
    if session.sender is not None and session.nonce is not None:
        core.guard.learn(session.sender, session.nonce)
    core.counters[Count.RECOVERED] += 1
    # A batch that the restart cut short.
    actions += [core.install(leg) for leg in session.legs if leg.is_right not in found.inbound]
    return actions


def _leg(session: Session, mapping: Mapping, record: Record) -> Leg:
    """A leg from its outbound mapping; `found.session` made sure that there is a record."""
    leg = record.leg or LegRecord(0, Negotiated(None, None, False, False), None)
    return Leg(
        session,
        mapping.key.host,
        mapping.key.tuple,
        mapping.mapped,
        leg.isn,
        record.is_right,
        leg.offered,
        leg.accepted,
        answer_isn=leg.answer_isn,
    )


def _leave_alone(core: Core, unknown: Sequence[tuple[Mapping, RecordError]]) -> list[Action]:
    for mapping, _ in unknown:
        core.foreign[mapping.key] = mapping.mapped
        if mapping.key.side is Side.OUTBOUND:
            _reserve(core, mapping.mapped)
    if not unknown:
        return []
    first, error = unknown[0]
    text = (
        f"{len(unknown)} mappings are not this version's and stay until they idle out; "
        f"the first is {first.key.tuple} -> {first.mapped}: {error}"
    )
    core.counters[Count.METADATA_UNKNOWN] += len(unknown) - 1
    return [core.tell(Level.WARNING, Count.METADATA_UNKNOWN, text)]


def _reserve(core: Core, sent: FiveTuple) -> None:
    core.ports.reserve(sent.src, sent.dst, PortPair(sent.sport, sent.dport))
