"""Whose MAC a subsession's packets are sent to: asked by packet-out, answered by packet-in.

    unknown --resolve--> asking --answer--> known --refresh--> asking again, still in use
                            |                                    |
                            +-- no answer: waiters fail          +-- no answer: kept, counted

An address that nobody asked for is never learned, so answers can't fill the table.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dysco.agent.model import Address, MacAddress
from dysco.controller.neighbour_frames import Neighbour

RETRY_AFTER = (0.25, 0.5, 1.0)
"""Seconds between questions; after the last without an answer the neighbour is unreachable."""
REFRESH_AFTER = 45.0
"""Seconds; RFC 4861's reachable time is 15 to 45."""
FORGET_FAILED_AFTER = 1.0
"""Seconds in which an unreachable neighbour is not asked again."""
MAX_NEIGHBOURS = 65536

Waiter = Callable[[MacAddress | None], None]


@dataclass(slots=True)
class _Entry:
    port: int
    mac: MacAddress | None = None
    tries: int = 0
    timer: asyncio.TimerHandle | None = None
    waiters: list[Waiter] = field(default_factory=list)


class Neighbours:
    """The neighbours of one device."""

    def __init__(
        self,
        ask: Callable[[Address, int], None],
        changed: Callable[[Address, int, MacAddress], None],
    ) -> None:
        """`ask(address, port)` sends a question; `changed` is told every new MAC."""
        self.counters: Counter[str] = Counter()
        self._ask, self._changed = ask, changed
        self._entries: dict[Address, _Entry] = {}

    def get(self, address: Address) -> MacAddress | None:
        """The MAC, if it is known."""
        entry = self._entries.get(address)
        return entry.mac if entry else None

    def adopt(self, address: Address, port: int, mac: MacAddress) -> None:
        """Known from before a restart: used at once, and asked for again."""
        self._entries[address] = _Entry(port, mac)
        self._question(address)

    def resolve(self, address: Address, port: int, then: Waiter) -> None:
        """Call `then` with the MAC, now or when it is known; with None if nobody answers."""
        entry = self._entries.get(address)
        if entry is None:
            if len(self._entries) >= MAX_NEIGHBOURS:
                self.counters["neighbour_overflow"] += 1
                then(None)
                return
            entry = self._entries[address] = _Entry(port)
            entry.waiters.append(then)
            self._question(address)
        elif entry.mac is not None:
            then(entry.mac)
        elif entry.tries > len(RETRY_AFTER):
            then(None)
        else:
            entry.waiters.append(then)

    def answered(self, neighbour: Neighbour) -> None:
        """An answer came in; ignored unless it was asked for."""
        entry = self._entries.get(neighbour.address)
        if entry is None:
            self.counters["neighbour_unasked"] += 1
            return
        is_new, entry.mac, entry.tries = entry.mac != neighbour.mac, neighbour.mac, 0
        self._after(entry, REFRESH_AFTER, neighbour.address)
        if is_new:
            self._changed(neighbour.address, entry.port, neighbour.mac)
        self._wake(entry)

    def clear(self) -> None:
        """Forget all; who waits is told None."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            if entry.timer:
                entry.timer.cancel()
            self._wake(entry, gone=True)

    def _question(self, address: Address) -> None:
        entry = self._entries[address]
        if entry.tries == len(RETRY_AFTER):
            self._give_up(address, entry)
            return
        self._ask(address, entry.port)
        self._after(entry, RETRY_AFTER[entry.tries], address)
        entry.tries += 1

    def _give_up(self, address: Address, entry: _Entry) -> None:
        self.counters["neighbour_silent"] += 1
        if entry.mac is not None:
            entry.tries = 0
            self._after(entry, REFRESH_AFTER, address)
            return
        entry.tries += 1
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(FORGET_FAILED_AFTER, self._entries.pop, address, None)
        self._wake(entry)

    def _after(self, entry: _Entry, seconds: float, address: Address) -> None:
        if entry.timer:
            entry.timer.cancel()
        entry.timer = asyncio.get_running_loop().call_later(seconds, self._question, address)

    def _wake(self, entry: _Entry, *, gone: bool = False) -> None:
        waiters, entry.waiters = entry.waiters, []
        for then in waiters:
            then(None if gone else entry.mac)
