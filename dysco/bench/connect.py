"""`connect`: how long connect() takes through three middleboxes, and what the time goes to.

The baseline is the same connect() through the same boxes by static routing. Both with nothing else
open, and with thousands of sessions open already.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from dysco.bench.chain import DYSCO_PORT, STATIC_PORT, Chain, chain
from dysco.bench.repeat import alternate
from dysco.bench.result import Detail, Point
from dysco.bench.sample import Sample, point_of
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools, microseconds
from dysco.bench.trace import trace_passes
from dysco.topo.devices import Target

NAME = "connect"
BOXES = (("firewall", "firewall"), ("nat", "nat"), ("counter", "counter"))

_GAP_US = 2000
_TRACED = 30
_SETUPS = 2 * (len(BOXES) + 1)
"""SYNs punted on the way: each host but the server sends it on, each but the client gets it."""


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    with chain(BOXES, Target.SOFTNIC, directory) as running:
        for port in (DYSCO_PORT, STATIC_PORT):
            tools.serve(running.server, "discard", port)
        yield from _points(running, tools, scale, 0)
        tools.hold(running.client, running.address, DYSCO_PORT, scale.open_sessions)
        yield from _points(running, tools, scale, scale.open_sessions)


def _points(running: Chain, tools: Tools, scale: Scale, open_sessions: int) -> Iterator[Point]:
    # What no session has used yet (ARP, routes, caches) is no part of what is measured.
    for port in (STATIC_PORT, DYSCO_PORT):
        _connects(running, tools, port, 5)
    theirs, ours = alternate(
        scale.repeats,
        lambda _: _connects(running, tools, STATIC_PORT, scale.connects),
        lambda _: _connects(running, tools, DYSCO_PORT, scale.connects),
    )
    what = f"{open_sessions:,} sessions open"
    sides: Detail = {"baseline is": "static routing", "measured is": "Dysco", "boxes": len(BOXES)}
    for label, share in (("median", 0.5), ("99th percentile", 0.99)):
        turns = [_at(times, share) for times in theirs], [_at(times, share) for times in ours]
        more = {**sides, "connects": scale.connects}
        if share == 0.5:
            more["time_us"] = _where_time_goes(running, tools)
        yield point_of(NAME, f"{label}, {what}", "us", turns, more)


def _connects(running: Chain, tools: Tools, port: int, count: int) -> list[float]:
    """Sorted times of connect(), in microseconds."""
    seconds = 30 + count * 0.1
    arguments = (running.address, port, count, _GAP_US)
    times = tools.run(running.client, "connect", *arguments, seconds=seconds)
    return sorted(microseconds(times))


def _at(times: Sequence[float], share: float) -> Sample:
    return Sample(times[min(len(times) - 1, int(len(times) * share))])


def _where_time_goes(running: Chain, tools: Tools) -> Detail:
    """Of one connect(), in microseconds: medians of what the links saw, means of the daemon."""
    before = running.metrics()
    with trace_passes(running.topology) as passes:
        times = _connects(running, tools, DYSCO_PORT, _TRACED)
    after = running.metrics()

    def mean(name: str) -> float:
        """Of one, times the number that a set-up takes: the daemon ends old sessions meanwhile."""
        count, seconds = (after[f"{name}_{of}"] - before[f"{name}_{of}"] for of in ("count", "sum"))
        return seconds / max(count, 1.0) * _SETUPS * 1e6

    total, syn, syn_ack = statistics.median(times), passes.syn_us, passes.syn_ack_us
    agents, writes = mean("dysco_agent_seconds"), mean("dysco_write_seconds")
    return {
        "connect": round(total, 1),
        "SYN in devices and controller": round(syn, 1),
        "of that in agents": round(agents, 1),
        "of that in table writes": round(writes, 1),
        "of that in punts and packet-outs": round(syn - agents - writes, 1),
        "SYN-ACK in devices": round(syn_ack, 1),
        "hosts, links and router": round(total - syn - syn_ack, 1),
    }
