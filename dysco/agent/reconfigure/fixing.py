"""Middleboxes that change the stream, and what they say of it.

    a relay             adds what its two handshakes say: the one sequence number, and the other
    one that adds bytes and those too: it alone knows how many, and when it is over

Until it has said so, such a middlebox stays: whoever asks for a lock past it is refused.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, FixDeltas, Level
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.messages import Deltas
from dysco.agent.requests import find_session, refuse, words


class Fixing:
    """Takes the word of this host for what it adds to a session."""

    def __init__(self, core: Core, means: Means) -> None:
        self._core = core
        self._registry = means.registry

    def fix(self, event: FixDeltas) -> list[Action]:
        """What it added in all, and adds no more."""
        core = self._core
        session = find_session(core, event.selector)
        if session is None or session.left is None:
            return [refuse(core, f"no session came here for {words(event.selector)}")]
        if not core.host.is_middlebox:
            return [refuse(core, f"{session}: {core.host.name!r} is an end of it, no middlebox")]
        here = self._registry.of(session)
        fixed = Deltas(event.rightwards, event.leftwards)
        if here.fixed not in (None, fixed):
            return [refuse(core, f"{session}: other deltas were fixed before")]
        here.fixed = fixed
        text = f"{session}: {event.rightwards:+} bytes rightwards, {event.leftwards:+} leftwards"
        return [*here.keep(), core.tell(Level.INFO, Count.DELTAS_FIXED, text)]
