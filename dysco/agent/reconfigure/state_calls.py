"""What is asked of a host's own state of a session, and the answers.

    CallState --> StateCall --> whoever knows conntrack entries, or sockets
                                '--> StateDone, StateFailed

Of one session one thing is asked at a time: what is asked next makes an earlier answer worthless.
An export or import that fails is the move's end; to use a state, or to drop it, is tried again, and
in the end told to the operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import (
    Action,
    CancelTimer,
    Level,
    SetTimer,
    Sides,
    StateCall,
    StateDone,
    StateFailed,
    StateVerb,
)
from dysco.agent.reconfigure.here import Call, Here
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.timers import Timer

MAX_TRIES = 5
_CALL_BITS = 52
_AGAIN = frozenset({StateVerb.RESUME, StateVerb.DROP})


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a call: `why` says why it failed."""

    verb: StateVerb
    state: bytes = b""
    why: str = ""


class StateCalls:
    """Asks, and waits for the answers."""

    def __init__(self, core: Core, patience: Patience) -> None:
        self._core = core
        self._patience = patience

    def ask(self, here: Here, verb: StateVerb, was: Sides | None, state: bytes) -> list[Action]:
        """Something is to be done; `was`: the sides of the old host, if this isn't it."""
        own = sides(here)
        call = StateCall(
            self._core.random.getrandbits(_CALL_BITS),
            here.session.id,
            verb,
            own,
            was or own,
            state,
            self._patience.move,
        )
        here.call = Call(call)
        return [call, self._timer(here, self._patience.move)]

    def answer(
        self, here: Here | None, event: StateDone | StateFailed
    ) -> tuple[list[Action], Result | None]:
        """What became of it; None: nothing yet, or nothing that matters."""
        call = here.call if here is not None else None
        if here is None or call is None or call.asked.call != event.call:
            self._core.counters[Count.STATE_UNEXPECTED] += 1
            return [], None
        if isinstance(event, StateDone):
            return self._over(here), Result(call.asked.verb, event.state)
        return self._failed(here, call, event.why)

    def timer(self, here: Here) -> tuple[list[Action], Result | None]:
        """No answer in time, or time to ask again."""
        call = here.call
        if call is None:
            return [], None
        if not call.failed:
            return self._failed(here, call, f"no answer for {self._patience.move:g} s")
        call.tries += 1
        call.failed = False
        return [call.asked, self._timer(here, self._patience.move)], None

    def _failed(self, here: Here, call: Call, why: str) -> tuple[list[Action], Result | None]:
        verb, name = call.asked.verb, self._core.host.name
        why = f"{verb.value} of its state at {name}: {why}"
        if verb in _AGAIN and call.tries < MAX_TRIES and not here.is_over:
            call.failed = True
            return [self._timer(here, self._patience.longest)], None
        told: list[Action] = []
        if verb in _AGAIN:
            text = f"{here.session}: {why}"
            told.append(self._core.tell(Level.WARNING, Count.STATE_FAILED, text))
        return [*told, *self._over(here)], Result(verb, why=why)

    @staticmethod
    def _timer(here: Here, after: float) -> SetTimer:
        return SetTimer(Timer.STATE.of(here.session.id), after)

    @staticmethod
    def _over(here: Here) -> list[Action]:
        here.call = None
        return [CancelTimer(Timer.STATE.of(here.session.id))]


def sides(here: Here) -> Sides:
    """A session as its host has it."""
    return Sides(here.session.received, here.session.emitted)
