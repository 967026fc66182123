"""The sessions that were ever reconfigured at this host, by their number."""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import Patience
from dysco.agent.session import Leg, Session


class Registry:
    """Finds what a reconfiguration knows of a session, or makes it."""

    def __init__(self, core: Core, patience: Patience) -> None:
        self._core = core
        self._patience = patience
        self.sessions: dict[int, Here] = {}

    def get(self, number: int) -> Here | None:
        """None: no reconfiguration ever had to do with that session here."""
        return self.sessions.get(number)

    def of(self, session: Session) -> Here:
        """That of a session that lives here, from now on."""
        here = self.sessions.get(session.id)
        if here is None or here.session is not session:
            here = self.sessions[session.id] = Here(self._core, session, self._patience)
        return here

    def at(self, leg: Leg | None) -> Here | None:
        """That of a leg's session."""
        return self.sessions.get(leg.session.id) if leg is not None else None

    def forget(self, here: Here) -> bool:
        """It is over; False if it was forgotten before."""
        return self.sessions.pop(here.session.id, None) is not None
