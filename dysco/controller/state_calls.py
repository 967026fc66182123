"""Carries out what agents ask for about their hosts' own state of sessions.

    StateCall --> [the host's commands, or its helper] --> StateDone, StateFailed

Calls about one session at one host come one after the other; whatever undoes ends what still runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from dysco.agent.events import Event, StateCall, StateDone, StateFailed, StateVerb
from dysco.controller.config import DeviceConfig, StateConfig
from dysco.controller.state_command import Commands, HookError
from dysco.controller.state_helper import Helper
from dysco.state.request import Request

log = logging.getLogger(__name__)

MAX_AT_ONCE = 8
"""Calls under way for the hosts of one device; more wait."""
MAX_CALLS = 4096
"""Under way or waiting; more fail at once."""
_WHY = 150
"""Characters of a reason that is told to the session's other agents."""

_UNDOING = frozenset({StateVerb.RESUME, StateVerb.DROP})
OPTIONAL = frozenset({StateVerb.RESUME})
"""Verbs that a host without a command for them has nothing to do for."""


class Hook(Protocol):
    """How one host's state is got at."""

    async def open(self) -> None:
        """Begin what stays between calls."""

    async def call(self, request: Request, state: bytes, limit: float) -> bytes:
        """Carry a request out within `limit` seconds. Raises HookError."""

    async def close(self) -> None:
        """End what stays between calls."""


class StateCalls:
    """Of the hosts of one device."""

    def __init__(self, config: DeviceConfig, deliver: Callable[[int, Event], object]) -> None:
        self.counters: Counter[str] = Counter()
        self._deliver = deliver
        self._hosts = {host.host_id: host for host in config.hosts}
        self._hooks: dict[int, Hook] = {
            host.host_id: _hook(host.state) for host in config.hosts if host.state is not None
        }
        self._calls: dict[tuple[int, int], dict[asyncio.Task[None], StateVerb]] = {}
        """Under way or waiting, by host and session."""
        self._count = 0
        self._turn = asyncio.Semaphore(MAX_AT_ONCE)

    async def open(self) -> None:
        """Start helpers."""
        for hook in self._hooks.values():
            await hook.open()

    def call(self, host: int, call: StateCall) -> None:
        """Begin; the answer is delivered."""
        self.counters["state_call"] += 1
        if self._count >= MAX_CALLS:
            asyncio.get_running_loop().call_soon(
                self._failed, host, call, f"more than {MAX_CALLS} calls are under way"
            )
            return
        of_session = self._calls.setdefault((host, call.session), {})
        before = tuple(of_session)
        if call.verb in _UNDOING:
            for task, verb in of_session.items():
                if verb not in _UNDOING:
                    task.cancel()
        task = asyncio.get_running_loop().create_task(self._carry_out(host, call, before))
        of_session[task] = call.verb
        self._count += 1
        task.add_done_callback(partial(self._done, (host, call.session)))

    def _done(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        of_session = self._calls[key]
        del of_session[task]
        self._count -= 1
        if not of_session:
            del self._calls[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call for a host's state failed; please report this", exc_info=error)

    async def _carry_out(
        self, host: int, call: StateCall, before: tuple[asyncio.Task[None], ...]
    ) -> None:
        if before:
            await asyncio.wait(before)
        try:
            async with self._turn:
                state = await self._ask(host, call)
        except HookError as error:
            self._failed(host, call, str(error))
        else:
            self._deliver(host, StateDone(call.call, call.session, state))

    async def _ask(self, host: int, call: StateCall) -> bytes:
        config, hook = self._hosts[host].state, self._hooks.get(host)
        if config is None or hook is None:
            raise HookError("the host has no state commands: see [device.host.state]")
        if not config.has(call.verb):
            if call.verb in OPTIONAL:
                return b""
            raise HookError(f"no command is configured for {call.verb.value}")
        name = self._hosts[host].name
        request = Request(call.verb, f"{call.session:013x}", name, call.sides, call.was)
        return await hook.call(request, call.state, min(call.limit, config.timeout))

    def _failed(self, host: int, call: StateCall, why: str) -> None:
        self.counters["state_call_failed"] += 1
        name, verb = self._hosts[host].name, call.verb.value
        log.warning("host %s: session %013x: %s of its state: %s", name, call.session, verb, why)
        self._deliver(host, StateFailed(call.call, call.session, why[:_WHY]))

    async def close(self) -> None:
        """Stop all calls, unanswered, and end the helpers."""
        tasks = [task for of_session in self._calls.values() for task in of_session]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for hook in self._hooks.values():
            await hook.close()


def _hook(config: StateConfig) -> Hook:
    if config.helper is not None:
        return Helper(config.helper)
    commands: Mapping[StateVerb, tuple[str, ...]] = {
        verb: argv for verb in StateVerb if (argv := config.command(verb)) is not None
    }
    return Commands(commands)
