"""`forward`: what one pass through a device costs, beside a plain Linux bridge and beside bmv2.

Bridged: the packet has no session; the pipeline looks, and passes it on as it came. Rewritten: it
has, and leaves with its subsession's five-tuple.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dysco.bench.lane import (
    ECHO,
    ECHO_PORT,
    GOODPUT,
    GOODPUT_PORT,
    PACKETS,
    PACKETS_PORT,
    SINK_IP,
    SINK_MAC,
    Lane,
    lane,
)
from dysco.bench.repeat import alternate
from dysco.bench.result import Detail, Point
from dysco.bench.sample import Sample, device_share, point_of
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools, microseconds
from dysco.topo.devices import Target, command_path
from dysco.topo.process import ProcessError
from dysco.topo.spec import HOST_IFNAME
from dysco.topo.traffic import iperf, start_iperf_server

NAME = "forward"

_SETTLE_SECONDS = 0.3
_PING_GAP_US = 500
_BRIDGED_FIRST_PORT = 10_000
"""Source ports below are of no session of the plan, and of no socket that Linux picks itself."""


@dataclass(frozen=True, slots=True)
class _Bench:
    """A lane with its servers."""

    lane: Lane
    tools: Tools
    scale: Scale
    fresh: Iterator[int]
    """A new source port each time: the last one may still be in TIME_WAIT."""

    def goodput(self, rewritten: bool) -> Sample:
        """Gbit/s of one TCP stream."""
        first = GOODPUT.first if rewritten else _BRIDGED_FIRST_PORT
        port = first + next(self.fresh) % GOODPUT.count
        detail: Detail = {}
        with device_share(self.lane.device, detail):
            report = iperf(
                self.lane.left,
                self.lane.right_address,
                seconds=self.scale.seconds,
                port=GOODPUT_PORT,
                options=("--cport", str(port)),
            )
        end = report["end"]
        detail["retransmits"] = end["sum_sent"].get("retransmits")
        return Sample(end["sum_received"]["bits_per_second"] / 1e9, detail)

    def packets(self, rewritten: bool) -> Sample:
        """Minimum-size packets a second that arrived, while all are sent that can be."""
        first = PACKETS.first if rewritten else _BRIDGED_FIRST_PORT
        argv = self.tools.argv(
            "packets", HOST_IFNAME, self.lane.left_mac, SINK_MAC, self.lane.left_address, SINK_IP,
            first, PACKETS.count, PACKETS_PORT, self.scale.seconds + 1,
        )  # fmt: skip
        before = self._received()
        sender = self.lane.left.start(f"packets-{next(self.fresh)}", argv)
        sender.wait_ready(lambda: self._received() > before + 1000, "its packets arrived")
        time.sleep(_SETTLE_SECONDS)
        detail: Detail = {}
        with device_share(self.lane.device, detail):
            start, started = time.monotonic(), self._received()
            time.sleep(self.scale.seconds)
            count, seconds = self._received() - started, time.monotonic() - start
        if sender.wait_end(10.0):
            raise ProcessError(f"the packet generator failed\n{sender.log_tail()}")
        told = json.loads(sender.log.read_text())
        detail["offered"] = round(told["sent"] / told["seconds"])
        return Sample(count / seconds, detail)

    def half_round_trip(self, rewritten: bool) -> Sample:
        """Median of half a round trip, in microseconds, when nothing else is on the way."""
        first = ECHO.first if rewritten else _BRIDGED_FIRST_PORT
        port = first + next(self.fresh) % ECHO.count
        count = self.scale.round_trips
        times = self.tools.run(
            self.lane.left, "ping", self.lane.right_address, ECHO_PORT, port, count, _PING_GAP_US,
            seconds=20 + count / 100,
        )  # fmt: skip
        halves = sorted(value / 2 for value in microseconds(times))
        return Sample(statistics.median(halves), {"p99": round(halves[len(halves) * 99 // 100], 2)})

    def _received(self) -> int:
        index = self.lane.right.link_index(HOST_IFNAME)
        link = self.lane.right.ip.get_links(index)[0]
        return int(link.get_attr("IFLA_STATS64")["rx_packets"])


_Measure = Callable[[_Bench, bool], Sample]


class _Lanes:
    """The lanes of one run, up together and used in turns."""

    def __init__(self, tools: Tools, scale: Scale, directory: Path, stack: ExitStack) -> None:
        self._tools, self._scale, self._directory, self._stack = tools, scale, directory, stack

    def up(self, target: Target, *, offloads: bool = True) -> _Bench:
        name = f"{target.value}{'' if offloads else '-plain'}"
        running = self._stack.enter_context(lane(target, self._directory / name, offloads=offloads))
        start_iperf_server(running.right, GOODPUT_PORT)
        self._tools.serve(running.right, "echo", ECHO_PORT)
        return _Bench(running, self._tools, self._scale, itertools.count())

    def turns(
        self, theirs: _Bench, ours: _Bench, measure: _Measure, rewritten: bool
    ) -> tuple[list[Sample], list[Sample]]:
        return alternate(
            self._scale.repeats,
            lambda _: measure(theirs, rewritten),
            lambda _: measure(ours, rewritten),
        )


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points, bmv2's where it is installed. Raises ProcessError."""
    with ExitStack() as stack:
        lanes = _Lanes(tools, scale, directory, stack)
        yield from _beside_bridge(lanes, lanes.up(Target.BRIDGE), lanes.up(Target.SOFTNIC))
    if command_path(Target.BMV2) is not None:
        with ExitStack() as stack:
            lanes = _Lanes(tools, scale, directory, stack)
            bmv2 = lanes.up(Target.BMV2, offloads=False)
            yield from _beside_bmv2(lanes, bmv2, lanes.up(Target.SOFTNIC, offloads=False))


def _beside_bridge(lanes: _Lanes, bridge: _Bench, softnic: _Bench) -> Iterator[Point]:
    sides = {"baseline is": "Linux bridge", "measured is": "softnic"}
    for rewritten, how in ((False, "bridged"), (True, "rewritten")):
        turns = lanes.turns(bridge, softnic, _Bench.goodput, rewritten)
        yield point_of(NAME, f"one TCP stream, {how}", "Gbit/s", turns, {**sides, "offloads": True})
        turns = lanes.turns(bridge, softnic, _Bench.packets, rewritten)
        yield point_of(NAME, f"64-byte packets, {how}", "packets/s", turns, sides)
        turns = lanes.turns(bridge, softnic, _Bench.half_round_trip, rewritten)
        added = [round(o.value - t.value, 2) for t, o in zip(*turns, strict=True)]
        more = {**sides, "added_us": added, "added_us_median": statistics.median(added)}
        yield point_of(NAME, f"one way when idle, {how}", "us", turns, more)


def _beside_bmv2(lanes: _Lanes, bmv2: _Bench, softnic: _Bench) -> Iterator[Point]:
    sides = {"baseline is": "bmv2", "measured is": "softnic", "offloads": False}
    turns = lanes.turns(bmv2, softnic, _Bench.goodput, True)
    yield point_of(NAME, "one TCP stream beside bmv2", "Gbit/s", turns, sides)
    turns = lanes.turns(bmv2, softnic, _Bench.packets, True)
    yield point_of(NAME, "64-byte packets beside bmv2", "packets/s", turns, sides)
    turns = lanes.turns(bmv2, softnic, _Bench.half_round_trip, True)
    yield point_of(NAME, "one way when idle beside bmv2", "us", turns, sides)
