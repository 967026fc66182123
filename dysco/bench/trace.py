"""How long SYNs and SYN-ACKs stay in devices, from what the links on both sides of each saw.

host ──tap── [ device ] ──tap── network         one connect() at a time: the k-th SYN on one
                                                side is the k-th on the other
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dysco.topo.capture import Capture, Frame, Kind, Tap
from dysco.topo.packets import Segment
from dysco.topo.process import ProcessError
from dysco.topo.topology import Topology

_SYN, _ACK = 0x02, 0x10


@dataclass(slots=True)
class Passes:
    """Medians over all connect()s, summed over all devices on the way; filled at the end."""

    syn_us: float = 0.0
    syn_ack_us: float = 0.0


@contextmanager
def trace_passes(topology: Topology) -> Iterator[Passes]:
    """Watch both sides of all devices during the `with`. Raises ProcessError on a gap."""
    devices = topology.spec.devices
    taps = [
        Tap(f"{device.name}/{port}", topology.devices, ifname)
        for device in devices
        for port, ifname in topology.ports_of(device)
    ]
    passes = Passes()
    with Capture(taps, Kind.CONTROL) as capture:
        yield passes
    if capture.missed:
        raise ProcessError(f"{capture.missed} frames were not captured")
    passes.syn_us = _sum_of_medians(capture.frames, _SYN)
    passes.syn_ack_us = _sum_of_medians(capture.frames, _SYN | _ACK)


def _sum_of_medians(frames: list[Frame], flags: int) -> float:
    arrived: dict[str, list[float]] = {}
    left: dict[str, list[float]] = {}
    for frame in frames:
        transport = frame.packet.transport
        if isinstance(transport, Segment) and transport.flags & (_SYN | _ACK) == flags:
            (left if frame.outgoing else arrived).setdefault(frame.tap, []).append(frame.time)
    total = 0.0
    for tap, times in arrived.items():
        device = tap.partition("/")[0]
        # A host has one port and so has the network: what came in at one left at the other.
        others = [t for t in left if t != tap and t.startswith(f"{device}/")]
        if len(others) != 1 or len(left[others[0]]) != len(times):
            raise ProcessError(f"{device}: not every SYN that came in at {tap} left again")
        pairs = zip(times, left[others[0]], strict=True)
        total += statistics.median((out - into) * 1e6 for into, out in pairs)
    return total
