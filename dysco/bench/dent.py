"""`dent`: what one reconfiguration costs a single steady stream, in milliseconds of its traffic.

The stream's sender is paced by its kernel, so that what was missed is not made up for later. Where
nothing changes, the same is measured as often: what of a dent is the machine's own.

    bytes  |        . after      Two parallel lines through what came before and after: the one is
           |   .  .              behind the other by what is missing; the rate makes that a time.
           | .   ^ trigger
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dysco.bench.live import COUNTED_PORT, PROXIED_PORT, TRACKED_PORT, Live, Times, live
from dysco.bench.result import Detail, Point
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools
from dysco.topo.process import Process, ProcessError

NAME = "dent"

_MBIT_S = 300
_BEFORE_S = _AFTER_S = 0.4
"""What the lines go through."""
_WINDOW_S = 0.3
"""Between them, from the trigger on, at least; and _TAIL_S after the end."""
_TAIL_S = 0.1
_LIMIT_S = 20.0
_BIN_MS = 5
_SHOWN_MS = (-100, 300)
_NOTHING = "nothing changes"


@dataclass(slots=True)
class Record:
    """A stream that is over."""

    start: float
    """Seconds since 1970."""
    bytes: list[int]
    """Received in each millisecond."""
    resent: list[tuple[float, int]]
    """Segments sent again so far, and since when it was that many."""

    def received(self, begin: float, end: float) -> list[int]:
        """Of each millisecond of a time, as far as the stream was there."""
        first, last = (int((at - self.start) * 1000) for at in (begin, end))
        return self.bytes[max(0, first) : max(0, last)]

    def rate(self) -> float:
        """Bytes a millisecond while it was steady: that of most pieces. Raises ProcessError."""
        came, step = self._came(), int(_BEFORE_S * 1000)
        slopes = [
            statistics.linear_regression(range(step), came[at : at + step]).slope
            for at in range(0, len(came) - step, step)
        ]
        if not slopes or not (rate := statistics.median(slopes)):
            raise ProcessError(f"a stream of {sum(self.bytes)} bytes was never steady")
        return rate

    def missing_ms(self, begin: float, end: float) -> float:
        """What didn't come because of what happened between two moments, in ms of traffic.

        Raises ProcessError if the stream was too short.
        """
        came, rate = self._came(), self.rate()
        first, last = (int((at - self.start) * 1000) for at in (begin, end))
        before = range(max(0, first - int(_BEFORE_S * 1000)), first)
        after = range(last, min(len(came), last + int(_AFTER_S * 1000)))
        if not before or not after:
            raise ProcessError("the stream began too late or ended too early")
        early, late = (statistics.fmean(at - came[at] / rate for at in t) for t in (before, after))
        return late - early

    def _came(self) -> list[int]:
        return list(itertools.accumulate(self.bytes))

    def resent_between(self, begin: float, end: float) -> int:
        """Segments that the sender sent again."""
        before, after = (
            max((count for when, count in self.resent if when <= at), default=0)
            for at in (begin, end)
        )
        return after - before


@dataclass(frozen=True, slots=True)
class Dent:
    """What one change did to its stream."""

    missing_ms: float
    resent: int
    longest_pause_ms: int
    times: dict[str, float]
    curve: list[float]
    """Mbit/s in each bin of _SHOWN_MS."""

    @classmethod
    def of(cls, record: Record, times: Times) -> Dent:
        """Raises ProcessError where the stream wasn't steady."""
        begin, end = times.started, _end(times)
        pause = longest = 0
        for amount in record.received(begin, end):
            pause = 0 if amount else pause + 1
            longest = max(longest, pause)
        shown = record.received(begin + _SHOWN_MS[0] / 1000, begin + _SHOWN_MS[1] / 1000)
        curve = [
            sum(shown[at : at + _BIN_MS]) * 8 / 1000 / _BIN_MS
            for at in range(0, len(shown) - _BIN_MS + 1, _BIN_MS)
        ]
        missing, resent = record.missing_ms(begin, end), record.resent_between(begin, end)
        return cls(missing, resent, longest, times.as_ms(), curve)


@dataclass(slots=True)
class _Running:
    """A stream that runs, and what was done to it."""

    network: Live
    session: str
    done: list[tuple[str, Times]] = field(default_factory=list)

    def change(self, kind: str, **wish: Any) -> None:
        """Change its chain, once it was steady for long enough."""
        time.sleep(_BEFORE_S)
        times = self.network.change([self.session], _LIMIT_S, **wish)[self.session]
        self.done.append((kind, times))
        _until(_end(times) + _AFTER_S)

    def nothing(self) -> None:
        """The same without a change."""
        time.sleep(_BEFORE_S)
        now = time.time()
        times = Times(now, now, now, now)
        self.done.append((_NOTHING, times))
        _until(_end(times) + _AFTER_S)


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    found: dict[str, list[Dent]] = {}
    with live(directory) as network:
        with _stream(network, tools, TRACKED_PORT, found) as stream:
            for _ in range(scale.repeats):
                stream.change("insert", insert="counter", after="client")
                stream.nothing()
                stream.change("delete", delete=["counter"])
        with _stream(network, tools, COUNTED_PORT, found) as stream:
            boxes = ("counter", "second")
            for number in range(scale.repeats):
                old, new = boxes[number % 2], boxes[1 - number % 2]
                stream.change("replace", replace=old, by=new)
                stream.nothing()
        for _ in range(scale.repeats):
            with _stream(network, tools, PROXIED_PORT, found) as stream:
                stream.change("delete of a proxy", delete=["proxy"])
    for kind in sorted(found, key=lambda kind: kind == _NOTHING):
        yield from _points(kind, found[kind])


def _points(kind: str, dents: list[Dent]) -> Iterator[Point]:
    detail: Detail = {
        "stream": f"{_MBIT_S} Mbit/s, paced",
        "longest_pause_ms": [dent.longest_pause_ms for dent in dents],
        "over_time": _curves(dents, marks=kind != _NOTHING),
    }
    missing = tuple(dent.missing_ms for dent in dents)
    yield Point(NAME, kind, "ms of traffic missing", missing, detail=detail)
    resent = tuple(float(dent.resent) for dent in dents)
    yield Point(NAME, f"{kind}: sent again", "segments", resent)
    if kind != _NOTHING:
        for step in ("locked", "switched", "finished"):
            took = tuple(dent.times[step] for dent in dents)
            yield Point(NAME, f"{kind}: {step}", "ms", took)


def _curves(dents: list[Dent], *, marks: bool) -> Detail:
    first, last = _SHOWN_MS
    steps = ("locked", "switched", "finished") if marks else ()
    return {
        "unit": "Mbit/s",
        "seconds": [at / 1000 for at in range(first, last, _BIN_MS)],
        "lines": [[round(value, 1) for value in dent.curve] for dent in dents],
        "marks": {s: statistics.median(d.times[s] for d in dents) / 1000 for s in steps},
    }


@contextmanager
def _stream(
    network: Live, tools: Tools, port: int, found: dict[str, list[Dent]]
) -> Iterator[_Running]:
    """A stream for as long as the `with` lasts; then what was done to it is looked at."""
    chain = network.chain
    number = sum(map(len, found.values()))
    receiver = chain.server.start(f"receive-{port}-{number}", tools.argv("stream", "receive", port))
    receiver.wait_ready(lambda: "ready" in receiver.log.read_text(), "it listened")
    argv = tools.argv("stream", "send", chain.address, port, _MBIT_S)
    sender = chain.client.start(f"send-{port}-{number}", argv)
    sender.wait_ready(lambda: "port" in sender.log.read_text(), "it was connected")
    own = sender.log.read_text().split('"port": ')[1].split(",")[0]
    (session,) = network.sessions(f"tcp and src port {own} and dst port {port}")
    running = _Running(network, session)
    yield running
    sender.terminate()
    record = _record(sender, receiver)
    for kind, times in running.done:
        found.setdefault(kind, []).append(Dent.of(record, times))


def _record(sender: Process, receiver: Process) -> Record:
    for process in (sender, receiver):
        if process.wait_end(10.0):
            raise ProcessError(f"{process.name} failed\n{process.log_tail()}")
    sent = json.loads(sender.log.read_text())
    got = json.loads(receiver.log.read_text().removeprefix("ready\n"))
    resent = [(ns / 1e9, count) for ns, count in sent["resent"]]
    return Record(got["start_ns"] / 1e9, got["bytes"], resent)


def _end(times: Times) -> float:
    return max(times.started + _WINDOW_S, times.finished + _TAIL_S)


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
