"""Which reconfigurations may begin: each must switch within its time, so only some at once.

    wish --> waits --> its turn: registers are read --> go --> begun: it switched, failed or ended
               ^                                                 |
               '---------------- the oldest that waits ----------'

One wish for each session; the oldest has the next turn.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, Level, Progress, QueryLeg, SetTimer
from dysco.agent.reconfigure.here import Here, Todo
from dysco.agent.reconfigure.left import LeftState, Patience
from dysco.agent.reconfigure.legs import Legs
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.registry import Registry
from dysco.agent.reconfigure.timers import Timer

MAX_QUERIES = 10
"""How often the registers are asked for before a reconfiguration is refused."""


class Turns:
    """The turns of the reconfigurations that this host is the left anchor of."""

    def __init__(self, core: Core, registry: Registry, legs: Legs, patience: Patience) -> None:
        self._core = core
        self._registry = registry
        self._legs = legs
        self._patience = patience
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
        self._wishes[here.session.id] = go
        return self._admit(now)

    def withdraw(self, here: Here) -> bool:
        """What waits is not wanted any more; False if nothing waited."""
        return self._wishes.pop(here.session.id, None) is not None

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
            actions.append(SetTimer(Timer.BEGIN.of(number), self._patience.longest))
            actions += self._legs.with_registers(here, Role.LEFT, go, now)
        return actions

    def begun(self, here: Here, now: float) -> list[Action]:
        """One is over, or has nothing left that must end in time: others may begin."""
        if not self.is_beginning(here):
            return []
        self._beginning.discard(here.session.id)
        return self._admit(now)

    def not_begun(self, here: Here, why: str, now: float) -> list[Action]:
        """One can't begin: its anchor never came to be, and what it would report is told here."""
        core, number = self._core, here.session.id
        told = core.tell(Level.WARNING, Count.REQUEST_REFUSED, f"{here.session}: {why}")
        role, name = Role.LEFT.value, core.host.name
        failed = Progress(number, name, 0, role, LeftState.FAILED.value, why)
        return [told, failed, *self.begun(here, now)]

    def begin_again(self, here: Here, now: float) -> list[Action]:
        """The registers that a reconfiguration waits for have not come."""
        leg = here.session.right
        if leg is None or not here.waiting.get(Role.LEFT):
            return []
        here.tries += 1
        if here.tries > MAX_QUERIES:
            del here.waiting[Role.LEFT]
            return self.not_begun(here, "the device does not tell what it knows of the leg", now)
        timer = SetTimer(Timer.BEGIN.of(here.session.id), self._patience.longest)
        return [timer, QueryLeg(leg.outbound_key)]
