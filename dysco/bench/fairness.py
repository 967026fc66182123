"""`fairness`: several devices in one process, some of them with more to do than there is time for.

    device 1, 2, 3: packets from memory to memory, without a pause      shares of the processor
    device 4:       left -- [ eth ] -- right, a packet now and then     one way through it

Each device has a thread of its own: what one gets is the scheduler's doing, and what it must not
wait for is another one's lock.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dysco.bench.p4client import PROGRAM
from dysco.bench.repeat import alternate
from dysco.bench.result import Point
from dysco.bench.sample import Sample, point_of
from dysco.bench.scale import Scale
from dysco.bench.target import frame_of, insert_of, raw_socket
from dysco.bench.tools import Tools
from dysco.topo.devices import CPU_PORT
from dysco.topo.spec import HOST_IFNAME, DeviceSpec, HostSpec, TopologySpec
from dysco.topo.topology import Topology
from softnic.native import NativeDataPlane, compile_program

NAME = "fairness"

_SPEC = TopologySpec(
    (HostSpec("left", 1, device="nic", number=2), HostSpec("right", 1, device="nic", number=3)),
    (DeviceSpec("nic", 1, router=None),),
)
_LOADED = 3
_FLOWS = 256
_ROUNDS = 40
_GAP_S = 0.002


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    del tools
    program = compile_program(PROGRAM.read_bytes())
    with ExitStack() as stack:
        loaded = []
        for number in range(_LOADED):
            plane = NativeDataPlane({}, cpu_port=CPU_PORT, name=f"loaded {number}")
            stack.callback(plane.close)
            plane.load(program)
            plane.write([insert_of(n) for n in range(_FLOWS)])
            loaded.append(plane)
        topology = stack.enter_context(Topology(_SPEC, directory))
        with topology.devices.entered():
            quiet = NativeDataPlane(dict(topology.ports_of(_SPEC.device("nic"))), cpu_port=CPU_PORT)
        stack.callback(quiet.close)
        quiet.load(program)
        values = tuple(_shares(loaded, scale.seconds) for _ in range(scale.repeats))
        yield Point(NAME, f"least of {_LOADED} loaded devices, of an equal share", "", values)
        with _ends(topology) as (left, right):
            samples = alternate(
                scale.repeats,
                lambda _: _one_way(left, right, scale.round_trips),
                lambda _: _while_loaded(loaded, left, right, scale.round_trips),
            )
        detail = {"baseline is": "others idle", "measured is": f"{_LOADED} others loaded"}
        yield point_of(NAME, "one way through another device", "us", samples, detail)


@contextmanager
def _ends(topology: Topology) -> Iterator[tuple[socket.socket, socket.socket]]:
    with topology.hosts["left"].entered():
        left = raw_socket(HOST_IFNAME)
    with topology.hosts["right"].entered():
        right = raw_socket(HOST_IFNAME)
    with left, right:
        yield left, right


class _Load:
    """Packets through a device until stopped, in a thread."""

    def __init__(self, plane: NativeDataPlane, stopped: threading.Event) -> None:
        self.passed = 0
        self._plane, self._stopped = plane, stopped
        self._frames = [frame_of(n) for n in range(_FLOWS)]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.passed += self._plane.loop(2, self._frames, _ROUNDS)[1]

    def join(self) -> int:
        """Packets that passed."""
        self._thread.join()
        return self.passed


@contextmanager
def _under_load(planes: list[NativeDataPlane]) -> Iterator[list[_Load]]:
    stopped = threading.Event()
    loads = [_Load(plane, stopped) for plane in planes]
    try:
        yield loads
    finally:
        stopped.set()
        for load in loads:
            load.join()


def _shares(planes: list[NativeDataPlane], seconds: float) -> float:
    with _under_load(planes) as loads:
        time.sleep(seconds)
    passed = [load.passed for load in loads]
    return min(passed) / statistics.mean(passed)


def _while_loaded(
    planes: list[NativeDataPlane], left: socket.socket, right: socket.socket, count: int
) -> Sample:
    with _under_load(planes):
        return _one_way(left, right, count)


def _one_way(left: socket.socket, right: socket.socket, count: int) -> Sample:
    """Microseconds from the one end to the other, median."""
    times = []
    for number in range(count):
        sent = frame_of(number)
        start = time.perf_counter_ns()
        left.send(sent)
        while right.recv(2048)[:54] != sent[:54]:
            pass
        times.append((time.perf_counter_ns() - start) / 1000)
        time.sleep(_GAP_S)
    ordered = sorted(times)
    worst = {"p99": round(ordered[len(ordered) * 99 // 100], 1), "most": round(ordered[-1], 1)}
    return Sample(statistics.median(ordered), worst)
