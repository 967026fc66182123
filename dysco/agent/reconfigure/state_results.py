"""What became of calls about the host's own state, and whom it matters to.

StateDone, StateFailed, no answer --> state_calls --> the old host: its copy is there, it is closed
                                                  --> the new one: it has the state, it drops it
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import SetupError
from dysco.agent.events import Action, StateDone, StateFailed, StateVerb
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.means import Means
from dysco.agent.reconfigure.member import Order, Role
from dysco.agent.reconfigure.messages import CloseHost
from dysco.agent.reconfigure.orders import Orders
from dysco.agent.reconfigure.state_calls import Result


class StateResults:
    """Takes the answers."""

    def __init__(self, core: Core, means: Means, orders: Orders) -> None:
        self._core = core
        self._registry = means.registry
        self._legs = means.legs
        self._calls = means.calls
        self._moves = means.moves
        self._orders = orders

    def answer(self, event: StateDone | StateFailed, now: float) -> list[Action]:
        """What became of a `StateCall`."""
        here = self._registry.get(event.session)
        actions, result = self._calls.answer(here, event)
        return actions + self._state_result(here, result, now)

    def timer(self, here: Here, now: float) -> list[Action]:
        """No answer in time, or time to ask again."""
        actions, result = self._calls.timer(here)
        return actions + self._state_result(here, result, now)

    def _state_result(self, here: Here | None, result: Result | None, now: float) -> list[Action]:
        if here is None or result is None:
            return []
        member = here.member
        match result.verb:
            case StateVerb.EXPORT if not result.why:
                return self._exported(here, result.state, now)
            case StateVerb.EXPORT | StateVerb.IMPORT if result.why:
                return self._orders.do(here, member.state_failed(result.why), now)
            case StateVerb.IMPORT:
                return self._orders.do(here, member.imported(), now)
            case StateVerb.RESUME:
                settled = self._settled(here) if member.target is not None else []
                return [*self._orders.do(here, member.resumed(), now), *settled]
            case _ if here.is_over:
                return self._orders.do(here, (), now)
            case _:
                close = Order(Role.RIGHT, CloseHost(forgot=not result.why))
                return self._orders.do(here, [close], now)

    def _settled(self, here: Here) -> list[Action]:
        """The session is here as if it had always been."""
        core, session = self._core, here.session
        session.opening = b""
        core.installed(session)
        if here.is_over:
            return []
        return [core.update(session.primary), *core.close_if_over(session)]

    def _exported(self, here: Here, state: bytes, now: float) -> list[Action]:
        """The copy is there; with it goes what the legs' registers hold now that nothing passes."""
        legs = self._legs

        def load(now: float) -> list[Action]:
            try:
                orders = here.member.exported(self._moves.load(here, state))
            except SetupError as error:
                orders = here.member.state_failed(str(error))
            return self._orders.do(here, orders, now)

        def then(now: float) -> list[Action]:
            return legs.with_registers(here, Role.LEFT, load, now)

        return legs.with_registers(here, Role.RIGHT, then, now)
