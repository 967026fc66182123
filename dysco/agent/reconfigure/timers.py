"""The timers of a session's reconfigurations, by kind; each session has at most one of each."""

from __future__ import annotations

from enum import StrEnum

from dysco.agent.events import TimerId
from dysco.agent.reconfigure.member import Role


class Timer(StrEnum):
    """What a timer is for, as `TimerId.kind`."""

    LEFT = "left"
    """The left anchor repeats what it said, or gives up."""
    RIGHT = "right"
    """The right anchor likewise."""
    BEGIN = "begin"
    """The registers that a reconfiguration begins with have not come."""
    LEASE = "lease"
    """Nothing was heard of a reconfiguration that holds a lock here."""
    LINGER = "linger"
    """Nothing of the old path is under way any more."""
    ABANDON = "abandon"
    """Hosts of a new path that was given up have not said that they know."""

    MOVE = "move"
    """The old or the new host of a move says again what it said, or gives up."""
    STATE = "state"
    """What was asked of the host's own state has not been answered."""
    HOLD = "hold"
    """Segments have been held for as long as may be, or the end of that is not confirmed."""

    def of(self, session: int) -> TimerId:
        """This timer of a session."""
        return TimerId(self.value, session)


BY_ROLE = {Role.LEFT: Timer.LEFT, Role.RIGHT: Timer.RIGHT}
"""Which timer an anchor wakes by."""
ROLES = {timer: role for role, timer in BY_ROLE.items()}
