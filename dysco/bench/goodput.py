"""`goodput`: many sessions at once through one middlebox, beside the same without Dysco.

The baseline: the same devices and the same middlebox by static routing.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    with chain(BOXES, Target.SOFTNIC, directory) as running:
        for port in (DYSCO_PORT, STATIC_PORT):
            tools.serve(running.server, "discard", port)
        for count in scale.parallel:
            yield _point(running, tools, scale, count)


def _point(running: Chain, tools: Tools, scale: Scale, count: int) -> Point:
    turns = alternate(
        scale.repeats,
        lambda _: _goodput(running, tools, STATIC_PORT, count, scale.seconds),
        lambda _: _goodput(running, tools, DYSCO_PORT, count, scale.seconds),
    )
    plural = "session" if count == 1 else "sessions"
    sides = {"baseline is": "static routing", "measured is": "Dysco"}
    return point_of(NAME, f"{count:,} {plural}", "Gbit/s", turns, sides)


def _goodput(running: Chain, tools: Tools, port: int, count: int, seconds: int) -> Sample:
    """Gbit/s that the server acknowledged, all sessions together."""
    arguments = (running.address, port, count, _WARM_UP_SECONDS, seconds)
    limit = 30 + _WARM_UP_SECONDS + seconds + count / 20
    told = tools.run(running.client, "pour", *arguments, seconds=limit)
    detail = {
        "retransmits": told["retransmits"],
        "slowest_share": round(told["slowest"] * count / max(1, told["bytes"]), 3),
    }
    return Sample(told["bytes"] * 8 / told["seconds"] / 1e9, detail)
