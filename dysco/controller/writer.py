"""Writes to a device: batched while others are under way, in order for each entry.

    submit(job) --> waiting --> one Write of all that may go --> done(errors)
                       ^
                       +-- a job that touches an entry of a Write under way, or of a job
                           before it that waits, waits too

So sessions don't wait for each other, and what one session writes keeps its order. When nothing
is under way, a job goes at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from finsy.proto import p4r, rpc_code

from dysco.controller.spent import Spent

Errors = dict[int, tuple[int, str]]
"""By index of the update: canonical gRPC code and text."""

MAX_IN_FLIGHT = 4
MAX_UPDATES = 512
"""Updates in one Write."""
MAX_WAITING = 8192
"""Jobs; more are refused."""


@dataclass(frozen=True, slots=True)
class Job:
    """Updates that go together, what they touch, and who is told."""

    updates: list[p4r.Update]
    keys: frozenset[Hashable]
    done: Callable[[Errors], None]


class Writer:
    """The queue in front of a device's Write."""

    def __init__(self, write: Callable[[list[p4r.Update]], Awaitable[Errors]]) -> None:
        self.counters: Counter[str] = Counter()
        self.spent = Spent()
        """From a Write's start to the device's answer."""
        self._write = write
        self._waiting: deque[Job] = deque()
        self._busy: set[Hashable] = set()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stopped = "the device is not ready"

    def start(self) -> None:
        """Accept jobs."""
        self._stopped = ""

    def stop(self, why: str) -> None:
        """Refuse jobs from now on, and those that wait."""
        self._stopped = why
        while self._waiting:
            self._refuse(self._waiting.popleft(), why)

    def submit(
        self, updates: list[p4r.Update], keys: frozenset[Hashable], done: Callable[[Errors], None]
    ) -> None:
        """Write `updates`, which touch `keys`; `done` is always called, later or at once."""
        job = Job(updates, keys, done)
        if self._stopped:
            self._refuse(job, self._stopped)
        elif len(self._waiting) >= MAX_WAITING:
            self.counters["write_overflow"] += 1
            self._refuse(job, f"{MAX_WAITING} writes are waiting")
        else:
            self._waiting.append(job)
            self._dispatch()

    async def write(self, updates: list[p4r.Update], keys: frozenset[Hashable]) -> Errors:
        """As `submit`, for who can wait."""
        written: asyncio.Future[Errors] = asyncio.get_running_loop().create_future()

        def done(errors: Errors) -> None:
            if not written.done():
                written.set_result(errors)

        self.submit(updates, keys, done)
        return await written

    def _refuse(self, job: Job, why: str) -> None:
        job.done(dict.fromkeys(range(len(job.updates)), (int(rpc_code.UNAVAILABLE), why)))

    def _dispatch(self) -> None:
        while self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
            batch = self._take()
            if not batch:
                return
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._in_flight.add(task)

    def _take(self) -> list[Job]:
        """The waiting jobs that may go now."""
        batch: list[Job] = []
        held: list[Job] = []
        blocked = set(self._busy)
        size = 0
        while self._waiting and size < MAX_UPDATES:
            job = self._waiting.popleft()
            if blocked.isdisjoint(job.keys):
                batch.append(job)
                size += len(job.updates)
            else:
                held.append(job)
            # The updates of one Write may be applied in any order (P4Runtime 1.4, 12.2).
            blocked |= job.keys
        self._waiting.extendleft(reversed(held))
        for job in batch:
            self._busy |= job.keys
        return batch

    async def _run(self, batch: list[Job]) -> None:
        updates = [update for job in batch for update in job.updates]
        self.counters["writes"] += 1
        self.counters["updates"] += len(updates)
        errors: Errors = dict.fromkeys(
            range(len(updates)), (int(rpc_code.CANCELLED), "the write was cancelled")
        )
        try:
            with self.spent.timed():
                errors = await self._write(updates)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._in_flight.discard(task)
            for job in batch:
                self._busy -= job.keys
            self._finish(batch, errors)

    def _finish(self, batch: list[Job], errors: Errors) -> None:
        start = 0
        for job in batch:
            end = start + len(job.updates)
            job.done({i - start: e for i, e in errors.items() if start <= i < end})
            start = end
        if not self._stopped:
            self._dispatch()
