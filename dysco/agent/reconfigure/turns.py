"""Which reconfigurations may begin: each must switch within its time, so only some at once.

    wish --> waits --> its turn: registers are read --> go --> begun: it switched, failed or ended
               ^                                                 |
               '---------------- the oldest that waits ----------'

One wish for each session; the oldest has the next turn. `Here.wish` is in the journal until it has
begun or was refused.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, Level, Progress, QueryLeg, SetTimer
from dysco.agent.reconfigure.here import Here, Todo
from dysco.agent.reconfigure.left import LeftState, Patience
from dysco.agent.reconfigure.legs import Legs
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.pace import Pace
from dysco.agent.reconfigure.registry import Registry
from dysco.agent.reconfigure.timers import Timer

WAITING = "waiting"
"""As `Progress.state`: nothing was begun yet. Its number is 0."""
MAX_QUERIES = 10
"""How often the registers are asked for before a reconfiguration is refused."""

_IN_TIME = frozenset(
    {LeftState.LOCKING, LeftState.CONNECTING, LeftState.SWITCHING, LeftState.CANCELLING}
)
"""What must end within its time, and so counts."""


class Turns:
    """The turns of the reconfigurations that this host is the left anchor of."""

    def __init__(
        self, core: Core, registry: Registry, legs: Legs, patience: Patience, pace: Pace
    ) -> None:
        self._core = core
        self._registry = registry
        self._legs = legs
        self._patience = patience
        self._pace = pace
        self._wishes: dict[int, Todo] = {}
        """Reconfigurations that wait until others have begun, by session; the oldest first."""
        self._beginning: set[int] = set()
        """Sessions whose reconfiguration has not switched yet."""

    def is_taken(self, here: Here) -> bool:
        """True if a reconfiguration of that session waits for its turn, or has it."""
        return here.session.id in self._wishes or self.is_beginning(here)

    def is_beginning(self, here: Here) -> bool:
        """True if a reconfiguration of that session has its turn."""
        return here.session.id in self._beginning

    def wish(self, here: Here, go: Todo, now: float) -> list[Action]:
        """Do it when it may begin and the registers are known."""
        number = here.session.id
        self._wishes[number] = go
        actions = self._admit(now)
        if number in self._wishes:
            actions.append(self._step(here, WAITING, ""))
        return actions

    def resume(self, here: Here) -> None:
        """After a restart: this one had its turn already."""
        left = here.member.left
        if left is not None and left.state in _IN_TIME:
            self._beginning.add(here.session.id)

    def _admit(self, now: float) -> list[Action]:
        """Begin what waits, as far as not too much is beginning: each must end within its time."""
        actions: list[Action] = []
        while self._wishes and len(self._beginning) < self._patience.at_once:
            number, go = next(iter(self._wishes.items()))
            del self._wishes[number]
            here = self._registry.get(number)
            if here is None or here.is_over:
                continue
            self._beginning.add(number)
            here.tries = 0
            actions.append(
                SetTimer(Timer.BEGIN.of(number), self._pace.patient(self._patience.longest))
            )
            actions += self._legs.with_registers(here, Role.LEFT, go, now)
        return actions

    def begun(self, here: Here, now: float) -> list[Action]:
        """One is over, or has nothing left that must end in time: others may begin."""
        if not self.is_beginning(here):
            return []
        self._beginning.discard(here.session.id)
        return self._admit(now)

    def withdraw(self, here: Here, why: str, now: float) -> list[Action]:
        """What is wanted of a session does not begin: no anchor will ever report that."""
        self._wishes.pop(here.session.id, None)
        here.wish = None
        failed = self._step(here, LeftState.FAILED.value, why)
        return [*here.keep(), failed, *self.begun(here, now)]

    def not_begun(self, here: Here, why: str, now: float) -> list[Action]:
        """One can't begin when it has its turn."""
        text = f"{here.session}: {why}"
        told = self._core.tell(Level.WARNING, Count.REQUEST_REFUSED, text)
        return [told, *self.withdraw(here, why, now)]

    def _step(self, here: Here, state: str, why: str) -> Progress:
        return Progress(here.session.id, self._core.host.name, 0, Role.LEFT.value, state, why)

    def begin_again(self, here: Here, now: float) -> list[Action]:
        """The registers that a reconfiguration waits for have not come."""
        leg = here.session.right
        if leg is None or here.wish is None or not here.waiting.get(Role.LEFT):
            return []
        here.tries += 1
        if here.tries > MAX_QUERIES:
            del here.waiting[Role.LEFT]
            return self.not_begun(here, "the device does not tell what it knows of the leg", now)
        timer = SetTimer(Timer.BEGIN.of(here.session.id), self._patience.longest)
        return [timer, QueryLeg(leg.outbound_key)]
