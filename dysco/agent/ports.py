"""The ports of subsessions: both are chosen by the agent that sends the SYN.

The range is cut in two. Of two addresses the lower one takes its pairs from the lower half, the
higher one from the upper half, so that two agents that open subsessions to each other at the same
time never pick the same pair:

    10.0.0.1 ---- 61000..63267 : 61000..63267 ----> 10.0.0.2
    10.0.0.1 <--- 63268..65535 : 63268..65535 ----- 10.0.0.2
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from random import Random
from typing import NamedTuple

from dysco.agent.counters import Count, SetupError
from dysco.agent.model import Address
from dysco.agent.settings import Settings

LINGERS = 64.0
"""Seconds until no host has entries of a subsession that a chain gave up: 30 s until a host hears
that it is off the path, 32 s until it stops waiting for the end of the lock, and some time for the
writes to the device."""


class Rest(Enum):
    """Why a pair rests, and so how long."""

    ENDED = "its session is over"
    LEFT = "the session goes on another way: a host that it has left may linger"


class PortPair(NamedTuple):
    """Source and destination port of a subsession, as its sender sees them."""

    sport: int
    dport: int


class _Pool:
    """The pairs of one pair of addresses, numbered; number n is ports (n % half, n // half).

    A number is taken from those whose quarantine is over, else the next one that was never used.
    So a pool remembers no more numbers than were ever in use or quarantine at once.
    """

    __slots__ = ("known", "resting", "start", "tried")

    def __init__(self, start: int) -> None:
        self.start = start
        self.tried = 0
        self.known: dict[int, bool] = {}
        """True: in use; False: resting."""
        self.resting: dict[Rest, deque[tuple[float, int]]] = {rest: deque() for rest in Rest}
        """Until when, and the number; each queue in the order of time."""

    def rested(self, now: float) -> int | None:
        """A number whose rest is over."""
        for queue in self.resting.values():
            if queue and queue[0][0] <= now:
                return queue.popleft()[1]
        return None


class PortAllocator:
    """Hands out port pairs, none twice before its quarantine is over.

    A pair of a subsession that its session has left rests for LINGERS at least, whatever the
    setting: entries that are still to be removed would be those of the next session.
    """

    def __init__(self, settings: Settings, random: Random) -> None:
        self._first = settings.first_port
        self._half = (settings.last_port - settings.first_port + 1) // 2
        quarantine = settings.port_quarantine
        self._rests = {Rest.ENDED: quarantine, Rest.LEFT: max(quarantine, LINGERS)}
        self._random = random
        self._pools: dict[tuple[Address, Address], _Pool] = {}

    @property
    def in_use(self) -> int:
        """Pairs that subsessions have, without those in quarantine."""
        return sum(
            len(pool.known) - sum(map(len, pool.resting.values())) for pool in self._pools.values()
        )

    def allocate(self, src: Address, dst: Address, now: float) -> PortPair:
        """A pair for a subsession from `src` to `dst`, in O(1).

        Raises SetupError when all are in use or in quarantine.
        """
        pool = self._pool(src, dst)
        number = pool.rested(now)
        if number is not None:
            pool.known[number] = True
            return self._pair(src, dst, number)
        size = self._half * self._half
        while pool.tried < size:
            number = (pool.start + pool.tried) % size
            pool.tried += 1
            if number not in pool.known:
                pool.known[number] = True
                return self._pair(src, dst, number)
        raise SetupError(
            Count.PORTS_EXHAUSTED,
            f"all {size} port pairs from {src} to {dst} are in use or in quarantine",
        )

    def release(
        self, src: Address, dst: Address, pair: PortPair, now: float, rest: Rest = Rest.ENDED
    ) -> None:
        """The pair rests until its quarantine is over; one that isn't ours is let be."""
        pool = self._pools.get((src, dst))
        number = self._number(src, dst, pair)
        if pool is not None and number is not None and pool.known.get(number):
            pool.known[number] = False
            pool.resting[rest].append((now + self._rests[rest], number))

    def reserve(self, src: Address, dst: Address, pair: PortPair) -> None:
        """The pair is in use: found so after a restart. One that isn't ours is let be."""
        number = self._number(src, dst, pair)
        if number is not None and number not in (pool := self._pool(src, dst)).known:
            pool.known[number] = True

    def _pool(self, src: Address, dst: Address) -> _Pool:
        pool = self._pools.get((src, dst))
        if pool is None:
            # A random start: after a restart, which forgets quarantines, other pairs come first.
            pool = _Pool(self._random.randrange(self._half * self._half))
            self._pools[src, dst] = pool
        return pool

    def _base(self, src: Address, dst: Address) -> int:
        return self._first if int(src) < int(dst) else self._first + self._half

    def _pair(self, src: Address, dst: Address, number: int) -> PortPair:
        base = self._base(src, dst)
        return PortPair(base + number % self._half, base + number // self._half)

    def _number(self, src: Address, dst: Address, pair: PortPair) -> int | None:
        base = self._base(src, dst)
        low, high = pair.sport - base, pair.dport - base
        if 0 <= low < self._half and 0 <= high < self._half:
            return high * self._half + low
        return None
