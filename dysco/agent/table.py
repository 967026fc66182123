"""All sessions of one host, and every way to find one."""

from __future__ import annotations

from dysco.agent.model import FiveTuple, MappingKey, Side
from dysco.agent.session import SETTING_UP, Leg, Session


class SessionTable:
    """Sessions by id, by tag, by the five-tuples that packets bear."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.by_emitted: dict[FiveTuple, Leg] = {}
        """By what the host sends; reversed, by what it gets."""
        self.by_arriving: dict[FiveTuple, Leg] = {}
        """By what comes from the network."""
        self.by_tag: dict[int, Session] = {}
        self.awaited: dict[FiveTuple, Session] = {}
        """By what a middlebox is to send on: as it got it, or as it said it would."""
        self._setting_up: set[int] = set()

    @property
    def setting_up(self) -> int:
        """How many sessions are being set up."""
        return len(self._setting_up)

    def add(self, session: Session) -> None:
        """Make a session known, with its tag, and its legs if it has any."""
        self.sessions[session.id] = session
        if session.tag is not None:
            self.by_tag[session.tag] = session
        for leg in session.legs:
            self.add_leg(leg)
        self.note_state(session)

    def add_leg(self, leg: Leg) -> None:
        """Make a leg known; its five-tuples must be free."""
        self.by_emitted[leg.emitted] = leg
        self.by_arriving[leg.sent.reversed] = leg

    def remove_leg(self, leg: Leg) -> None:
        """Forget a leg."""
        if self.by_emitted.get(leg.emitted) is leg:
            del self.by_emitted[leg.emitted]
        arriving = leg.sent.reversed
        if self.by_arriving.get(arriving) is leg:
            del self.by_arriving[arriving]

    def remove(self, session: Session) -> None:
        """Forget a session with all that finds it."""
        self.sessions.pop(session.id, None)
        self._setting_up.discard(session.id)
        if session.tag is not None:
            self.by_tag.pop(session.tag, None)
        for awaited in (session.received, session.upstream):
            if awaited is not None:
                self.stop_awaiting(awaited, session)
        for leg in session.legs:
            self.remove_leg(leg)

    def await_emission(self, emitted: FiveTuple, session: Session) -> None:
        """A SYN with that five-tuple from the host will be this session's."""
        self.awaited[emitted] = session

    def stop_awaiting(self, emitted: FiveTuple, session: Session) -> None:
        """It won't any more, if it was this session's."""
        if self.awaited.get(emitted) is session:
            del self.awaited[emitted]

    def note_state(self, session: Session) -> None:
        """The session's state changed."""
        if session.state in SETTING_UP:
            self._setting_up.add(session.id)
        else:
            self._setting_up.discard(session.id)

    def leg_of(self, key: MappingKey) -> Leg | None:
        """The leg that a mapping belongs to."""
        index = self.by_emitted if key.side is Side.OUTBOUND else self.by_arriving
        return index.get(key.tuple)
