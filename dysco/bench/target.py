"""`target`: the P4 target by itself, beside bmv2 where that is installed; nothing of Dysco in it.

The program is dysco/bench/programs/five_tuple.p4: one exact match, a rewrite, a port.
"""

from __future__ import annotations

import itertools
import json
import random
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dysco.bench.p4client import PROGRAM
from dysco.bench.repeat import alternate
from dysco.bench.result import Point
from dysco.bench.sample import Sample, point_of
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools, microseconds
from dysco.bench.usage import memory_bytes
from dysco.topo.devices import CPU_PORT, Device, Target, command_path, start_devices
from dysco.topo.process import Process, ProcessError
from dysco.topo.spec import HOST_IFNAME, DeviceSpec, HostSpec, TopologySpec
from dysco.topo.topology import Topology
from softnic.dataplane import Entry, Match, Op, Update
from softnic.native import NativeDataPlane, compile_program

NAME = "target"

_SPEC = TopologySpec(
    (HostSpec("left", 1, device="nic", number=2), HostSpec("right", 1, device="nic", number=3)),
    (DeviceSpec("nic", 1, router=None),),
)
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_FLOWS = 4_096
"""Packets of the memory-to-memory loop, of as many sessions, picked at random."""
_MANY_FLOWS = 262_144
"""As many in the largest table: none of what they need is in a cache."""
_BATCH = 500
_ETHERTYPE = 0x0800
_WAIT_S = 5.0
_NULL_PORT = 9999


@dataclass(frozen=True, slots=True)
class _Bench:
    """A device with a host on each side."""

    topology: Topology
    device: Device
    fresh: Iterator[int]
    """Numbers for processes: a log is of one only."""

    def client(self, what: str, *counts: int) -> list[str]:
        argv = [sys.executable, "-m", "dysco.bench.p4client", self.device.grpc_address]
        return [*argv, str(self.device.spec.id), what, *map(str, counts)]

    def inserts(self, count: int) -> Sample:
        """Entries a second from one client, in batches."""
        told = self.topology.devices.run(self.client("inserts", count, _BATCH), seconds=120)
        return Sample(count / json.loads(told)["seconds"])

    def single(self, count: int) -> Sample:
        """Microseconds of a write of one entry, median."""
        told = self.topology.devices.run(self.client("single", count), seconds=120)
        return _middle([ns / 1000 for ns in json.loads(told)["ns"]])

    def alone(self, tools: Tools, count: int, packets: int) -> Sample:
        """Microseconds that the client takes by itself, of a server that does nothing; median.

        Of a write of one entry, `count` times, or of an answer to a packet-in, `packets` times.
        """
        number = next(self.fresh)
        argv = tools.argv("null", _NULL_PORT, packets)
        server = self.topology.devices.start(f"null-{number}", argv)
        server.wait_ready(lambda: "ready" in server.log.read_text(), "it listened")
        client = [sys.executable, "-m", "dysco.bench.p4client", f"127.0.0.1:{_NULL_PORT}", "1"]
        if not packets:
            told = self.topology.devices.run([*client, "single", str(count)], seconds=120)
            server.stop()
            return _middle([ns / 1000 for ns in json.loads(told)["ns"]])
        answerer = self.topology.devices.start(f"alone-{number}", [*client, "answer"])
        server.wait_ready(lambda: server.log.read_text().endswith("]}\n"), "it was answered", 120)
        answerer.stop()
        server.stop()
        return _middle(microseconds(json.loads(server.log.read_text().splitlines()[-1])))

    def punt(self, count: int) -> Sample:
        """Microseconds from a frame into the device, to the client, and back; median."""
        answerer = self.topology.devices.start(f"answer-{next(self.fresh)}", self.client("answer"))
        answerer.wait_ready(lambda: "ready" in answerer.log.read_text(), "it answered")
        times = []
        with self.topology.hosts["left"].entered():
            link = raw_socket(HOST_IFNAME)
        with link:
            for number in range(count):
                sent = frame_of(number, syn=True)
                start = time.perf_counter_ns()
                link.send(sent)
                while link.recv(2048)[:54] != sent[:54]:
                    pass
                times.append((time.perf_counter_ns() - start) / 1000)
        answerer.stop()
        return _middle(times)


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    yield from _pipeline(scale)
    with ExitStack() as stack:
        ours = stack.enter_context(_up(Target.SOFTNIC, directory / "softnic"))
        theirs = None
        if command_path(Target.BMV2) is not None:
            theirs = stack.enter_context(_up(Target.BMV2, directory / "bmv2"))
        yield from _beside(theirs, ours, scale)
        yield from _alone(ours, tools, scale)
    yield from _memory(scale, directory / "memory")
    yield from _start(scale, directory / "start")


def _pipeline(scale: Scale) -> Iterator[Point]:
    """Packets from memory to memory through the pipeline, one core, no interface."""
    with _plane() as plane:
        filled = 0
        for size in _SIZES if scale.open_sessions >= 10_000 else _SIZES[:2]:
            plane.write([insert_of(number) for number in range(filled, size)])
            filled = size
            yield _passes(plane, size, min(size, _FLOWS), scale)
        if filled >= _MANY_FLOWS:
            yield _passes(plane, filled, _MANY_FLOWS, scale)


def _passes(plane: NativeDataPlane, size: int, flows: int, scale: Scale) -> Point:
    frames = [frame_of(number) for number in random.Random(1).sample(range(size), flows)]
    rounds = max(1, 1_000_000 * scale.seconds // len(frames))
    values = []
    for _ in range(scale.repeats):
        seconds, out = plane.loop(2, frames, rounds)
        values.append(out / seconds)
    point = f"pipeline alone, {size:,} entries, {flows:,} in use"
    return Point(NAME, point, "packets/s", tuple(values))


def _beside(theirs: _Bench | None, ours: _Bench, scale: Scale) -> Iterator[Point]:
    inserts = 2 * scale.open_sessions
    measures: tuple[tuple[str, str, Callable[[_Bench], Sample]], ...] = (
        (f"inserts, batches of {_BATCH}", "entries/s", lambda b: b.inserts(inserts)),
        ("a single insert", "us", lambda b: b.single(scale.round_trips)),
        ("packet-in to packet-out", "us", lambda b: b.punt(scale.round_trips)),
    )
    for point, unit, measure in measures:
        if theirs is None:
            samples = [measure(ours) for _ in range(scale.repeats)]
            values = tuple(sample.value for sample in samples)
            yield Point(NAME, point, unit, values)
            continue
        turns = _turns(scale.repeats, theirs, ours, measure)
        detail = {"baseline is": "bmv2", "measured is": "softnic"}
        yield point_of(NAME, point, unit, turns, detail)


def _alone(bench: _Bench, tools: Tools, scale: Scale) -> Iterator[Point]:
    """What nobody's server can take away: the Python client with one that does nothing."""
    trips = scale.round_trips
    for point, count, packets in (
        ("a single insert", trips, 0),
        ("packet-in to packet-out", 1, trips),
    ):
        samples = [bench.alone(tools, count, packets) for _ in range(scale.repeats)]
        values = tuple(sample.value for sample in samples)
        yield Point(NAME, f"{point}, the client alone", "us", values)


def _turns(
    repeats: int, theirs: _Bench, ours: _Bench, measure: Callable[[_Bench], Sample]
) -> tuple[list[Sample], list[Sample]]:
    return alternate(repeats, lambda _: measure(theirs), lambda _: measure(ours))


def _memory(scale: Scale, directory: Path) -> Iterator[Point]:
    with _up(Target.SOFTNIC, directory) as bench:
        count = 10 * scale.open_sessions
        process = _process_of(bench.device)
        bench.inserts(_BATCH)
        before = memory_bytes(process.pid)
        bench.inserts(count)
        value = (memory_bytes(process.pid) - before) / count
        yield Point(NAME, "an exact entry", "bytes", (value,), detail={"entries": count})


def _start(scale: Scale, directory: Path) -> Iterator[Point]:
    """Seconds from the command to the first frame that came through."""
    cold, warm = [], []
    for number in range(scale.repeats):
        with Topology(_SPEC, directory / str(number)) as topology:
            cache = directory / str(number) / "cache"
            cold.append(_first_frame(topology, cache))
            warm.append(_first_frame(topology, cache))
    yield Point(NAME, "start to first packet, nothing compiled", "s", tuple(cold))
    yield Point(NAME, "start to first packet, from the cache", "s", tuple(warm))


def _first_frame(topology: Topology, cache: Path) -> float:
    command = command_path(Target.SOFTNIC)
    if command is None:
        raise ProcessError("softnic isn't installed")
    argv = [command, str(PROGRAM)]
    for port, ifname in topology.ports_of(_SPEC.device("nic")):
        argv += ["-i", f"{port}@{ifname}"]
    argv += ["--", "--cpu-port", str(CPU_PORT), "--grpc-server-addr", "127.0.0.1:0"]
    with topology.hosts["left"].entered():
        left = raw_socket(HOST_IFNAME)
    with topology.hosts["right"].entered():
        right = raw_socket(HOST_IFNAME)
    frame = frame_of(0)
    with left, right:
        right.settimeout(0.002)
        start = time.monotonic()
        process = topology.devices.start("nic", argv, {"XDG_CACHE_HOME": str(cache)})
        while True:
            left.send(frame)
            try:
                if right.recv(2048)[:34] == frame[:34]:
                    break
            except TimeoutError:
                if time.monotonic() - start > 60 or not process.running:
                    raise ProcessError(f"softnic didn't start\n{process.log_tail()}") from None
        seconds = time.monotonic() - start
    process.stop()
    return seconds


@contextmanager
def _up(target: Target, directory: Path) -> Iterator[_Bench]:
    with Topology(_SPEC, directory, offloads=target.offloads) as topology:
        yield _Bench(topology, start_devices(topology, target)["nic"], itertools.count())


@contextmanager
def _plane() -> Iterator[NativeDataPlane]:
    plane = NativeDataPlane({}, cpu_port=CPU_PORT)
    try:
        plane.load(compile_program(PROGRAM.read_bytes()))
        yield plane
    finally:
        plane.close()


def _process_of(device: Device) -> Process:
    if device.process is None:
        raise ProcessError(f"{device.spec.name} has no process of its own")
    return device.process


def raw_socket(ifname: str) -> socket.socket:
    """A socket for IPv4 frames, with a time-out."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((ifname, _ETHERTYPE))
    opened.settimeout(_WAIT_S)
    return opened


def _session(number: int) -> tuple[int, int, int, int]:
    return 0x0A000000 + number // 60_000, 0x0A010001, 1 + number % 60_000, 80


def insert_of(number: int) -> Update:
    """The entry of a session."""
    key = struct.pack(">IIHHB", *_session(number), 6)
    params = struct.pack(">IIHHH", 0x0B000001, 0x0C000001, 7, 81, 3)
    entry = Entry(Match(key, b"\xff" * len(key)), "IngressImpl.rewrite", params)
    return Update(Op.INSERT, "IngressImpl.sessions", entry)


def frame_of(number: int, *, syn: bool = False) -> bytes:
    """64 bytes with the checksum that nobody looks at, of a session."""
    src, dst, sport, dport = _session(number)
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 46, 1, 0, 64, 6, 0, src, dst)
    tcp = struct.pack(">HHIIBBHHH", sport, dport, 1, 2, 0x50, 2 if syn else 0x10, 1000, 0, 0)
    return struct.pack(">6x6xH", _ETHERTYPE) + ip[:10] + _sum(ip) + ip[12:] + tcp + bytes(6)


def _sum(header: bytes) -> bytes:
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def _middle(values: list[float]) -> Sample:
    ordered = sorted(values)
    p99 = round(ordered[len(ordered) * 99 // 100], 1)
    return Sample(statistics.median(ordered), {"p99": p99})
