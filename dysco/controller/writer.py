"""Writes to a device: batched while others are under way, in order for each entry.

    submit(job) --> first in line for all its entries? --> ready --> one Write --> done(errors)
                       |                                     ^
                       +-- no: waits for the jobs before it --+

So sessions don't wait for each other, and what one session writes keeps its order: the updates of
one Write may be applied in any order (P4Runtime 1.4, 12.2), so two jobs that touch one entry never
share one. All jobs of one wake-up of the event loop share a Write, and while a Write is under way
jobs gather for the next: a Write costs far more than an update of it. A job that is patient waits
a moment for others, unless an impatient one stands behind it. Every step takes constant time per
entry that a job touches, however many jobs wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from finsy.proto import p4r, rpc_code

from dysco.controller.spent import Spent

Errors = dict[int, tuple[int, str]]
"""By index of the update: canonical gRPC code and text."""

MAX_IN_FLIGHT = 1
"""Writes."""
PATIENCE = 0.03
"""Seconds that a patient job waits for others: what no packet waits for shall not be in the way of
what one does."""
MAX_UPDATES = 512
"""Updates in one Write."""
MAX_WAITING = 8192
"""Jobs; more are refused."""


@dataclass(slots=True, eq=False)
class _Job:
    """Updates that go together, what they touch, and who is told."""

    updates: list[p4r.Update]
    keys: frozenset[Hashable]
    done: Callable[[Errors], None]
    patient: bool = False
    behind: int = 0
    """For how many of its entries it is not first in line."""


class Writer:
    """The queue in front of a device's Write."""

    def __init__(self, write: Callable[[list[p4r.Update], Callable[[Errors], None]], None]) -> None:
        """`write` begins a Write and calls back when it is answered, which it always is."""
        self.counters: Counter[str] = Counter()
        self.spent = Spent()
        """From a Write's start to the device's answer."""
        self._write = write
        self._lines: dict[Hashable, deque[_Job]] = {}
        """For each entry its jobs, first the one that is under way or goes next."""
        self._waiting: dict[_Job, None] = {}
        """Jobs that are not under way, the oldest first."""
        self._ready: deque[_Job] = deque()
        """Of those, the ones that may go now."""
        self._patient: dict[_Job, None] = {}
        """Of those, the ones that wait for company."""
        self._patience: asyncio.TimerHandle | None = None
        self._in_flight = 0
        self._will_dispatch = False
        self._stopped = "the device is not ready"

    def start(self) -> None:
        """Accept jobs."""
        self._stopped = ""

    def stop(self, why: str) -> None:
        """Refuse jobs from now on, and those that wait."""
        self._stopped = why
        refused = list(self._waiting)
        self._waiting.clear()
        self._ready.clear()
        self._patient.clear()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        for job in refused:
            for key in job.keys:
                line = self._lines[key]
                line.remove(job)
                if not line:
                    del self._lines[key]
        for job in refused:
            self._refuse(job, why)

    def submit(
        self,
        updates: list[p4r.Update],
        keys: frozenset[Hashable],
        done: Callable[[Errors], None],
        *,
        patient: bool = False,
    ) -> None:
        """Write `updates`, which touch `keys`; `done` is always called, later or at once."""
        job = _Job(updates, keys, done, patient)
        if self._stopped:
            self._refuse(job, self._stopped)
        elif len(self._waiting) >= MAX_WAITING:
            self.counters["write_overflow"] += 1
            self._refuse(job, f"{MAX_WAITING} writes are waiting")
        else:
            self._line_up(job)
            if not self._will_dispatch:
                self._will_dispatch = True
                asyncio.get_running_loop().call_soon(self.dispatch)

    async def write(self, updates: list[p4r.Update], keys: frozenset[Hashable]) -> Errors:
        """As `submit`, for who can wait."""
        written: asyncio.Future[Errors] = asyncio.get_running_loop().create_future()

        def done(errors: Errors) -> None:
            if not written.done():
                written.set_result(errors)

        self.submit(updates, keys, done)
        return await written

    def _refuse(self, job: _Job, why: str) -> None:
        job.done(dict.fromkeys(range(len(job.updates)), (int(rpc_code.UNAVAILABLE), why)))

    def _line_up(self, job: _Job) -> None:
        for key in job.keys:
            line = self._lines.setdefault(key, deque())
            job.behind += bool(line)
            if line and not job.patient:
                self._hurry(line)
            line.append(job)
        self._waiting[job] = None
        if job.patient:
            self._wait_for_company(job)
        elif not job.behind:
            self._ready.append(job)

    def _wait_for_company(self, job: _Job) -> None:
        self._patient[job] = None
        if len(self._patient) >= MAX_UPDATES // 2:
            self._hurry(list(self._patient))
        elif self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(PATIENCE, self._patience_ends)

    def _patience_ends(self) -> None:
        self._patience = None
        self._hurry(list(self._patient))
        self.dispatch()

    def _hurry(self, jobs: Iterable[_Job]) -> None:
        """These jobs wait no longer than they must."""
        for job in jobs:
            if job.patient:
                job.patient = False
                del self._patient[job]
                if not job.behind:
                    self._ready.append(job)

    def _leave(self, job: _Job) -> None:
        """A job is done: who stood behind it moves up."""
        for key in job.keys:
            line = self._lines[key]
            line.popleft()
            if not line:
                del self._lines[key]
                continue
            line[0].behind -= 1
            if not line[0].behind and not line[0].patient:
                self._ready.append(line[0])

    def dispatch(self) -> None:
        """Begin what may begin: at the end of a wake-up in which there were jobs."""
        self._will_dispatch = False
        while self._ready and self._in_flight < MAX_IN_FLIGHT:
            batch: list[_Job] = []
            size = 0
            while self._ready and size < MAX_UPDATES:
                job = self._ready.popleft()
                del self._waiting[job]
                batch.append(job)
                size += len(job.updates)
            self._begin(batch, [update for job in batch for update in job.updates])

    def _begin(self, batch: list[_Job], updates: list[p4r.Update]) -> None:
        self.counters["writes"] += 1
        self.counters["updates"] += len(updates)
        self._in_flight += 1
        started = time.perf_counter()

        def answered(errors: Errors) -> None:
            self.spent.add(time.perf_counter() - started)
            self._in_flight -= 1
            for job in batch:
                self._leave(job)
            self._finish(batch, errors)

        self._write(updates, answered)

    def _finish(self, batch: list[_Job], errors: Errors) -> None:
        start = 0
        for job in batch:
            end = start + len(job.updates)
            mine = {i - start: e for i, e in errors.items() if start <= i < end} if errors else {}
            job.done(mine)
            start = end
        if self._stopped:
            self.stop(self._stopped)
        elif not self._will_dispatch:
            self._will_dispatch = True
            asyncio.get_running_loop().call_soon(self.dispatch)
