"""What a move does at its hosts, beyond messages: ways, sessions that arrive, and what they carry.

left anchor  open_way: a subsession to the new host, in the leg's other place --> MoveOut
old host     facts --> MoveIn          registers, state --> cargo --> Chunks
new host     MoveIn --> a session with its legs, constants and ports --> the next one is told
             Chunks --> registers, state
"""

from __future__ import annotations

from dysco.agent.chain import usable
from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import MAX_STATE, Action, Level, SeedLeg, SetLeg, Sides, StateVerb
from dysco.agent.model import Address, FiveTuple, OnFailure
from dysco.agent.reconfigure.control import MAX_CHUNK, Letter, host_number, pack_opening
from dysco.agent.reconfigure.facts import (
    Facts,
    LegFacts,
    pack_cargo,
    pack_facts,
    read_cargo,
    read_facts,
)
from dysco.agent.reconfigure.given_up import GivenUp
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.mail import Mail
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.messages import (
    Chunk,
    Deltas,
    Ends,
    Message,
    MoveFailed,
    MoveIn,
    MoveOut,
    Opening,
    Post,
    ReconfigurationId,
    SendFacts,
    SendState,
)
from dysco.agent.reconfigure.move_left import LeftMove
from dysco.agent.reconfigure.new_path import NewPath
from dysco.agent.reconfigure.places import Places
from dysco.agent.reconfigure.registry import Registry
from dysco.agent.reconfigure.state_calls import StateCalls, sides
from dysco.agent.reconfigure.target import Between, Target
from dysco.agent.record import RecordError, SessionRecord
from dysco.agent.session import Leg, Session, State

_LEGS = (Role.RIGHT, Role.LEFT)
"""In the order of the facts: the left leg is what a right anchor works on."""


class Moves:
    """Carries out what the parties of a move decide."""

    def __init__(
        self,
        core: Core,
        patience: Patience,
        *,
        registry: Registry,
        places: Places,
        mail: Mail,
        new_path: NewPath,
        given_up: GivenUp,
        calls: StateCalls,
    ) -> None:
        self._core = core
        self._patience = patience
        self._registry = registry
        self._places = places
        self._mail = mail
        self._new_path = new_path
        self._given_up = given_up
        self._calls = calls

    # The left anchor.

    def open_way(self, here: Here, now: float) -> list[Action]:
        """The first subsession of the new path, then `MoveOut`. Raises SetupError."""
        leg, left = here.session.right, here.member.left
        if leg is None or not isinstance(left, LeftMove):
            return []
        remove = self._new_path.make_spare(here, leg, here.through[0], now)
        if leg.spare is None:
            return []
        message = MoveOut(left.id, left.parties.new, leg.spare)
        then = tuple(self._post(here, left.parties.old, message))
        entry = here.leg(Role.LEFT).entry
        second, mappings = self._places.second(leg), self._places.mappings(leg)
        return [SetLeg(leg.outbound_key, entry, second, None, mappings, remove, then)]

    # The old host.

    def send_facts(self, here: Here, about: ReconfigurationId, what: SendFacts) -> list[Action]:
        """All of the session, to the new host."""
        legs = [
            (leg, here.leg(role).entry)
            for role in _LEGS
            if (leg := here.session_leg(role)) is not None
        ]
        facts = pack_facts(what.subsession, legs, here.fixed)
        return self._post(here, what.to, MoveIn(about, facts))

    def load(self, here: Here, state: bytes) -> int:
        """What goes to the new host, in pieces: how many. Raises SetupError."""
        if len(state) > MAX_STATE:
            why = f"its state takes {len(state)} bytes, more than {MAX_STATE}"
            raise SetupError(Count.REQUEST_REFUSED, why)
        legs = [
            (leg, here.leg(role).registers)
            for role in _LEGS
            if (leg := here.session_leg(role)) is not None
        ]
        cargo = pack_cargo(legs, state)
        here.cargo = tuple(
            cargo[start : start + MAX_CHUNK] for start in range(0, len(cargo), MAX_CHUNK)
        )
        return len(here.cargo)

    def send_state(self, here: Here, about: ReconfigurationId, what: SendState) -> list[Action]:
        """The pieces that the new host has not got."""
        actions: list[Action] = []
        for index, piece in enumerate(here.cargo):
            if not what.got >> index & 1:
                chunk = Chunk(about, index, len(here.cargo), piece)
                actions += self._post(here, what.to, chunk)
        return actions

    # The new host.

    def arrive(
        self, letter: Letter, message: MoveIn, now: float
    ) -> tuple[Here | None, list[Action]]:
        """A session comes, for the first time or again: where it is from now on."""
        core, about = self._core, message.id
        if self._given_up.knows(letter.session, about):
            return None, []
        try:
            facts = read_facts(message.facts)
        except RecordError as error:
            text = f"session {letter.session:013x}: facts of a move: {error}"
            return None, [core.tell(Level.WARNING, Count.CONTROL_MALFORMED, text)]
        known = core.table.sessions.get(letter.session)
        here = self._registry.get(letter.session)
        actions: list[Action] = []
        if known is not None and here is not None:
            target = here.member.target
            if target is not None and target.id == about:
                again = target.ready()
                return here, self._install(here, again) if again else []
            if here.member.lock.state is LockState.GONE:
                actions = core.release(known, Count.LEFT_CHAIN, now)
                known = None
        try:
            if known is not None:
                raise SetupError(Count.SESSION_LOOP, "the session is at that host already")
            here = self._take_in(letter, about, facts, now)
        except SetupError as error:
            told = core.tell(Level.WARNING, error.count, f"session {letter.session:013x}: {error}")
            why = MoveFailed(about, f"{core.host.name}: {error}")
            return None, [
                *actions,
                told,
                *self._mail.post_stranger(letter.session, about.left, why),
            ]
        assert here.member.target is not None
        return here, [*actions, *self._install(here, here.member.target.ready())]

    def _take_in(self, letter: Letter, about: ReconfigurationId, facts: Facts, now: float) -> Here:
        """A session as the old host had it. Raises SetupError."""
        core = self._core
        if not core.owns(facts.subsession.dst):
            raise SetupError(Count.WRONG_HOST, f"{facts.subsession.dst} is another host")
        core.check_room()
        record = facts.legs[0].record.session
        assert record is not None
        left, right = facts.legs[0], facts.legs[1] if len(facts.legs) == 2 else None
        peer = core.peers.at(right.next) if right is not None else None
        if right is not None and peer is None:
            raise SetupError(Count.UNKNOWN_PEER, f"{right.next} is no host of the trust group")
        # An end has its own address.
        ends = left.emitted if right else left.emitted._replace(src=facts.subsession.dst)
        for emitted in (ends, *((right.emitted,) if right is not None else ())):
            other = core.table.by_emitted.get(emitted)
            if other is not None:
                raise SetupError(Count.SESSION_LOOP, f"{other.session} has {emitted} there")
        session = self._session(letter.session, about, facts, record)
        session.left = _leg(session, core.host.id, ends, facts.subsession.reversed, left)
        if right is not None:
            away = self._subsession(facts, right.next, now)
            session.right = _leg(session, core.host.id, right.emitted, away, right)
        core.table.add(session)
        core.counters[Count.RECEIVED] += 1
        here = self._registry.of(session)
        here.fixed = facts.fixed
        for role, leg_facts in zip(_LEGS, facts.legs, strict=False):
            here.entries[role] = leg_facts.entry
        was = Sides(left.emitted.reversed, right.emitted if right is not None else None)
        number = host_number(peer.name) if peer is not None else None
        between = Between(letter.sender, was, number, session.next)
        here.member.target = Target(about, between, self._patience)
        return here

    def _session(
        self, number: int, about: ReconfigurationId, facts: Facts, record: SessionRecord
    ) -> Session:
        names = tuple(map(self._core.peers.name_of, record.rest))
        ends = facts.legs[0].emitted.reversed
        opening = Opening(about, Ends(0, 0, timestamps=False, sack=False), Deltas(), None)
        return Session(
            id=number,
            session=record.session or ends,
            policy=record.policy,
            on_failure=OnFailure(record.on_failure),
            position=record.position,
            rest=record.rest,
            created=record.created,
            state=State.ESTABLISHED,
            chain=names,
            opening=pack_opening(opening),
        )

    def _subsession(self, facts: Facts, to: Address, now: float) -> FiveTuple:
        """From here to the right anchor. Raises SetupError."""
        core = self._core
        src: Address | None = facts.subsession.dst
        if facts.subsession.dst.version != to.version:
            own = [a for i in core.host.interfaces for a in i.addresses]
            src = usable(own, to.version)
        if src is None:
            raise SetupError(Count.NO_ADDRESS, f"it has no IPv{to.version} address")
        pair = core.ports.allocate(src, to, now)
        return FiveTuple(src, pair.sport, to, pair.dport)

    def _install(self, here: Here, ready: list[Post]) -> list[Action]:
        """Mappings, then constants, then whoever is next."""
        session = here.session
        then: tuple[Action, ...] = tuple(
            action for post in ready for action in self._post(here, post.to, post.message)
        )
        for role in reversed(_LEGS):
            leg = here.session_leg(role)
            if leg is not None:
                then = (SetLeg(leg.outbound_key, here.leg(role).entry, then=then),)
        return [self._core.install_all(session, *then)]

    def unload(self, here: Here, whole: bytes) -> list[Action]:
        """All pieces have come: registers, and the call for the state. Raises RecordError."""
        target = here.member.target
        assert target is not None
        cargo = read_cargo(whole)
        roles = [role for role in _LEGS if here.session_leg(role) is not None]
        if len(roles) != len(cargo.legs):
            raise RecordError(f"{len(cargo.legs)} legs instead of {len(roles)}")
        actions: list[Action] = []
        for role, carried in zip(roles, cargo.legs, strict=True):
            leg = here.session_leg(role)
            assert leg is not None
            leg.fin_sent, leg.fin_received = carried.fin_sent, carried.fin_received
            leg.reset = carried.reset
            here.registers[role] = carried.registers
            actions.append(SeedLeg(leg.outbound_key, carried.registers))
        return [*actions, *self._calls.ask(here, StateVerb.IMPORT, target.between.was, cargo.state)]

    def call(self, here: Here, verb: StateVerb) -> list[Action]:
        """Ask for something that needs no state to be sent along."""
        target = here.member.target
        return self._calls.ask(
            here, verb, target.between.was if target is not None else sides(here), b""
        )

    def _post(self, here: Here, to: int, message: Message) -> list[Action]:
        return self._mail.post(here, to, message)


def _leg(session: Session, host: int, emitted: FiveTuple, sent: FiveTuple, facts: LegFacts) -> Leg:
    record = facts.record.leg
    assert record is not None
    return Leg(
        session,
        host,
        emitted,
        sent,
        record.isn,
        facts.record.is_right,
        record.offered,
        record.accepted,
        answer_isn=record.answer_isn,
    )
