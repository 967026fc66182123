"""`proxy-removal`: hundreds of sessions through HAProxy, which is taken out of a quarter at a time.

Twice: with little to carry, where the time that a switch takes is the agents' own; and with as much
as the machine can carry, where it shows what the proxy cost. A time begins when all of a quarter
are asked for: waiting behind others counts.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dysco.bench.live import PROXIED_PORT, Live, Times, live
from dysco.bench.result import Detail, Point
from dysco.bench.scale import Scale
from dysco.bench.sessions import Record, Sessions
from dysco.bench.tools import Tools
from dysco.bench.usage import cpu_seconds
from dysco.topo.process import ProcessError

NAME = "proxy-removal"

_QUARTERS = 4
_LIGHT_MBIT_S = 100
_ALL_IT_CAN = 0
_PAUSE_S = 2.0
"""Before the first quarter, between quarters, and after the last."""
_LIMIT_S = 60.0
_TRIES = 4
_SHARES = (0.5, 0.8, 0.99)
_GOALS_MS = (2, 4)
_EVERY_S = 0.1


@dataclass(slots=True)
class _Usage:
    """Processor time of processes, sampled."""

    at: list[float] = field(default_factory=list)
    used: dict[str, list[float]] = field(default_factory=dict)

    def share(self, name: str, begin: float, end: float) -> float:
        """Of one core, between two moments."""
        inside = [i for i, at in enumerate(self.at) if begin <= at <= end]
        if len(inside) < 2:
            return 0.0
        first, last = inside[0], inside[-1]
        used = self.used[name]
        return (used[last] - used[first]) / (self.at[last] - self.at[first])


@dataclass(slots=True)
class _Removal:
    """All quarters of one run."""

    begin: float
    triggers: list[float]
    times: list[list[Times]]
    ends: list[float]
    failures: Counter[str]
    """Why sessions had to be asked for again."""
    record: Record
    usage: _Usage

    def took_ms(self) -> list[float]:
        """From its quarter's trigger until each session had switched, sorted."""
        return sorted(
            (one.switched - trigger) * 1000
            for trigger, quarter in zip(self.triggers, self.times, strict=True)
            for one in quarter
        )

    def gbit_s(self, begin: float, end: float) -> float:
        """Goodput between two moments."""
        got = self.record.received(begin, end)
        return sum(got) * 8 / max(1, len(got)) / 1e6


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    with live(directory) as network:
        light = _remove(network, tools, scale.removed, _LIGHT_MBIT_S)
        yield from _time_points(light, f"at {_LIGHT_MBIT_S} Mbit/s")
        yield _processor_point(light, f"at {_LIGHT_MBIT_S} Mbit/s")
        heavy = _remove(network, tools, scale.removed, _ALL_IT_CAN)
        yield from _time_points(heavy, "at full load")
        yield _processor_point(heavy, "at full load")
        yield _goodput_point(heavy)


def _remove(network: Live, tools: Tools, count: int, mbit_s: int) -> _Removal:
    name = f"{count}-{mbit_s}"
    sessions = Sessions(tools, network.chain, PROXIED_PORT, name=name, count=count, mbit_s=mbit_s)
    begin = time.time()
    with _watched(network) as usage:
        known = network.sessions(f"tcp and dst port {PROXIED_PORT}", count)
        triggers: list[float] = []
        times: list[list[Times]] = []
        ends: list[float] = []
        failures: Counter[str] = Counter()
        for quarter in range(_QUARTERS):
            time.sleep(_PAUSE_S)
            wanted = known[quarter::_QUARTERS]
            triggers.append(time.time())
            times.append([])
            for _ in range(_TRIES):
                outcome = network.change(wanted, _LIMIT_S, delete=["proxy"])
                times[-1] += outcome.times.values()
                failures.update(outcome.failed.values())
                wanted = list(outcome.failed)
                if not wanted:
                    break
            else:
                raise ProcessError(f"{len(wanted)} sessions failed {_TRIES} times: {failures}")
            ends.append(max(one.finished for one in times[-1]))
        time.sleep(_PAUSE_S)
    record = sessions.stop()
    if not network.chain.controller.wait_no_sessions(_LIMIT_S):
        raise ProcessError("sessions that were ended are still listed")
    return _Removal(begin, triggers, times, ends, failures, record, usage)


@contextmanager
def _watched(network: Live) -> Iterator[_Usage]:
    """Sample what HAProxy, the daemon and the devices take, for the length of the `with`."""
    pids = {"HAProxy": network.proxy.process.pid, "dyscod": network.chain.controller.process.pid}
    for host in network.chain.topology.spec.hosts:
        process = network.chain.devices[host.device or ""].process
        if process is not None and host.name in ("client", "proxy", "server"):
            pids[f"softnic of {host.name}"] = process.pid
    usage = _Usage(used={name: [] for name in pids})
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_EVERY_S):
            usage.at.append(time.time())
            for name, pid in pids.items():
                usage.used[name].append(sum(cpu_seconds(pid)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield usage
    finally:
        over.set()
        thread.join()


def _time_points(removal: _Removal, how: str) -> Iterator[Point]:
    took = removal.took_ms()
    detail: Detail = {
        "sessions": len(took),
        "quarters": _QUARTERS,
        "asked_for_again": dict(removal.failures),
        "shares": {f"under {goal} ms": _below(took, goal) for goal in _GOALS_MS},
        "median_ms_from_its_own_start": {
            step: round(_at(sorted(one.as_ms()[step] for one in _all(removal)), 0.5), 1)
            for step in ("locked", "switched", "finished")
        },
        "processor_shares_meanwhile": {
            name: round(_meanwhile(removal, name), 2) for name in removal.usage.used
        },
        "all_ms": [round(value, 1) for value in took],
    }
    for share in _SHARES:
        text = f"{share:.0%} had switched, {how}"
        yield Point(NAME, text, "ms", (_at(took, share),), detail=detail)
        detail = {}
    yield Point(NAME, f"all had switched, {how}", "ms", (took[-1],))
    rates = tuple(
        len(quarter) / (max(one.switched for one in quarter) - trigger)
        for trigger, quarter in zip(removal.triggers, removal.times, strict=True)
    )
    yield Point(NAME, f"switched, {how}", "sessions/s", rates)


def _processor_point(removal: _Removal, how: str) -> Point:
    """HAProxy's share of a core before the first quarter, and after the last."""
    usage = removal.usage
    before = usage.share("HAProxy", removal.begin, removal.triggers[0])
    after = usage.share("HAProxy", removal.ends[-1] + _PAUSE_S / 2, usage.at[-1])
    used = usage.used["HAProxy"]
    steps = itertools.pairwise(zip(usage.at, used, strict=True))
    shares = [(later - now) / (end - at) for (at, now), (end, later) in steps]
    times = [round(at - removal.begin, 2) for at in usage.at[1:]]
    curve = {
        "unit": "cores",
        "seconds": times,
        "lines": [[round(share, 3) for share in shares]],
        "marks": _marks(removal),
    }
    detail: Detail = {"before": round(before, 3), "over_time": curve}
    return Point(NAME, f"HAProxy when it is out of all, {how}", "cores", (after,), detail=detail)


def _goodput_point(removal: _Removal) -> Point:
    """Beside each other: all through the proxy, and none."""
    before = removal.gbit_s(removal.triggers[0] - _PAUSE_S / 2, removal.triggers[0])
    last = removal.usage.at[-1]
    after = removal.gbit_s(last - _PAUSE_S / 2, last)
    got = removal.record.received(removal.begin, last)
    step = int(_EVERY_S * 1000)
    curve = {
        "unit": "Gbit/s",
        "seconds": [at / 1000 for at in range(0, len(got) - step + 1, step)],
        "lines": [
            [
                sum(got[at : at + step]) * 8 / step / 1e6
                for at in range(0, len(got) - step + 1, step)
            ]
        ],
        "marks": _marks(removal),
    }
    sides: Detail = {
        "baseline is": "through the proxy",
        "measured is": "without",
        "over_time": curve,
    }
    return Point(NAME, "goodput after, at full load", "Gbit/s", (after,), (before,), sides)


def _marks(removal: _Removal) -> dict[str, float]:
    return {
        f"quarter {number}": round(at - removal.begin, 2)
        for number, at in enumerate(removal.triggers, start=1)
    }


def _all(removal: _Removal) -> list[Times]:
    return [one for quarter in removal.times for one in quarter]


def _meanwhile(removal: _Removal, name: str) -> float:
    """A process's share of a core while quarters were switching: where the time goes."""
    shares = [
        removal.usage.share(name, trigger, end)
        for trigger, end in zip(removal.triggers, removal.ends, strict=True)
    ]
    return sum(shares) / len(shares)


def _below(took: list[float], goal: float) -> float:
    return round(sum(value < goal for value in took) / len(took), 3)


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
