"""`dent`: what one reconfiguration costs a single steady stream, in milliseconds of its traffic.

The stream's sender is paced by its kernel, so that what was missed is not made up for later. Where
nothing changes, the same is measured as often: what of a dent is the machine's own.

    bytes  |        . after      Two parallel lines through what came before and after: the one is
           |   .  .              behind the other by what is missing; the rate makes that a time.
           | .   ^ trigger
"""

from __future__ import annotations

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
from dysco.bench.sessions import Record, Sessions
from dysco.bench.tools import Tools
from dysco.topo.process import ProcessError

NAME = "dent"

_MBIT_S = 300
_AROUND_S = 0.4
"""What the lines go through."""
_WINDOW_S = 0.3
"""Between them, from the trigger on, at least; and _TAIL_S after the end."""
_TAIL_S = 0.1
_LIMIT_S = 20.0
_BIN_MS = 5
_SHOWN_MS = (-100, 300)
_NOTHING = "nothing changes"


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
        missing = record.missing_ms(begin, end, _AROUND_S)
        resent = record.resent_between(begin, end)
        return cls(missing, resent, longest, times.as_ms(), curve)


@dataclass(slots=True)
class _Running:
    """A stream that runs, and what was done to it."""

    network: Live
    session: str
    done: list[tuple[str, Times]] = field(default_factory=list)

    def change(self, kind: str, **wish: Any) -> None:
        """Change its chain, once it was steady for long enough."""
        time.sleep(_AROUND_S)
        outcome = self.network.change([self.session], _LIMIT_S, **wish)
        if outcome.failed:
            raise ProcessError(f"{kind} failed: {outcome.failed[self.session]}")
        times = outcome.times[self.session]
        self.done.append((kind, times))
        _until(_end(times) + _AROUND_S)

    def nothing(self) -> None:
        """The same without a change."""
        time.sleep(_AROUND_S)
        now = time.time()
        times = Times(now, now, now, now)
        self.done.append((_NOTHING, times))
        _until(_end(times) + _AROUND_S)


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
    name = f"{port}-{sum(map(len, found.values()))}"
    sessions = Sessions(tools, network.chain, port, name=name, count=1, mbit_s=_MBIT_S)
    (session,) = network.sessions(f"tcp and src port {sessions.port} and dst port {port}", 1)
    running = _Running(network, session)
    yield running
    record = sessions.stop()
    for kind, times in running.done:
        found.setdefault(kind, []).append(Dent.of(record, times))


def _end(times: Times) -> float:
    return max(times.started + _WINDOW_S, times.finished + _TAIL_S)


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
