"""`goodput`: many sessions at once through one middlebox, beside the same without Dysco.

The baseline: the same devices and the same middlebox by static routing.

    greet   each session has had a byte acknowledged when the load begins, as by a small request
    rush    the handshake is all that TCP knows of the path when the load begins

Linux makes its segments small until it has seen a short RTT (sysctl tcp_tso_rtt_log), which a
handshake through a controller is not, and under load no later one is either.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from dysco.bench.chain import DYSCO_PORT, STATIC_PORT, Chain, chain
from dysco.bench.repeat import alternate
from dysco.bench.result import Point
from dysco.bench.sample import Sample, point_of
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools
from dysco.topo.devices import Target

NAME = "goodput"
BOXES = (("counter", "counter"),)

_WARM_UP_SECONDS = 1


class Start(StrEnum):
    """How a session's load begins."""

    GREET = "greet"
    RUSH = "rush"


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    with chain(BOXES, Target.SOFTNIC, directory) as running:
        for port in (DYSCO_PORT, STATIC_PORT):
            tools.serve(running.server, "discard", port)
        for count in scale.parallel:
            for start in Start if count > 1 else (Start.GREET,):
                yield _point(running, tools, scale, count, start)


def _point(running: Chain, tools: Tools, scale: Scale, count: int, start: Start) -> Point:
    def goodput(port: int) -> Sample:
        load = (port, count, _WARM_UP_SECONDS, scale.seconds, start)
        limit = 30 + _WARM_UP_SECONDS + scale.seconds + count / 20
        told = tools.run(running.client, "pour", running.address, *load, seconds=limit)
        return _sample(told, count)

    turns = alternate(scale.repeats, lambda _: goodput(STATIC_PORT), lambda _: goodput(DYSCO_PORT))
    name = "1 session" if count == 1 else f"{count:,} sessions"
    if start is Start.RUSH:
        name += ", right after the handshake"
    sides = {"baseline is": "static routing", "measured is": "Dysco"}
    return point_of(NAME, name, "Gbit/s", turns, sides)


def _sample(told: dict[str, float], count: int) -> Sample:
    """Gbit/s that the server acknowledged, all sessions together."""
    detail = {
        "retransmits": told["retransmits"],
        "slowest_share": round(told["slowest"] * count / max(1, told["bytes"]), 3),
    }
    return Sample(told["bytes"] * 8 / told["seconds"] / 1e9, detail)
